//! Runs `virsh event` and asks for descriptions; libvirt has no interface of its own without its library.

use super::LibvirtSettings;
use super::domain::{Domain, MAX_XML};
use super::guests::{Guests, Out};
use super::lifecycle;
use crate::api::core::Core;
use crate::hypervisor::board::{Board, GuestRow};
use crate::hypervisor::keeper::Keeper;
use crate::hypervisor::qmp::lines::Lines;
use crate::hypervisor::qmp::tell;
use crate::hypervisor::step::{Note, Outcome, Wish};
use evpn::node::Requester;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Between two starts of virsh, the first and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// virsh answers within a second, or libvirt hangs.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(5);
/// Descriptions asked for at a time.
const DESCRIBING: usize = 4;
/// Where the whole is shown in `show hypervisors`.
const SOURCE: &str = "libvirt";

/// See the module.
struct Watch {
    settings: LibvirtSettings,
    core: Core,
    board: Board,
    row: GuestRow,
    guests: Guests,
    keeper: Keeper,
    describing: JoinSet<(String, Option<Domain>)>,
    permits: Arc<Semaphore>,
    told: Option<String>,
}

/// Never returns.
pub(super) async fn run(settings: LibvirtSettings, core: Core, board: Board) {
    let mut w = Watch {
        settings,
        keeper: Keeper::new(core.clone(), Requester::Libvirt),
        core,
        board,
        row: GuestRow { source: SOURCE.into(), state: "unknown".into(), ..GuestRow::default() },
        guests: Guests::default(),
        describing: JoinSet::new(),
        permits: Arc::new(Semaphore::new(DESCRIBING)),
        told: None,
    };
    let mut pause = BACK_OFF.0;
    loop {
        let begun = tokio::time::Instant::now();
        let why = w.once().await;
        w.guests.forget();
        w.row.connected = false;
        w.row.faults += 1;
        w.row.error = Some(why.clone());
        w.board.put(&w.row);
        if w.told.as_ref() != Some(&why) {
            w.note(None, true, &format!("{why}; trying again"));
            w.told = Some(why);
        }
        if begun.elapsed() > BACK_OFF.1 {
            pause = BACK_OFF.0;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

impl Watch {
    /// One run of `virsh event`. Returns why it ended.
    async fn once(&mut self) -> String {
        let virsh = self.settings.virsh.display().to_string();
        let mut child = match self.virsh(&["event", "--loop", "--event", "lifecycle"]) {
            Ok(c) => c,
            Err(e) => {
                return format!("cannot run {virsh}: {e}; install libvirt-clients, or set `libvirt.virsh`");
            }
        };
        let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
            return format!("{virsh} has no output");
        };
        self.row.connects += 1;
        self.row.connected = true;
        self.board.put(&self.row);
        let mut lines = Lines::default();
        let mut last_words: Vec<u8> = Vec::new();
        let (mut space, mut err_space) = ([0u8; 4096], [0u8; 1024]);
        let mut err_open = true;
        loop {
            tokio::select! {
                n = out.read(&mut space) => match n {
                    Ok(0) | Err(_) => break,
                    Ok(n) => {
                        lines.push(space.get(..n).unwrap_or_default());
                        loop {
                            match lines.next_line() {
                                Ok(Some(line)) => {
                                    if let Some(e) = lifecycle::parse(&String::from_utf8_lossy(line)) {
                                        self.row.error = None;
                                        self.guests.event(&e);
                                        self.carry_out();
                                    }
                                }
                                Ok(None) => break,
                                Err(e) => return format!("{virsh} printed {e}"),
                            }
                        }
                    }
                },
                n = err.read(&mut err_space), if err_open => match n {
                    Ok(n) if n > 0 && last_words.len() < 4096 => {
                        last_words.extend_from_slice(err_space.get(..n).unwrap_or_default());
                    }
                    Ok(n) if n > 0 => {}
                    Ok(_) | Err(_) => err_open = false,
                },
                Some(done) = self.describing.join_next() => {
                    if let Ok((name, domain)) = done {
                        self.guests.described(&name, domain.as_ref());
                        self.carry_out();
                    }
                }
                (wish, outcome) = self.keeper.ended() => self.ended(&wish, outcome),
            }
        }
        let status = tokio::time::timeout(DESCRIBE_LIMIT, child.wait()).await;
        let words = String::from_utf8_lossy(&last_words);
        let word: String = words
            .lines()
            .find(|l| l.contains("error"))
            .or(words.lines().next())
            .unwrap_or("no reason given")
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        match status {
            Ok(Ok(s)) => format!("{virsh} ended ({s}): {word}"),
            Ok(Err(_)) | Err(_) => format!("{virsh} closed its output: {word}"),
        }
    }

    fn virsh(&self, arguments: &[&str]) -> std::io::Result<Child> {
        Command::new(&self.settings.virsh)
            .args(["-q", "-r", "-c", &self.settings.uri])
            .args(arguments)
            // Its words are read by a program.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    fn carry_out(&mut self) {
        while let Some(out) = self.guests.poll_output() {
            match out {
                Out::Wish(wish) => self.keeper.wish(wish),
                Out::Note(domain, text) => self.note(Some(&domain), false, text),
                Out::Describe(name) => {
                    let permits = Arc::clone(&self.permits);
                    let settings = self.settings.clone();
                    self.describing.spawn(async move {
                        let _permit = permits.acquire().await;
                        let domain = tokio::time::timeout(DESCRIBE_LIMIT, describe(&settings, &name)).await;
                        (name, domain.ok().flatten())
                    });
                }
            }
        }
    }

    fn ended(&self, wish: &Wish, outcome: Outcome) {
        match outcome {
            Outcome::Done(_) | Outcome::NotNeeded => {}
            Outcome::Elsewhere(vtep) => {
                let text = format!("SPLIT BRAIN: it goes on here although {} is at {vtep}", wish.mac);
                self.note(None, true, &text);
            }
            Outcome::Refused(why) => {
                self.note(None, false, &format!("cannot {} {}: {why}", wish.step.name(), wish.mac));
            }
        }
    }

    fn note(&self, domain: Option<&str>, warn: bool, text: &str) {
        let guest = domain.map_or_else(|| SOURCE.to_owned(), |d| format!("{d} ({SOURCE})"));
        tell(&self.core, guest, &Note { warn, text: text.to_owned() });
    }
}

async fn describe(settings: &LibvirtSettings, name: &str) -> Option<Domain> {
    let mut child = Command::new(&settings.virsh)
        .args(["-q", "-r", "-c", &settings.uri, "dumpxml", "--domain", name])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut text = String::new();
    child.stdout.take()?.take(MAX_XML as u64 + 1).read_to_string(&mut text).await.ok()?;
    let _ = child.wait().await;
    Domain::parse(&text).ok().filter(|d| d.name == name)
}
