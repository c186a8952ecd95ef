//! What may block or take long happens on two threads: one writes large batches, the other reads whole tables
//! and sets up devices. (A read of 100,000 rows takes the kernel seconds, because it walks the table anew for
//! every 32 KiB; writes do not wait for that.)

use super::dump::Reader;
use super::hold::{HoldPort, HoldWant};
use super::links::Installer;
use super::monitor::Interest;
use super::writer::Writer;
use crate::op::{Kernel as _, OpError, OpResult};
use crate::reconcile::{Batch, Scope};
use crate::setup::DeviceProblem;
use evpn::fabric::{DeviceWant, KernelEvent};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// A request. At most two batches and one of each other kind are out at a time.
#[derive(Debug)]
pub enum Request {
    /// Apply these ops.
    Apply(Batch),
    /// Read tables.
    Read {
        /// Label of the answers.
        generation: u64,
        /// Which.
        scope: Scope,
    },
    /// Ask for single rows.
    Confirm {
        /// Label of the answer.
        generation: u64,
        /// Suspected losses.
        suspects: Vec<KernelEvent>,
    },
    /// Create and adopt devices.
    EnsureDevices(Vec<DeviceWant>),
    /// Make a hold port.
    Hold(HoldWant),
}

/// An answer.
#[derive(Debug)]
pub enum Response {
    /// To `Apply`.
    Applied(Batch, Vec<OpResult>),
    /// Part of a read, at most 256 rows.
    Rows {
        /// From the request.
        generation: u64,
        /// Rows.
        rows: Vec<KernelEvent>,
    },
    /// The read is over.
    ReadEnd {
        /// From the request.
        generation: u64,
        /// Whether the kernel called all of it complete, if it answered to the end.
        result: Result<bool, OpError>,
    },
    /// To `Confirm`.
    Confirmed {
        /// From the request.
        generation: u64,
        /// Rows as they are, or the events of those that are gone.
        rows: Vec<KernelEvent>,
    },
    /// To `EnsureDevices`: what is wrong, and how often gateways have been repaired.
    Devices(Vec<DeviceProblem>, u64),
    /// To `Hold`.
    Hold(HoldWant, Result<HoldPort, String>),
}

/// Requests that can wait: two batches, or one of each other kind. More would be an error of the caller.
const REQUESTS: usize = 8;
/// Answers: when the core is slow the threads wait for it here, with at most 64 × 256 rows in between.
const RESPONSES: usize = 64;

/// Handle to the threads. Dropping it lets them end after what they are doing.
#[derive(Debug)]
pub struct KernelThread {
    writes: SyncSender<Batch>,
    reads: SyncSender<Request>,
    responses: Receiver<Response>,
    wake: Arc<OwnedFd>,
    writing: JoinHandle<()>,
    reading: JoinHandle<Installer>,
}

fn refused<T>(e: TrySendError<T>) -> io::Error {
    match e {
        TrySendError::Full(_) => io::ErrorKind::WouldBlock.into(),
        TrySendError::Disconnected(_) => io::Error::other("the kernel thread has ended"),
    }
}

impl KernelThread {
    /// In the network namespace of the calling thread.
    pub fn start() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (outbox, responses) = sync_channel(RESPONSES);
        let answers = Answers { outbox, wake: Arc::clone(&wake) };
        let (writes, batches) = sync_channel(REQUESTS);
        let (reads, inbox) = sync_channel(REQUESTS);
        let (writer, to) = (Writer::open()?, answers.clone());
        let reader = ReadThread {
            reader: Reader::open()?,
            installer: Installer::new(),
            interest: Interest::default(),
            answers,
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writing = thread("kernel-write").spawn(move || write(writer, &batches, &to))?;
        let reading = thread("kernel-read").spawn(move || reader.run(&inbox))?;
        Ok(Self { writes, reads, responses, wake, writing, reading })
    }

    /// Hands over a request. Never blocks.
    pub fn request(&self, request: Request) -> io::Result<()> {
        match request {
            Request::Apply(batch) => self.writes.try_send(batch).map_err(refused),
            other => self.reads.try_send(other).map_err(refused),
        }
    }

