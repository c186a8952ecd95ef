//! One socket: connected, read, written, connected again. Each is a task of its own and waits for nobody.

use super::lines::Lines;
use super::machine::{ANSWER_LIMIT, Machine, Options, Out, Phase};
use crate::api::core::Core;
use crate::driver::clock;
use crate::hypervisor::board::{Board, GuestRow, NicRow};
use crate::hypervisor::keeper::Keeper;
use crate::hypervisor::nics::{self, Backend};
use crate::hypervisor::step::{Note, Step};
use evpn::node::{Command, Requester};
use evpn::types::{Span, Time};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Between two tries to connect, the first and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));
/// A session that held for so long was a good one: the next try comes soon.
const GOOD: Span = Span::secs(1);
/// Lines per second that a QEMU may send; more is no QEMU, and would only keep this thread busy.
const LINES_PER_SECOND: u32 = 1000;
/// Lines worked off before others get their turn.
const LINES_PER_TURN: u32 = 64;
const LIMIT: Duration = Duration::from_nanos(ANSWER_LIMIT.0);
/// Frames that a tap should have room for: half a second of the few thousand a second that a busy guest gets. Taps
/// are made with 1000, and libvirt leaves that alone.
const QUEUE: u32 = 500;

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// Closed by the other side.
    Closed,
    /// Nobody listens: there is no file, or no process.
    Gone,
    /// Something is wrong over there.
    Fault(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    path: PathBuf,
    machine: Machine,
    keeper: Keeper,
    core: Core,
    board: Board,
    lines: Lines,
    row: GuestRow,
    /// The last fault that was told, so that the same one is told once.
    told: Option<String>,
    /// When, in seconds, and lines since.
    rate: (u64, u32),
    pid: Option<i32>,
    /// The port whose short queue was told.
    narrow: Option<String>,
}

impl Session {
    pub(super) fn new(path: PathBuf, options: Options, core: Core, board: Board) -> Self {
        let row = GuestRow { source: path.display().to_string(), ..GuestRow::default() };
        Self {
            machine: Machine::new(options),
            keeper: Keeper::new(core.clone(), Requester::Qmp),
            core,
            board,
            lines: Lines::default(),
            row,
            told: None,
            rate: (0, 0),
            pid: None,
            narrow: None,
            path,
        }
    }

    /// Runs until the socket's file is gone and nobody is connected to it. `kick`: somebody may listen again.
    pub(super) async fn run(mut self, kick: Arc<Notify>) {
        let mut pause = BACK_OFF.0;
        loop {
            let begun = clock::now();
            let end = match connect(&self.path).await {
                Ok((stream, pid)) => {
                    self.pid = pid.or(self.pid);
                    self.machine.connected(pid, begun);
                    self.row.connects += 1;
                    self.lines.clear();
                    self.talk(stream).await
                }
                Err(end) => end,
            };
            let gone = matches!(end, End::Gone);
            self.machine.closed(gone, clock::now());
            if let End::Fault(why) = end {
                self.row.faults += 1;
                self.row.error = Some(why.clone());
                if self.told.as_ref() != Some(&why) {
                    self.told = Some(why.clone());
                    self.note(&Note { warn: true, text: format!("{why}; trying again") });
                }
            } else if clock::now().since(begun) >= GOOD {
                pause = BACK_OFF.0;
            }
            let _ = self.carry_out(None).await;
            self.post();
            if gone && !exists(&self.path) {
                break;
            }
            self.wait(pause, &kick, &mut pause).await;
        }
        // What the core was asked last, such as an abort, is still seen through.
        let _ = tokio::time::timeout(LIMIT, async {
            while !self.keeper.idle() {
                self.keeper.ended().await;
            }
        })
        .await;
        self.board.remove(&self.row.source);
    }

