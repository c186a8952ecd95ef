//! The sections that occur once: `[vtep]`, `[bgp]`, `[mobility]`, `[api]`, `[log]`.

use super::restart::RestartTerms;
use super::walk::{At, Collector, Place, Section, nearest};
use super::{DEFAULT_SOCKET, DEFAULT_STATE_DIR, LogFormat, LogSettings};
use evpn::node::RestartConfig;
use evpn::types::{Asn, RouterId, Span};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// `[vtep]`.
pub(super) struct Vtep {
    pub(super) address: Option<IpAddr>,
    pub(super) address_at: Place,
    pub(super) asn: Option<Asn>,
    pub(super) asn_at: Place,
    pub(super) router_id: Option<RouterId>,
    pub(super) udp_port: u16,
    pub(super) mtu: Option<u32>,
    pub(super) state_dir: PathBuf,
    pub(super) source_filter: bool,
}

/// Smallest and largest MTU: the bridge must carry IPv6 (RFC 8200 §5), and a VXLAN device takes up to 65535.
pub(super) const MTU: std::ops::RangeInclusive<u64> = 1280..=65535;

/// AS numbers that nobody may be: 0 (RFC 7607), `AS_TRANS` (RFC 6793), the last of each range (RFC 7300).
pub(super) fn asn(s: &Section<'_>, c: &mut Collector) -> Option<At<Asn>> {
    let At { value, place } = s.integer("asn", 1..=4_294_967_294, c)?;
    let n = value as u32;
    if n == u32::from(Asn::TRANS) || n == 65535 {
        let rfc = if n == 65535 { "RFC 7300" } else { "RFC 6793" };
        c.push(s.problem("asn", place, format!("AS {n} is reserved ({rfc})")));
        return None;
    }
    Some(At { value: Asn(n), place })
}

/// Whether an address can be one host's.
pub(super) fn is_unicast(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !matches!(ip, IpAddr::V4(a) if a.is_broadcast())
}

pub(super) fn vtep(root: &Section<'_>, c: &mut Collector) -> Vtep {
    let keys = ["address", "asn", "router-id", "udp-port", "mtu", "state-dir", "source-filter"];
    let s = root.section("vtep", &keys, c);
    let mut address_at = 0..0;
    let mut address = None;
    if let Some(a) = s.address("address", c) {
        address_at = a.place.clone();
        if is_unicast(a.value) && !a.value.is_loopback() {
            address = Some(a.value);
        } else {
            let help = "this is the address that other VTEPs send VXLAN packets to";
            c.push(s.problem("address", a.place, "not an address that others can reach").help(help));
        }
    } else if s.get("address").is_none() {
        s.missing("address", "the VXLAN source address, such as `address = \"10.255.0.1\"`", c);
    }
    let asn = asn(&s, c);
    if s.get("asn").is_none() {
        s.missing("asn", "the number of our autonomous system, such as `asn = 65000`", c);
    }
    Vtep {
        router_id: router_id(&s, address, c),
        address,
        address_at,
        asn_at: asn.as_ref().map_or(0..0, |a| a.place.clone()),
        asn: asn.map(|a| a.value),
        udp_port: s.integer("udp-port", 1..=65535, c).map_or(4789, |n| n.value as u16),
        mtu: s.integer("mtu", MTU, c).map(|n| n.value as u32),
        state_dir: path(&s, "state-dir", DEFAULT_STATE_DIR, c),
        source_filter: s.boolean("source-filter", c).unwrap_or(true),
    }
}

/// The BGP identifier: any four octets but zero (RFC 6286).
fn router_id(s: &Section<'_>, address: Option<IpAddr>, c: &mut Collector) -> Option<RouterId> {
    const HELP: &str = "write any IPv4 address but 0.0.0.0, different on every router of the AS";
    match s.get("router-id") {
        Some(_) => identifier(s, "router-id", HELP, c),
        None => match address {
            Some(IpAddr::V4(a)) => Some(a),
            Some(IpAddr::V6(_)) => {
                s.missing("router-id", &format!("an IPv6 VTEP has no default for it; {HELP}"), c);
                None
            }
            None => None,
        },
    }
}

/// Four octets in the form of an IPv4 address, not all zero.
fn identifier(s: &Section<'_>, key: &str, help: &str, c: &mut Collector) -> Option<RouterId> {
    match s.address(key, c)? {
        At { value: IpAddr::V4(id), .. } if !id.is_unspecified() => Some(id),
        At { place, .. } => {
            c.push(s.problem(key, place, "not a BGP identifier").help(help));
            None
        }
    }
}

