//! What `show` prints and `--json` returns. Kept apart from the tables inside, so that those can change.

use super::config::DuplicateAction;
use super::input::About;
use crate::types::{Asn, Mac, Seq, Span, Time, Vni};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Version of the JSON below; raised when a field changes its meaning.
pub const VERSION: u32 = 1;

/// A slice of a table. Rows are consistent in themselves; `revision` tells slices of different states apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// [`VERSION`].
    pub version: u32,
    /// Raised by every change of state.
    pub revision: u64,
    /// Rows, all of one table.
    pub rows: Rows,
    /// Cursor of the next slice; `None` at the end.
    pub next: Option<String>,
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "table", content = "rows", rename_all = "kebab-case")]
pub enum Rows {
    /// `show neighbors`
    Neighbors(Vec<NeighborView>),
    /// `show vnis`
    Vnis(Vec<VniView>),
    /// `show macs`
    Macs(Vec<MacView>),
    /// `show hosts`
    Hosts(Vec<HostView>),
    /// `show routes`
    Routes(Vec<RouteView>),
    /// `show moves`
    Moves(Vec<MoveView>),
    /// `show duplicates`
    Duplicates(Vec<DuplicateView>),
    /// `show kernel`
    Kernel(Vec<KernelView>),
    /// `show status`
    Status(Vec<StatusView>),
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighborView {
    /// Address.
    pub address: IpAddr,
    /// Configured AS.
    pub asn: Asn,
    /// FSM state by its RFC 4271 name.
    pub state: String,
    /// Time since the last change into or out of Established.
    pub since: Span,
    /// Times that Established was reached.
    pub established_count: u64,
    /// Negotiated hold time, seconds.
    pub hold_time: Option<u16>,
    /// Peer's identifier.
    pub router_id: Option<IpAddr>,
    /// End-of-RIB received.
    pub end_of_rib: bool,
    /// Routes in Adj-RIB-In.
    pub routes_in: usize,
    /// Routes advertised.
    pub routes_out: usize,
    /// UPDATEs received.
    pub updates_in: u64,
    /// UPDATEs sent.
    pub updates_out: u64,
    /// Faults in UPDATEs that did not end the session.
    pub faults: u64,
    /// Why the last session ended, or the last attempt failed.
    pub last_error: Option<String>,
    /// Configured text.
    pub description: Option<String>,
}

/// A VNI.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VniView {
    /// VNI.
    pub vni: Vni,
    /// Bridge.
    pub bridge: String,
    /// VXLAN device.
    pub vxlan: String,
    /// Ready to forward.
    pub ready: bool,
    /// What is missing, or wrong.
    pub problems: Vec<String>,
    /// Access ports in the bridge.
    pub ports: Vec<String>,
    /// Remote VTEPs in the flood list.
    pub vteps: Vec<IpAddr>,
    /// Local MACs.
    pub local_macs: usize,
    /// Remote MACs.
    pub remote_macs: usize,
    /// IP bindings.
    pub hosts: usize,
    /// Bridge MTU.
    pub mtu: Option<u32>,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Behind a local port.
    Port(String),
    /// Behind a remote VTEP.
    Vtep(IpAddr),
    /// Nowhere known.
    None,
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Port(p) => f.write_str(p),
            Self::Vtep(v) => v.fmt(f),
            Self::None => f.write_str("-"),
        }
    }
}

/// A MAC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MacView {
    /// VNI.
    pub vni: Vni,
    /// MAC.
    pub mac: Mac,
    /// Owner.
    pub place: Place,
    /// Sequence number of the owner's route.
    pub seq: Seq,
    /// Sticky.
    pub sticky: bool,
    /// Adopted at start and not confirmed yet.
    pub stale: bool,
    /// Another host has it too, see `show duplicates`.
    #[serde(default)]
    pub duplicate: bool,
    /// Addresses bound to it.
    pub ips: Vec<IpAddr>,
    /// Moves seen.
    pub moves: u32,
    /// Time since it is there.
    pub since: Span,
}

/// An IP binding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// VNI.
    pub vni: Vni,
    /// Address.
    pub ip: IpAddr,
    /// MAC.
    pub mac: Mac,
    /// Owner.
    pub place: Place,
    /// How it is known: `arp`, `nd`, `bgp`, `moved` (came with its MAC, to be confirmed), `adopted`.
    pub origin: String,
    /// Time since the last confirmation.
    pub confirmed: Span,
    /// Who answers ARP/ND for it here: `kernel` for a remote host, `host` for a local one.
    pub answered_by: String,
    /// Another host has the address, or its MAC, too.
    #[serde(default)]
    pub duplicate: bool,
}