    /// The next answer, if there is one. Never blocks.
    pub fn response(&self) -> io::Result<Option<Response>> {
        match self.responses.try_recv() {
            Ok(r) => Ok(Some(r)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the kernel threads have ended")),
        }
    }

    /// Resets the wake-up; call it before [`KernelThread::response`] until that gives `None`.
    pub fn acknowledge(&self) {
        let mut n = [0; 8];
        // Empty already: nothing to reset.
        let _ = rustix::io::read(&*self.wake, &mut n);
    }

    /// Sets the wake-up by ourselves: more answers are waiting.
    pub fn wake(&self) {
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// Ends the threads after what they are doing. Answers that nobody took are dropped.
    pub fn stop(self) -> io::Result<Installer> {
        let Self { writes, reads, responses, writing, reading, .. } = self;
        drop((writes, reads));
        // They may be waiting for room for an answer.
        while responses.recv().is_ok() {}
        let panicked = |_| io::Error::other("a kernel thread panicked");
        writing.join().map_err(panicked)?;
        reading.join().map_err(panicked)
    }
}

impl AsRawFd for KernelThread {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

#[derive(Clone)]
struct Answers {
    outbox: SyncSender<Response>,
    wake: Arc<OwnedFd>,
}

impl Answers {
    /// Whether somebody still listens. Waits while the queue is full; each answer in it has woken the receiver.
    fn send(&self, r: Response) -> bool {
        let sent = self.outbox.send(r).is_ok();
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        sent
    }
}

fn write(mut writer: Writer, batches: &Receiver<Batch>, to: &Answers) {
    while let Ok(batch) = batches.recv() {
        let mut results = Vec::with_capacity(batch.ops.len());
        writer.apply(&batch.ops, &mut results);
        if !to.send(Response::Applied(batch, results)) {
            break;
        }
    }
}

struct ReadThread {
    reader: Reader,
    installer: Installer,
    interest: Interest,
    answers: Answers,
}

impl ReadThread {
    fn run(mut self, inbox: &Receiver<Request>) -> Installer {
        while let Ok(request) = inbox.recv() {
            let answer = match request {
                Request::Apply(batch) => {
                    debug_assert!(false, "batches go to the writing thread");
                    let results = vec![Err(OpError::from_errno(libc::EINVAL)); batch.ops.len()];
                    Response::Applied(batch, results)
                }
                Request::Read { generation, scope } => {
                    let answers = self.answers.clone();
                    let result = self.reader.read(scope, &mut self.interest, &mut |rows| {
                        answers.send(Response::Rows { generation, rows: rows.to_vec() });
                    });
                    Response::ReadEnd { generation, result }
                }
                Request::Confirm { generation, suspects } => {
                    let rows = self.reader.confirm(&suspects, &self.interest);
                    Response::Confirmed { generation, rows }
                }
                Request::EnsureDevices(wants) => {
                    self.interest = Interest::devices(&wants);
                    let problems = self.installer.ensure(&wants).unwrap_or_else(|e| {
                        let (device, problem) = ("host".to_owned(), format!("cannot set up devices: {e}"));
                        vec![DeviceProblem { id: "setup", device, problem, fatal: true }]
                    });
                    Response::Devices(problems, self.installer.repairs())
                }
                Request::Hold(want) => {
                    let made = HoldPort::make(&want).map_err(|e| format!("{}: {e}", doing_hold(&e)));
                    Response::Hold(want, made)
                }
            };
            if !self.answers.send(answer) {
                break;
            }
        }
        self.installer
    }
}

fn doing_hold(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::EACCES) => {
            "cannot open /dev/net/tun (CONFIG_TUN? allowed for the service?), so nothing is held for guests that leave"
        }
        Some(libc::EBUSY) => "a device of this name is there; remove it",
        _ => "cannot make a tap (CAP_NET_ADMIN?), so nothing is held for guests that leave",
    }
}
