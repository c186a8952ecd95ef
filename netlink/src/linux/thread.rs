//! The kernel thread: what may block or take long (whole reads, large batches, device set-up).

use super::dump::Reader;
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

/// A request. At most one of each kind is out at a time.
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
        /// Whether the kernel answered to the end.
        result: Result<(), OpError>,
    },
    /// To `Confirm`.
    Confirmed {
        /// From the request.
        generation: u64,
        /// Rows as they are, or the events of those that are gone.
        rows: Vec<KernelEvent>,
    },
    /// To `EnsureDevices`.
    Devices(Vec<DeviceProblem>),
}

/// Requests: one of each kind can wait. More would be an error of the caller.
const REQUESTS: usize = 8;
/// Answers: when the core is slow the thread waits for it here, with at most 64 × 256 rows in between.
const RESPONSES: usize = 64;

/// Handle to the thread. Dropping it lets the thread end after what it is doing.
#[derive(Debug)]
pub struct KernelThread {
    requests: Option<SyncSender<Request>>,
    responses: Receiver<Response>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<Installer>>,
}

impl KernelThread {
    /// In the network namespace of the calling thread.
    pub fn start() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (requests, inbox) = sync_channel(REQUESTS);
        let (outbox, responses) = sync_channel(RESPONSES);
        let worker = Worker {
            writer: Writer::open()?,
            reader: Reader::open()?,
            installer: Installer::new(),
            interest: Interest::default(),
            outbox,
            wake: Arc::clone(&wake),
        };
        let thread =
            std::thread::Builder::new().name("kernel".to_owned()).spawn(move || worker.run(&inbox))?;
        Ok(Self { requests: Some(requests), responses, wake, thread: Some(thread) })
    }

    /// Hands over a request. Never blocks.
    pub fn request(&self, request: Request) -> io::Result<()> {
        let Some(requests) = &self.requests else { return Err(io::ErrorKind::BrokenPipe.into()) };
        requests.try_send(request).map_err(|e| match e {
            TrySendError::Full(_) => io::ErrorKind::WouldBlock.into(),
            TrySendError::Disconnected(_) => io::Error::other("the kernel thread has ended"),
        })
    }

    /// The next answer, if there is one. Never blocks.
    pub fn response(&self) -> io::Result<Option<Response>> {
        match self.responses.try_recv() {
            Ok(r) => Ok(Some(r)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the kernel thread has ended")),
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

    /// Ends the thread after what it is doing. Answers that nobody took are dropped.
    pub fn stop(mut self) -> io::Result<Installer> {
        self.requests = None;
        // It may be waiting for room for an answer.
        while self.responses.recv().is_ok() {}
        let thread = self.thread.take().ok_or(io::ErrorKind::NotFound)?;
        thread.join().map_err(|_| io::Error::other("the kernel thread panicked"))
    }
}

impl AsRawFd for KernelThread {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

struct Worker {
    writer: Writer,
    reader: Reader,
    installer: Installer,
    interest: Interest,
    outbox: SyncSender<Response>,
    wake: Arc<OwnedFd>,
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Request>) -> Installer {
        while let Ok(request) = inbox.recv() {
            let alive = match request {
                Request::Apply(batch) => {
                    let mut results = Vec::with_capacity(batch.ops.len());
                    self.writer.apply(&batch.ops, &mut results);
                    self.answer(Response::Applied(batch, results))
                }
                Request::Read { generation, scope } => self.read(generation, scope),
                Request::Confirm { generation, suspects } => {
                    let rows = self.reader.confirm(&suspects, &self.interest);
                    self.answer(Response::Confirmed { generation, rows })
                }
                Request::EnsureDevices(wants) => {
                    self.interest = Interest::devices(&wants);
                    let problems = self.installer.ensure(&wants).unwrap_or_else(|e| {
                        let (device, problem) = ("host".to_owned(), format!("cannot set up devices: {e}"));
                        vec![DeviceProblem { device, problem, fatal: true }]
                    });
                    self.answer(Response::Devices(problems))
                }
            };
            if !alive {
                break;
            }
        }
        self.installer
    }

    fn read(&mut self, generation: u64, scope: Scope) -> bool {
        let (outbox, wake) = (self.outbox.clone(), Arc::clone(&self.wake));
        let result = self.reader.read(scope, &mut self.interest, &mut |rows| {
            send(&outbox, &wake, Response::Rows { generation, rows: rows.to_vec() });
        });
        self.answer(Response::ReadEnd { generation, result })
    }

    /// Whether somebody still listens.
    fn answer(&self, r: Response) -> bool {
        send(&self.outbox, &self.wake, r)
    }
}

fn send(outbox: &SyncSender<Response>, wake: &OwnedFd, r: Response) -> bool {
    // Woken before the queue can be full, so that the receiver is awake when we wait for room.
    let sent = outbox.send(r).is_ok();
    let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
    sent
}
