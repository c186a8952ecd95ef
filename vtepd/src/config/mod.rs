//! The configuration file: TOML, strict, every error at once with its line and key (design section 7).
//!
//! serde stops at the first error, so the document is walked with a collector of our own. What comes out is
//! [`Settings`]: the node's own configuration, already validated, and what only the daemon needs.

mod arp;
mod bfd;
mod fixed;
mod gateway;
mod hypervisor;
pub mod keys;
mod mobility;
mod names;
mod neighbor;
mod neighbor_rules;
mod problem;
mod range;
mod restart;
mod static_hosts;
mod targets;
mod terms;
mod vni;
mod vtep;
pub(crate) mod walk;

pub use problem::{Place, Problem, Report};

use evpn::node::Config;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::de::DeTable;
use walk::{Collector, Section};

/// Where the API listens unless configured.
pub const DEFAULT_SOCKET: &str = "/run/vtepd/vtepd.sock";
/// Where state is kept unless configured.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/vtepd";
/// Largest configuration file, octets.
const MAX_FILE: u64 = 16 << 20;

/// Everything that a configuration file says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// What the node is told.
    pub node: Config,
    /// Directory for state that outlives the process, and for the lock.
    pub state_dir: PathBuf,
    /// Accept VXLAN from known VTEPs only (PIT-12).
    pub source_filter: bool,
    /// Where news of guests come from.
    pub hypervisor: crate::hypervisor::HypervisorSettings,
    /// The API's unix socket.
    pub socket: PathBuf,
    /// Where Prometheus may ask for metrics; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Loudness and form of the log.
    pub log: LogSettings,
    origin: Origin,
}

/// What is needed to point at the file again after it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Origin {
    file: PathBuf,
    text: String,
    ports: Vec<PortAt>,
    keys: Vec<keys::PeerKeyAt>,
}

/// A port that has to be there at start, and where the file names it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct PortAt {
    name: String,
    place: Place,
}

impl Settings {
    /// The keys of connections, from where the file says that they are (BGP-SEC-03).
    ///
    /// # Errors
    /// Those that are not there or cannot be keys, with the line that names them.
    pub fn keys(&self) -> Result<keys::Keys, Box<Report>> {
        let Origin { file, text, keys, .. } = &self.origin;
        let variable = |name: &str| Some(std::env::var_os(name)?.into_encoded_bytes());
        keys::Keys::read(keys, variable).map_err(|mut problems| {
            problems.sort_by_key(|p| p.at.start);
            Box::new(Report { file: file.clone(), text: text.clone(), problems })
        })
    }

    /// The ports that this host does not have, as errors with their line; `None` if all are there.
    pub fn missing_ports(&self, exists: impl Fn(&str) -> bool) -> Option<Box<Report>> {
        let missing = |p: &&PortAt| !exists(&p.name);
        let problem = |p: &PortAt| {
            Problem::new(
                "vni.ports",
                p.place.clone(),
                format!("there is no device `{}` on this host", p.name),
            )
            .help("create it first, or set `late-ports = true` in this [[vni]] to take it when it appears")
        };
        let problems: Vec<_> = self.origin.ports.iter().filter(missing).map(problem).collect();
        let Origin { file, text, .. } = &self.origin;
        (!problems.is_empty()).then(|| Box::new(Report { file: file.clone(), text: text.clone(), problems }))
    }
}

/// `[log]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogSettings {
    /// Least level.
    pub level: tracing::Level,
    /// Form.
    pub format: LogFormat,
}

/// Form of the log on standard error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One line a person can read.
    Human,
    /// One JSON object a line.
    Json,
}

/// Reads and validates a file.
///
/// # Errors
/// Every error in it, with line, column and key; or why it could not be read.
pub fn load(file: &Path) -> Result<Settings, Box<Report>> {
    let unreadable = |why: &str, help: &str| Box::new(Report::unreadable(file, why, help));
    let meta = std::fs::metadata(file).map_err(|e| {
        let help = match e.kind() {
            std::io::ErrorKind::NotFound => "give the path of your configuration with `--config FILE`",
            std::io::ErrorKind::PermissionDenied => "run as root, or let this user read the file",
            _ => "check the path that was given with `--config`",
        };
        unreadable(&text_of(&e), help)
    })?;
    if meta.is_dir() {
        return Err(unreadable("it is a directory", "give the file itself with `--config FILE`"));
    }
    if meta.len() > MAX_FILE {
        return Err(unreadable("it is larger than 16 MiB", "is this the right file?"));
    }
    let bytes = std::fs::read(file)
        .map_err(|e| unreadable(&text_of(&e), "run as root, or let this user read the file"))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = String::from_utf8_lossy(&e.as_bytes()[..at]).matches('\n').count() + 1;
        unreadable(&format!("it is not UTF-8 (line {line}, octet {at})"), "save the file as UTF-8")
    })?;
    parse(file, text)
}

