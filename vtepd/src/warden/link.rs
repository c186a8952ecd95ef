//! The daemon's end: starts the warden or finds it, and beats.

use super::{Hello, VERSION, Welcome, address, is_kin};
use evpn::node::Config;
use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A warden that takes longer to answer hangs.
const ANSWER: Duration = Duration::from_secs(2);
/// The same, while the daemon is at work.
const ANSWER_LATER: Duration = Duration::from_millis(100);
/// Beats between two tries to have a warden again; the first comes at once.
const RETRY: u32 = 30;
/// Asks a warden to end.
const END: &[u8] = b"end\n";

/// Why there is no warden.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the warden cannot be started: {0}")]
    Start(io::Error),
    #[error("the warden does not answer: {0}")]
    Answer(io::Error),
    #[error("somebody else has the warden's socket")]
    Stranger,
}

/// The connection to a warden. Nothing here blocks once it stands.
#[derive(Debug)]
pub(crate) struct Link {
    vtep: IpAddr,
    hello: Hello,
    stream: Option<UnixStream>,
    child: Option<Child>,
    /// Beats without a warden since the last try to have one.
    lost: u32,
}

impl Link {
    /// Finds the warden or starts one; from then on its clock stands still. `None` where nothing answers ARP and ND. A daemon
    /// goes on without one, says so, and tries again.
    pub(crate) fn call(config: &Config) -> Option<Self> {
        let answering = config.vnis.iter().filter(|v| v.arp_suppression);
        let bridges: BTreeSet<String> = answering.map(|v| v.bridge.clone()).collect();
        if bridges.is_empty() {
            return None;
        }
        let hello = Hello { version: VERSION, stale_ms: config.arp.stale_time.0 / 1_000_000, bridges };
        let mut link = Self { vtep: config.vtep, hello, stream: None, child: None, lost: 0 };
        match link.connect(ANSWER) {
            Ok(0) => {}
            Ok(rows) => tracing::warn!(
                rows,
                "no daemon ran for `arp.stale-time`: what it had answered ARP and ND from was deleted"
            ),
            Err(e) => {
                tracing::warn!(error = %e, "no warden: answers to ARP and ND would outlive this daemon");
            }
        }
        Some(link)
    }

    /// To be called once a second: says that the core loop turns, and starts a warden where there is none any more.
    pub(crate) fn keep(&mut self) {
        match self.beat() {
            None => {}
            Some(Ok(_)) => tracing::warn!("the warden had ended; there is one again"),
            Some(Err(e)) => {
                tracing::warn!(error = %e, "no warden: answers to ARP and ND would outlive this daemon");
            }
        }
    }

    fn connect(&mut self, patience: Duration) -> Result<usize, LinkError> {
        self.stream = None;
        let mut stream = self.reach()?;
        let mut welcome = self.greet(&mut stream, patience).map_err(LinkError::Answer)?;
        if welcome.version != VERSION {
            // That of an earlier release makes way.
            stream.write_all(END).map_err(LinkError::Answer)?;
            let _ = stream.read_to_end(&mut Vec::new());
            stream = self.reach()?;
            welcome = self.greet(&mut stream, patience).map_err(LinkError::Answer)?;
        }
        stream.set_nonblocking(true).map_err(LinkError::Answer)?;
        self.stream = Some(stream);
        Ok(welcome.deleted)
    }

    fn greet(&self, stream: &mut UnixStream, patience: Duration) -> io::Result<Welcome> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut line = serde_json::to_vec(&self.hello)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(&*stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// The warden that is there, or a new one: whoever can bind the name starts it.
    fn reach(&mut self) -> Result<UnixStream, LinkError> {
        let name = address(self.vtep).map_err(LinkError::Start)?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => {
                let child = start(self.vtep, listener).map_err(LinkError::Start)?;
                self.child = Some(child);
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(LinkError::Start(e)),
        }
        let stream = UnixStream::connect_addr(&name).map_err(LinkError::Answer)?;
        if is_kin(&stream) { Ok(stream) } else { Err(LinkError::Stranger) }
    }

    /// `None`: all is well, or it is not yet time to try again.
    fn beat(&mut self) -> Option<Result<usize, LinkError>> {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
            self.stream = None;
        }
        if let Some(stream) = &mut self.stream {
            match stream.write(b"\n") {
                Ok(_) => return None,
                // It is slow; so many beats are on their way that it has enough of them.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {}
            }
        }
        // The core thread waits meanwhile; a warden that hangs must not cost more than this.
        let first = self.lost == 0;
        self.lost = (self.lost + 1) % RETRY;
        first.then(|| self.connect(ANSWER_LATER).inspect(|_| self.lost = 0))
    }
}

/// The socket is handed over as standard input, so there is no moment at which nobody listens.
fn start(vtep: IpAddr, listener: UnixListener) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("vtepd").arg("warden").arg("--vtep").arg(vtep.to_string()).arg("--listening");
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    // Ctrl-C at the terminal is for the daemon.
    command.process_group(0).current_dir("/").env_clear();
    command.spawn()
}