    /// Between two connections: the machine's own timers go on.
    async fn wait(&mut self, this: Duration, kick: &Notify, next: &mut Duration) {
        let until = tokio::time::Instant::now() + this;
        *next = (this * 2).min(BACK_OFF.1);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = kick.notified() => {
                    *next = BACK_OFF.0;
                    return;
                }
                (wish, outcome) = self.keeper.ended() => self.machine.done(&wish, outcome, clock::now()),
                () = sleep_till(self.machine.poll_timeout()) => self.machine.timeout(clock::now()),
            }
            let _ = self.carry_out(None).await;
            self.post();
        }
    }

    async fn talk(&mut self, mut stream: UnixStream) -> End {
        let mut space = vec![0u8; 16 << 10];
        // A line that has begun must end.
        let mut partial_until: Option<Time> = None;
        loop {
            if let Err(end) = self.carry_out(Some(&mut stream)).await {
                return end;
            }
            self.post();
            let next = [self.machine.poll_timeout(), partial_until].into_iter().flatten().min();
            tokio::select! {
                ready = stream.readable() => {
                    let n = match ready.and_then(|()| stream.try_read(&mut space)) {
                        Ok(0) => return End::Closed,
                        Ok(n) => n,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return End::Closed,
                        Err(e) => return End::Fault(format!("cannot read: {e}")),
                    };
                    self.lines.push(space.get(..n).unwrap_or_default());
                    if let Err(end) = self.take_lines(&mut stream).await {
                        return end;
                    }
                    partial_until = match (self.lines.partial(), partial_until) {
                        (false, _) => None,
                        (true, Some(t)) => Some(t),
                        (true, None) => Some(clock::now() + ANSWER_LIMIT),
                    };
                }
                (wish, outcome) = self.keeper.ended() => self.machine.done(&wish, outcome, clock::now()),
                () = sleep_till(next) => {
                    let now = clock::now();
                    if partial_until.is_some_and(|t| t <= now) {
                        return End::Fault("a line that does not end within 5 seconds".into());
                    }
                    self.machine.timeout(now);
                }
            }
        }
    }

    async fn take_lines(&mut self, stream: &mut UnixStream) -> Result<(), End> {
        let mut turn = 0;
        loop {
            let now = clock::now();
            match self.lines.next_line() {
                Ok(None) => return Ok(()),
                Ok(Some(line)) => self.machine.line(line, now),
                Err(e) => return Err(End::Fault(e.to_string())),
            }
            let second = now.0 / 1_000_000_000;
            if self.rate.0 != second {
                self.rate = (second, 0);
            }
            self.rate.1 += 1;
            if self.rate.1 > LINES_PER_SECOND {
                return Err(End::Fault(format!("more than {LINES_PER_SECOND} lines in a second")));
            }
            // The steps that a line asks for do not wait for the lines behind it.
            self.carry_out(Some(stream)).await?;
            turn += 1;
            if turn % LINES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Does what the machine wants.
    async fn carry_out(&mut self, mut stream: Option<&mut UnixStream>) -> Result<(), End> {
        while let Some(out) = self.machine.poll_output() {
            match out {
                Out::Wish(wish) => {
                    if let Step::Prepare { port, at_stop: true } = &wish.step {
                        self.check_queue(port);
                    }
                    self.keeper.wish(wish);
                }
                Out::Note(note) => self.note(&note),
                Out::FindTap(fd) => {
                    let port = self.pid.and_then(|pid| nics::tap_of(pid, fd));
                    self.machine.found_tap(fd, port);
                }
                Out::HangUp(why) => return Err(End::Fault(why)),
                Out::Send(line) => {
                    let Some(stream) = stream.as_deref_mut() else { continue };
                    // One short command at a time: this waits only for somebody who does not read at all.
                    match tokio::time::timeout(LIMIT, stream.write_all(&line)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(End::Closed),
                        Err(_) => return Err(End::Fault("commands are not read".into())),
                    }
                }
            }
        }
        if self.machine.up() {
            self.row.error = None;
        }
        Ok(())
    }

    /// From the stop at the source to the resume here, the guest's frames wait in its tap (PIT-26).
    fn check_queue(&mut self, port: &str) {
        let room = nics::queue_of(port);
        if let Some(n) = room.filter(|n| *n < QUEUE)
            && self.narrow.as_deref() != Some(port)
        {
            self.narrow = Some(port.to_owned());
            let text = format!(
                "port {port} keeps only {n} frames while the guest is stopped; `ip link set {port} txqueuelen 1000` \
                 keeps more"
            );
            self.note(&Note { warn: true, text });
        }
    }

    /// To the log, to `watch` and to the history; where the core is too busy for that, to the log at least.
    fn note(&self, note: &Note) {
        let path = self.path.display();
        let guest = self.machine.name().map_or_else(|| path.to_string(), |n| format!("{n} ({path})"));
        tell(&self.core, guest, note);
    }

    fn post(&mut self) {
        let m = &self.machine;
        self.row.guest = m.name().map(str::to_owned).or(self.row.guest.take());
        m.version().clone_into(&mut self.row.qemu);
        self.row.connected = m.up();
        if m.phase().name() != self.row.state {
            m.phase().name().clone_into(&mut self.row.state);
            self.row.since = clock::now();
        }
        self.row.migration_events = m.events();
        self.row.nics.clear();
        for (nic, state) in m.nics() {
            self.row.nics.push(NicRow {
                id: nic.id.clone(),
                mac: nic.mac,
                port: match &nic.backend {
                    Backend::Port(p) => Some(p.clone()),
                    Backend::Fd(_) | Backend::None => None,
                },
                state: state.map(str::to_owned),
            });
        }
        if m.phase() == Phase::Unknown && !m.up() {
            self.row.nics.clear();
        }
        self.board.put(&self.row);
    }
}

/// To the log, to `watch` and to the history; where the core is too busy for that, to the log at least.
pub(in crate::hypervisor) fn tell(core: &Core, guest: String, note: &Note) {
    let Note { warn, text } = note.clone();
    if core.send(Command::Tell { guest: guest.clone(), text: text.clone(), warn }).is_err() {
        if warn {
            tracing::warn!(guest, text, "guest");
        } else {
            tracing::info!(guest, text, "guest");
        }
    }
}

async fn connect(path: &Path) -> Result<(UnixStream, Option<i32>), End> {
    match tokio::time::timeout(LIMIT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().ok().and_then(|c| c.pid());
            Ok((stream, pid))
        }
        Ok(Err(e)) => Err(match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => End::Gone,
            io::ErrorKind::PermissionDenied => End::Fault(
                "cannot connect: permission denied; vtepd must be allowed to write to the socket".into(),
            ),
            _ => End::Fault(format!("cannot connect: {e}")),
        }),
        Err(_) => Err(End::Fault("cannot connect within 5 seconds".into())),
    }
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Until that time; for ever without one.
async fn sleep_till(at: Option<Time>) {
    match at {
        Some(t) => tokio::time::sleep(Duration::from_nanos(t.since(clock::now()).0)).await,
        None => std::future::pending().await,
    }
}