/// Validates the text of a file; `file` is for messages only.
///
/// # Errors
/// Every error in it.
pub fn parse(file: &Path, text: String) -> Result<Settings, Box<Report>> {
    let (settings, mut problems) = read(&text);
    if problems.is_empty() {
        if let Some(mut settings) = settings {
            file.clone_into(&mut settings.origin.file);
            settings.origin.text = text;
            return Ok(settings);
        }
        problems.push(Problem::new("", 0..0, "the configuration is not complete"));
    }
    problems.sort_by_key(|p| (p.at.start, p.at.end));
    Err(Box::new(Report { file: file.to_owned(), text, problems }))
}

/// Walks the whole document. `None` only together with at least one problem.
fn read(text: &str) -> (Option<Settings>, Vec<Problem>) {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut c = Collector::default();
    let known = [
        "vtep",
        "bgp",
        "mobility",
        "arp",
        "neighbor",
        "neighbor-group",
        "neighbor-range",
        "vni",
        "qmp",
        "libvirt",
        "api",
        "metrics",
        "log",
    ];
    let root = Section::new("", document.get_ref(), 0..0, &known, &mut c);

    let vtep = vtep::vtep(&root, &mut c);
    let bgp = vtep::bgp(&root, &mut c);
    let mobility = mobility::mobility(&root, &mut c);
    let arp = arp::arp(&root, bgp.restart_time, &mut c);
    let groups = neighbor::groups(&root, &mut c);
    let mut neighbors = neighbor::neighbors(&root, &vtep, &groups, bgp.restart, &mut c);
    let neighbor_ranges = range::ranges(&root, &vtep, &groups, bgp.restart, &mut neighbors, &mut c);
    let (vnis, ports) = vni::vnis(&root, &vtep, &mut c);
    let hypervisor = hypervisor::hypervisor(&root, &mut c);
    let socket = vtep::api(&root, &mut c);
    let metrics = vtep::metrics(&root, &mut c);
    let log = vtep::log(&root, &mut c);

    let problems = with_syntax(text, &syntax, c.problems);
    let settings = match (vtep.address, vtep.asn, vtep.router_id) {
        (Some(address), Some(asn), Some(router_id)) => Some(Settings {
            node: Config {
                vtep: address,
                asn,
                router_id,
                cluster_id: bgp.cluster_id.unwrap_or(router_id),
                udp_port: vtep.udp_port,
                bgp_port: bgp.port,
                listen: bgp.listen,
                neighbors: neighbors.configs,
                neighbor_ranges,
                vnis,
                restart_time: bgp.restart_time,
                selection_deferral: bgp.selection_deferral,
                mobility,
                arp,
            },
            state_dir: vtep.state_dir,
            source_filter: vtep.source_filter,
            hypervisor,
            socket,
            metrics,
            log,
            origin: Origin { file: PathBuf::new(), text: String::new(), ports, keys: neighbors.keys },
        }),
        _ => None,
    };
    (settings, problems)
}

/// Syntax errors, and of the others those that are not a consequence of one: a value on a line that cannot be
/// parsed says nothing, nor do the keys below a broken table header, and with broken syntax a missing key may be
/// the one that was mistyped.
fn with_syntax(text: &str, syntax: &[toml::de::Error], found: Vec<Problem>) -> Vec<Problem> {
    if syntax.is_empty() {
        return found;
    }
    let line = |at: usize| text.get(..at.min(text.len())).unwrap_or("").matches('\n').count();
    let lines: Vec<&str> = text.lines().collect();
    let is_header = |n: usize| lines.get(n).is_some_and(|l| l.trim_start().starts_with('['));
    let mut broken = std::collections::BTreeSet::new();
    let mut out = Vec::new();
    for e in syntax {
        let at = e.span().unwrap_or(0..0);
        let first = line(at.start);
        broken.extend([first, line(at.end)]);
        if is_header(first) {
            broken.extend((first + 1..lines.len()).take_while(|n| !is_header(*n)));
        }
        out.push(Problem::new("", at, e.message().to_lowercase()).label("not valid TOML"));
    }
    let stands = |p: &Problem| {
        !p.at.is_empty() && !p.what.starts_with("missing") && !broken.contains(&line(p.at.start))
    };
    out.extend(found.into_iter().filter(stands));
    out
}

/// An I/O error without the number that Rust appends.
fn text_of(e: &std::io::Error) -> String {
    let s = e.to_string();
    let s = s.split(" (os error").next().unwrap_or(&s);
    let mut chars = s.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}