fn path(s: &Section<'_>, key: &str, default: &str, c: &mut Collector) -> PathBuf {
    match s.text(key, c) {
        Some(At { value, place }) if value.is_empty() || value.contains('\0') => {
            c.push(s.problem(key, place, "not a path"));
            default.into()
        }
        Some(At { value, .. }) => value.into(),
        None => default.into(),
    }
}

/// `[bgp]`.
pub(super) struct Bgp {
    pub(super) port: u16,
    pub(super) listen: Option<IpAddr>,
    pub(super) cluster_id: Option<RouterId>,
    pub(super) restart_time: Span,
    pub(super) selection_deferral: Span,
    /// For neighbours that say nothing else.
    pub(super) restart: RestartConfig,
}

const CLUSTER: &str =
    "write any IPv4 address but 0.0.0.0, the same on all reflectors of a cluster; default: the router id";

pub(super) fn bgp(root: &Section<'_>, c: &mut Collector) -> Bgp {
    let keys = ["port", "listen", "restart-time", "selection-deferral", "graceful-restart", "cluster-id"];
    let s = root.section("bgp", &keys, c);
    let listen = s.address("listen", c).and_then(|At { value, place }| {
        if value.is_multicast() {
            c.push(s.problem("listen", place, "a multicast address cannot be listened on"));
            return None;
        }
        Some(value)
    });
    let restart_time = s.duration("restart-time", Span::secs(4095), c).unwrap_or(Span::secs(120));
    let mut restart = RestartConfig::default();
    // Whole seconds, up to the next: zero would mean that nothing is kept.
    restart.graceful.restart_time = restart_time.0.div_ceil(1_000_000_000) as u16;
    Bgp {
        port: s.integer("port", 1..=65535, c).map_or(179, |n| n.value as u16),
        listen,
        cluster_id: identifier(&s, "cluster-id", CLUSTER, c),
        restart_time,
        selection_deferral: s.duration("selection-deferral", Span::secs(4095), c).unwrap_or(Span::secs(60)),
        restart: RestartTerms::read(&s, c).config(restart),
    }
}

pub(super) fn api(root: &Section<'_>, c: &mut Collector) -> PathBuf {
    let s = root.section("api", &["socket"], c);
    let socket = path(&s, "socket", DEFAULT_SOCKET, c);
    // sun_path holds 108 octets with the final zero.
    if socket.as_os_str().len() > 107
        && let Some((_, place)) = s.get("socket")
    {
        c.push(s.problem("socket", place, "a unix socket's path has at most 107 octets"));
    }
    socket
}

/// `[metrics]`. Absent: no metrics.
pub(super) fn metrics(root: &Section<'_>, c: &mut Collector) -> Option<SocketAddr> {
    let s = root.section("metrics", &["listen"], c);
    let At { value, place } = s.text("listen", c)?;
    let Ok(listen) = value.parse::<SocketAddr>() else {
        let p = s.problem("listen", place, "must be an address and a port");
        c.push(p.help("for instance \"127.0.0.1:9474\" or \"[::1]:9474\""));
        return None;
    };
    if listen.port() == 0 || listen.ip().is_multicast() {
        let what = if listen.port() == 0 {
            "port 0 is none that can be asked"
        } else {
            "a multicast address cannot be listened on"
        };
        c.push(s.problem("listen", place, what));
        return None;
    }
    Some(listen)
}

pub(super) fn log(root: &Section<'_>, c: &mut Collector) -> LogSettings {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    const FORMATS: [&str; 2] = ["human", "json"];
    let s = root.section("log", &["level", "format"], c);
    let level = choice(&s, "level", &LEVELS, c).and_then(|l| l.parse().ok()).unwrap_or(tracing::Level::INFO);
    let format = match choice(&s, "format", &FORMATS, c) {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Human,
    };
    LogSettings { level, format }
}

/// A string out of a short list.
pub(super) fn choice<'k>(
    s: &Section<'_>,
    key: &str,
    among: &[&'k str],
    c: &mut Collector,
) -> Option<&'k str> {
    let At { value, place } = s.text(key, c)?;
    if let Some(found) = among.iter().find(|k| **k == value) {
        return Some(found);
    }
    let list = among.iter().map(|k| format!("\"{k}\"")).collect::<Vec<_>>().join(", ");
    let p = s.problem(key, place, format!("must be one of {list}"));
    c.push(match nearest(value, among) {
        Some(near) => p.label(format!("did you mean \"{near}\"?")),
        None => p,
    });
    None
}
