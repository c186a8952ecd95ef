//! `vtepd run`: everything that can be refused is refused before anything is touched.

use super::clock;
use super::core::{Core, CoreFault, End};
use super::requests::Requests;
use super::side::Side;
use crate::api::socket::{self, ClaimError};
use crate::cli::{FAILED, OK, RunArgs, USAGE, out};
use crate::config::keys::Keys;
use crate::config::{self, Settings};
use crate::state::{Care, Keeper, Restored, StateError};
use crate::{api, log};
use netlink::linux::{Dataplane, DataplaneConfig};
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Core(#[from] CoreFault),
    #[error("cannot listen for metrics on {on}: {why}")]
    Metrics { on: SocketAddr, why: io::Error },
    #[error("missing capability {}", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

impl StartError {
    /// The way out.
    fn help(&self, state_dir: &Path) -> Option<String> {
        let text = match self {
            Self::Claim(ClaimError::InUse { .. }) => {
                "stop the other one, or give this one its own `vtep.state-dir` and `api.socket`"
            }
            Self::State(_) => StateError::HELP,
            Self::Claim(ClaimError::Io { path, .. }) if path.starts_with(state_dir) => StateError::HELP,
            Self::Metrics { why, .. } => match why.kind() {
                io::ErrorKind::AddrInUse => {
                    "something else listens there; set `metrics.listen` to another port"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "`metrics.listen` is not an address of this host (is `lo` up?)"
                }
                _ => "set `metrics.listen` to another address, or leave the section out",
            },
            Self::Capabilities(_) => super::host::CAPABILITY_HELP,
            Self::Core(CoreFault::Listen { why, .. }) => match why.kind() {
                io::ErrorKind::AddrInUse => {
                    "another BGP speaker listens there (FRR's bgpd?); stop it, or set `bgp.port` or `bgp.listen`"
                }
                io::ErrorKind::AddrNotAvailable => "`bgp.listen` is not an address of this host",
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE; run as root or set `bgp.port`"
                }
                _ => return None,
            },
            Self::Core(CoreFault::Key { why, .. }) => match why.raw_os_error() {
                Some(libc::ENOPROTOOPT) => {
                    "this kernel was built without CONFIG_TCP_MD5SIG; use another one, or take the password out"
                }
                Some(libc::ENOMEM) => {
                    "raise the sysctl `net.core.optmem_max`: a listening socket has no room for so many keys"
                }
                _ => return None,
            },
            Self::Core(CoreFault::Kernel(_)) => "see `vtepd check --host`",
            Self::Claim(_) | Self::Core(CoreFault::Io(_)) | Self::Io(_) => return None,
        };
        Some(text.to_owned())
    }
}

/// Runs the daemon. Returns the exit code.
pub(super) fn run(args: &RunArgs) -> u8 {
    let color = out::Look::stderr_color();
    let mut settings = match config::load(&args.config) {
        Ok(settings) => settings,
        Err(report) => {
            out::complain(&report.render(color));
            return USAGE;
        }
    };
    if let Some(report) = settings.missing_ports(super::host::device_exists) {
        out::complain(&report.render(color));
        return USAGE;
    }
    let keys = match settings.keys() {
        Ok(keys) => keys,
        Err(report) => {
            out::complain(&report.render(color));
            return USAGE;
        }
    };
    if let Some(socket) = &args.socket {
        settings.socket.clone_from(socket);
    }
    log::abort_on_panic();
    match serve(&settings, keys) {
        Ok(()) => OK,
        Err(e) => {
            let mut text = format!("{} {e}\n", out::Color::Red.paint("error:", color));
            if let Some(help) = e.help(&settings.state_dir) {
                let _ = writeln!(text, "  help: {help}");
            }
            out::complain(&text);
            FAILED
        }
    }
}

fn serve(settings: &Settings, keys: Keys) -> Result<(), StartError> {
    let missing = super::host::missing_capabilities(&settings.node);
    if !missing.is_empty() {
        return Err(StartError::Capabilities(missing));
    }
    let state = socket::claim_state_dir(&settings.state_dir)?;
    let claim = socket::claim_socket(&settings.socket)?;
    let log = log::init(&settings.log)?;
    let done = with_locks(settings, keys, claim);
    log.flush();
    drop(state);
    done
}

fn with_locks(settings: &Settings, keys: Keys, claim: socket::Claim) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _in = runtime.enter();
    let (asker, end) = api::core::pair();
    let node = &settings.node;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        vtep = %node.vtep,
        asn = %node.asn,
        router_id = %node.router_id,
        neighbors = node.neighbors.len(),
        vnis = node.vnis.len(),
        socket = %settings.socket.display(),
        "vtepd starts"
    );
    let scrapes = settings.metrics.map(listen_for_scrapes).transpose()?;
    for file in &keys.exposed {
        tracing::warn!(file = %file.display(), "every user of this host can read this key");
    }
    report_host(node.clone())?;
    let care = Care::new(node.mobility.memory_time);
    let (keeper, restored) = Keeper::open(&settings.state_dir, care, clock::unix_seconds())?;
    report_state(&restored);
    let kept = (keeper, restored);
    let (seed, requests) = (super::host::seed(), Requests::new(end));
    let mut core = Core::start((node.clone(), keys), seed, settings.source_filter, requests, kept, |node| {
        Dataplane::open(DataplaneConfig { devices: node.devices(), ..DataplaneConfig::default() })
    })?;
    let socket::Claim { listener, file } = claim;
    let side = Side::start(listener, scrapes, asker.with_bfd(core.bfd()), settings.hypervisor.clone())?;
    let end = runtime.block_on(core.run());
    let closed = core.close();
    side.stop();
    drop(file);
    match end? {
        End::Clean => tracing::info!("stopped"),
        End::Late => tracing::warn!("stopped; not everything could be sent in time"),
        End::Forced => tracing::warn!("stopped at once, as a second signal asked for"),
    }
    closed.map_err(CoreFault::Kernel)?;
    Ok(())
}

/// What the state directory had.
fn report_state(r: &Restored) {
    let records = r.records.len();
    if r.raised > 0 {
        tracing::warn!(
            records,
            "the last sequences before a crash of the machine may be missing: every one is raised"
        );
    } else if records > 0 {
        tracing::info!(records, "sequences restored");
    }
}

fn listen_for_scrapes(on: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(on).and_then(|l| l.set_nonblocking(true).map(|()| l));
    bound.map_err(|why| StartError::Metrics { on, why })
}

/// Looks at the host on a thread of its own; what it finds is logged, nothing waits for it.
fn report_host(config: evpn::node::Config) -> io::Result<()> {
    std::thread::Builder::new().name("hostcheck".into()).spawn(move || {
        for f in super::host::findings(Some(&config)) {
            tracing::warn!(id = f.id, what = f.what, why = f.why, way_out = f.way_out, "host");
        }
    })?;
    Ok(())
}