/// An address that two hosts have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DuplicateView {
    /// VNI.
    pub vni: Vni,
    /// The address.
    pub address: About,
    /// Where it has been: ports of ours and VTEPs for a MAC, MACs for an IP.
    pub owners: Vec<String>,
    /// Who has it now.
    pub holder: Place,
    /// Our port where one of them is.
    pub port: String,
    /// Time since it was found out.
    pub since: Span,
    /// `reported`, `frozen` or `blocked`.
    pub state: String,
    /// The configured action.
    pub action: DuplicateAction,
}

/// An EVPN route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    /// Route in short form: type and key.
    pub route: String,
    /// Route type 1 to 8.
    pub route_type: u8,
    /// Route distinguisher.
    pub rd: String,
    /// Neighbour it came from; `None`: ours.
    pub from: Option<IpAddr>,
    /// BGP next hop.
    pub next_hop: Option<IpAddr>,
    /// VNI in the label.
    pub vni: Option<u32>,
    /// Mobility sequence.
    pub seq: Option<Seq>,
    /// Sticky.
    pub sticky: bool,
    /// Route targets and other extended communities.
    pub communities: Vec<String>,
    /// Imported into which VNIs.
    pub imported: Vec<Vni>,
    /// Best among the candidates.
    pub best: bool,
    /// Why it is not eligible.
    pub why_not: Option<String>,
}

/// A wanted kernel row beside what the kernel has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelView {
    /// Device name.
    pub device: String,
    /// `mac`, `flood` or `neigh`.
    pub kind: String,
    /// MAC or IP.
    pub key: String,
    /// Wanted value.
    pub want: String,
    /// What the kernel has there, in the form of `want`; filled in by the driver, which alone sees the mirror.
    #[serde(default)]
    pub has: Option<String>,
    /// Adopted at start and not confirmed yet.
    pub stale: bool,
    /// A row of ours is wanted. Otherwise what the kernel has there is its own, or somebody else's.
    #[serde(default = "yes")]
    pub wanted: bool,
}

fn yes() -> bool {
    true
}

/// What kind of move it was, as far as this VTEP can know; `docs/mobility.md` has the rules at length.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveKind {
    /// The MAC changed its owner while the old owner's claim stood (MIG-HOT-01).
    Hot,
    /// The same, and at the VTEP that lost it it had not been heard for a minute (MIG-WARM-01).
    Warm,
    /// Nobody stood for the MAC any more (withdrawn, aged out, or stale), and it appeared elsewhere (MIG-COLD-01).
    Cold,
    /// An address went to another MAC (RFC 9721 §3.2.2).
    ChangedMac,
    /// A MAC that had just moved took an address that it did not have before (RFC 9721 §3.2.3).
    NewIp,
}

impl MoveKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hot, Self::Warm, Self::Cold, Self::ChangedMac, Self::NewIp];

    /// Its name in views.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::ChangedMac => "changed-mac",
            Self::NewIp => "new-ip",
        }
    }
}

impl core::fmt::Display for MoveKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The socket of a peer has taken everything that a move makes us say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The peer.
    pub peer: IpAddr,
    /// When.
    pub at: Time,
}

/// A move from first sign to end. Times are `None` where the step does not apply or has not happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveView {
    /// Running number on this node.
    pub id: u64,
    /// Kind.
    pub kind: MoveKind,
    /// VNI.
    pub vni: Vni,
    /// MAC; with `changed-mac` the one that the address has now.
    pub mac: Mac,
    /// The MAC that the address had before (`changed-mac` only).
    pub mac_before: Option<Mac>,
    /// Addresses that moved with it, or the one that changed its MAC.
    pub ips: Vec<IpAddr>,
    /// `arrived` (it came to us), `left` (it was ours), `remote` (between two others).
    pub role: Cow<'static, str>,
    /// What told us first: `frame`, `fdb`, `bgp`, `api`, `qmp`, `libvirt`.
    pub cause: Cow<'static, str>,
    /// From.
    pub from: Place,
    /// To.
    pub to: Place,
    /// Sequence before.
    pub seq_before: Seq,
    /// Sequence after.
    pub seq: Seq,
    /// `left` only: how long it had not been heard when it left (forwarding table, ARP, RARP, ND).
    pub silent: Option<Span>,
    /// First sign: frame, FDB notification, request, or UPDATE received.
    pub seen: Time,
    /// Decided.
    pub decided: Time,
    /// When our UPDATE (or withdrawal) had been handed to the socket of each peer, in the order of time.
    pub peers: Vec<Handed>,
    /// The last of them, once all peers that were up have it.
    pub sent: Option<Time>,
    /// The kernel acknowledged the row.
    pub acked: Option<Time>,
    /// Our local hosts were told.
    pub told: Option<Time>,
}

impl MoveView {
    /// What `role` may be.
    pub const ROLES: [&str; 3] = ["arrived", "left", "remote"];
    /// What `cause` may be.
    pub const CAUSES: [&str; 6] = ["frame", "fdb", "api", "qmp", "libvirt", "bgp"];
    /// Names of the phases, in the order of [`Self::phases`].
    pub const PHASES: [&str; 4] = ["decided", "sent", "kernel", "told"];

