//! Runs `virsh event` and asks for descriptions; libvirt has no interface of its own without its library.

use super::LibvirtSettings;
use super::domain::{Domain, MAX_XML};
use super::guests::{Guests, Out};
use super::lifecycle;
use super::truth::{Lists, is_migrating, names};
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
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Domains asked about at a time.
const DESCRIBING: usize = 4;
/// And of those that do not move: whoever moves waits for none of them, however many run here.
const GETTING_TO_KNOW: usize = 1;
/// The lists are asked when virsh has been started, and once more after this time: only then does it surely listen,
/// and what happened in between is in the second ones.
const LISTENS_AFTER: Duration = Duration::from_secs(2);
/// Lists that could not be had are asked again after this time.
const LIST_AGAIN: Duration = Duration::from_secs(5);
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
    asking: JoinSet<Told>,
    /// Of this run of virsh the lists are to be asked then.
    list_at: Option<tokio::time::Instant>,
    permits: Arc<Semaphore>,
    unhurried: Arc<Semaphore>,
    told: Option<String>,
}

/// What one run of virsh for an answer has told.
enum Told {
    Description(String, Option<Domain>),
    /// A domain, whether it is paused for a migration, and whether it ran before.
    WhyPaused(String, bool, bool),
    /// `None`: libvirt did not say. With the run of `virsh event` that they were asked for.
    Lists(u64, Option<Lists>),
}

/// Never returns.
pub(super) async fn run(settings: LibvirtSettings, core: Core, board: Board) {
    let mut w = Watch {
        guests: Guests::new(settings.at_stop),
        settings,
        keeper: Keeper::new(core.clone(), Requester::Libvirt),
        core,
        board,
        row: GuestRow { source: SOURCE.into(), state: "unknown".into(), ..GuestRow::default() },
        asking: JoinSet::new(),
        list_at: None,
        permits: Arc::new(Semaphore::new(DESCRIBING)),
        unhurried: Arc::new(Semaphore::new(GETTING_TO_KNOW)),
        told: None,
    };
    let mut pause = BACK_OFF.0;
    loop {
        let begun = tokio::time::Instant::now();
        let why = w.once().await;
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
        w.rest(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

impl Watch {
    /// One run of `virsh event`. Returns why it ended.
    async fn once(&mut self) -> String {
        let program = self.settings.virsh.display().to_string();
        let mut child =
            match virsh(&self.settings, &["event", "--loop", "--event", "lifecycle"], Stdio::piped()) {
                Ok(c) => c,
                Err(e) => {
                    return format!(
                        "cannot run {program}: {e}; install libvirt-clients, or set `libvirt.virsh`"
                    );
                }
            };
        let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
            return format!("{program} has no output");
        };
        self.row.connects += 1;
        self.row.connected = true;
        let now = tokio::time::Instant::now();
        let listens = now + LISTENS_AFTER;
        self.list_at = Some(now);
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
                                Err(e) => return format!("{program} printed {e}"),
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
                Some(Ok(told)) = self.asking.join_next() => self.told(told),
                () = until(self.list_at) => {
                    let now = tokio::time::Instant::now();
                    self.list_at = (now < listens).then_some(listens);
                    self.ask_lists();
                }
                (wish, outcome) = self.keeper.ended() => self.ended(&wish, outcome),
            }
        }
        let status = tokio::time::timeout(ANSWER_LIMIT, child.wait()).await;
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
            Ok(Ok(s)) => format!("{program} ended ({s}): {word}"),
            Ok(Err(_)) | Err(_) => format!("{program} closed its output: {word}"),
        }
    }

    /// Between two runs of `virsh event`: what was asked before is still seen through.
    async fn rest(&mut self, pause: Duration) {
        let end = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                Some(Ok(told)) = self.asking.join_next() => self.told(told),
                (wish, outcome) = self.keeper.ended() => self.ended(&wish, outcome),
            }
        }
    }

    fn ask_lists(&mut self) {
        self.guests.listing();
        let (settings, run) = (self.settings.clone(), self.row.connects);
        self.asking.spawn(async move { Told::Lists(run, lists(&settings).await) });
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Description(name, domain) => self.guests.described(&name, domain.as_ref()),
            Told::WhyPaused(name, migrating, ran) => self.guests.paused(&name, migrating, ran),
            // Of an earlier run: events that came after it are known, and would be undone.
            Told::Lists(run, _) if run != self.row.connects || !self.row.connected => {}
            Told::Lists(_, Some(lists)) => self.guests.compare(&lists),
            Told::Lists(_, None) => {
                let again = tokio::time::Instant::now() + LIST_AGAIN;
                self.list_at = Some(self.list_at.map_or(again, |t| t.min(again)));
            }
        }
        self.carry_out();
    }

    fn describe(&mut self, name: String, permits: Arc<Semaphore>) {
        let settings = self.settings.clone();
        self.asking.spawn(async move {
            let _permit = permits.acquire().await;
            let xml = ask(&settings, &["dumpxml", "--domain", &name]).await;
            let domain = xml.and_then(|x| Domain::parse(&x).ok()).filter(|d| d.name == name);
            Told::Description(name, domain)
        });
    }

    fn carry_out(&mut self) {
        while let Some(out) = self.guests.poll_output() {
            match out {
                Out::Wish(wish) => self.keeper.wish(wish),
                Out::Note(domain, text) => self.note(Some(&domain), false, text),
                Out::Describe(name) => self.describe(name, Arc::clone(&self.permits)),
                Out::GetToKnow(name) => self.describe(name, Arc::clone(&self.unhurried)),
                Out::AskWhyPaused(name, ran) => {
                    let permits = Arc::clone(&self.permits);
                    let settings = self.settings.clone();
                    self.asking.spawn(async move {
                        let _permit = permits.acquire().await;
                        let state = ask(&settings, &["domstate", "--reason", "--domain", &name]).await;
                        Told::WhyPaused(name, state.is_some_and(|s| is_migrating(&s)), ran)
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

fn virsh(settings: &LibvirtSettings, arguments: &[&str], errors: Stdio) -> std::io::Result<Child> {
    Command::new(&settings.virsh)
        .args(["-q", "-r", "-c", &settings.uri])
        .args(arguments)
        // Its words are read by a program.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
}

/// What virsh prints, if it succeeds in time.
async fn ask(settings: &LibvirtSettings, arguments: &[&str]) -> Option<String> {
    let answer = async {
        let mut child = virsh(settings, arguments, Stdio::null()).ok()?;
        let mut text = Vec::new();
        child.stdout.take()?.take(MAX_XML as u64 + 1).read_to_end(&mut text).await.ok()?;
        let status = child.wait().await.ok()?;
        status.success().then(|| String::from_utf8_lossy(&text).into_owned())
    };
    tokio::time::timeout(ANSWER_LIMIT, answer).await.ok().flatten()
}

async fn lists(settings: &LibvirtSettings) -> Option<Lists> {
    // In this order: what starts to run in between is active and does not run yet, which is true or will be an event.
    let running = names(&ask(settings, &["list", "--name", "--state-running"]).await?);
    let active = names(&ask(settings, &["list", "--name"]).await?);
    Some(Lists { running, active })
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(t) => tokio::time::sleep_until(t).await,
        None => std::future::pending().await,
    }
}