    /// Each phase, from the first sign on: decided, sent to the last peer, in the kernel, local hosts told.
    pub fn phases(&self) -> [Option<Span>; 4] {
        [Some(self.decided), self.sent, self.acked, self.told].map(|t| t.map(|t| t.since(self.seen)))
    }

    /// From the first sign to the last step that there was.
    pub fn took(&self) -> Span {
        let peers = self.peers.last().map(|h| h.at.since(self.seen));
        self.phases().into_iter().flatten().chain(peers).max_by_key(|s| s.0).unwrap_or(Span::ZERO)
    }
}

/// Who has an address, and why: the answer to `vtepd why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyView {
    /// [`VERSION`].
    pub version: u32,
    /// VNI.
    pub vni: Vni,
    /// The MAC asked for, or the one behind the IP.
    pub mac: Option<Mac>,
    /// The IP asked for.
    pub ip: Option<IpAddr>,
    /// Who has it.
    pub owner: Place,
    /// For how long.
    pub since: Option<Span>,
    /// Sequence of the owner.
    pub seq: Option<Seq>,
    /// Moves of the MAC seen since it is known.
    pub moves: u32,
    /// The rule that decided.
    pub rule: Option<RuleView>,
    /// The answer in sentences.
    pub because: Vec<String>,
    /// Everybody who claims it, the winner first.
    pub candidates: Vec<CandidateView>,
    /// Of an IP: its binding.
    pub binding: Option<BindingView>,
    /// Of a MAC: addresses bound to it.
    pub ips: Vec<IpAddr>,
    /// The port here that lost it a short while ago.
    pub lost: Option<LostView>,
    /// What is remembered of the MAC's sequence.
    pub memory: Option<MemoryView>,
    /// Its last moves, oldest first.
    pub history: Vec<MoveView>,
    /// Rows that are wanted, beside what the kernel has.
    pub kernel: Vec<KernelView>,
}

/// A rule by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Short name, for programs.
    pub name: Cow<'static, str>,
    /// In words, with RFC section and requirement.
    pub text: String,
}

/// Somebody who claims an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    /// Where it would be: a port of ours, or a VTEP.
    pub place: Place,
    /// The neighbour whose route it is; `None`: our own claim.
    pub from: Option<IpAddr>,
    /// MAC.
    pub mac: Mac,
    /// IP of a MAC+IP route.
    pub ip: Option<IpAddr>,
    /// Sequence.
    pub seq: Seq,
    /// Sticky bit.
    pub sticky: bool,
    /// Default Gateway community.
    pub gateway: bool,
    /// Stale under graceful restart.
    pub stale: bool,
    /// This one counts.
    pub wins: bool,
    /// Why it does not; `None` for the winner.
    pub lost_by: Option<RuleView>,
}

/// The binding of an IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingView {
    /// MAC.
    pub mac: Mac,
    /// As [`HostView::origin`].
    pub origin: String,
    /// Time since the last confirmation.
    pub confirmed: Span,
    /// Probes sent since without an answer.
    pub probes: u8,
    /// It is a router (RFC 9047).
    pub router: bool,
    /// As [`HostView::answered_by`].
    pub answered_by: String,
}

/// A port that lost a MAC (PIT-04).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostView {
    /// Port.
    pub port: String,
    /// How long ago.
    pub ago: Span,
    /// Frames from there that were no claim.
    pub late_frames: u32,
    /// Time since the last of them.
    pub last: Option<Span>,
    /// Frames from there are no claim by themselves for so much longer.
    pub guarded: Span,
}

/// What is remembered of a sequence (EVPN-MOB-12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryView {
    /// Highest sequence seen or advertised.
    pub seq: Seq,
    /// By us.
    pub ours: bool,
    /// Released by its hypervisor until then, seconds since 1970 (PIT-04).
    pub released_until: Option<u64>,
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the program.
    pub program: String,
    /// VTEP address.
    pub vtep: IpAddr,
    /// AS.
    pub asn: Asn,
    /// BGP identifier.
    pub router_id: IpAddr,
    /// Time since start.
    pub uptime: Span,
    /// Neighbours established.
    pub established: usize,
    /// Neighbours configured.
    pub neighbors: usize,
    /// All neighbours sent End-of-RIB and nothing waits to be written or sent.
    pub converged: bool,
    /// Local MACs.
    pub local_macs: usize,
    /// Remote MACs.
    pub remote_macs: usize,
    /// Wall clock, seconds since 1970; `None` until the driver has told it.
    pub wall: Option<u64>,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// How much of something there is now, by name.
    #[serde(default)]
    pub gauges: BTreeMap<String, u64>,
}
