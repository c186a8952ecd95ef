//! What `show` prints and `--json` returns. Kept apart from the tables inside, so that those can change.

mod moves;
mod neighbor;
mod why;

pub use moves::{Handed, MoveKind, MoveView};
pub use neighbor::{EventView, FaultCount, FaultyView, Happened, MessageView, NeighborDetail, OpenView};
pub use why::{
    BindingView, CandidateView, HostSideView, LostView, MemoryView, QuestionView, RuleView, ToldView, WhyView,
};

use super::config::DuplicateAction;
use super::input::About;
use crate::types::{Asn, Mac, Seq, Span, Vni};
use serde::{Deserialize, Serialize};
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
    /// Its AS: the configured one, or what it said last if any other one than ours will do.
    pub asn: Option<Asn>,
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
    /// How many of them are stale: it is away, or has not told them again yet (RFC 4724 §4.2).
    #[serde(default)]
    pub routes_stale: usize,
    /// Routes advertised.
    pub routes_out: usize,
    /// UPDATEs received.
    pub updates_in: u64,
    /// UPDATEs sent.
    pub updates_out: u64,
    /// Faults in UPDATEs that did not end the session.
    pub faults: u64,
    /// Nothing is tried: shut down, or held down for too many prefixes.
    #[serde(default)]
    pub held_down: bool,
    /// Why the last session ended, or the last attempt failed.
    pub last_error: Option<String>,
    /// BFD with it, if configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdView>,
    /// Configured text.
    pub description: Option<String>,
    /// The prefix that it came from; `None`: it is configured itself.
    pub range: Option<String>,
}

/// BFD with a neighbour. `vtepd show bfd` has more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BfdView {
    /// Our state.
    pub state: crate::bfd::State,
    /// Why it left Up the last time; `None`: it is Up, or never was.
    pub diag: Option<String>,
    /// Time in this state; `None`: it has not changed since the start.
    pub since: Option<Span>,
    /// Times that the path or the neighbour has failed.
    pub failures: u64,
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
    /// What has taught it, or confirmed it last: `arp`, `nd`, `answer` (to a question of ours), `bgp`, `moved` (came with its
    /// MAC, to be confirmed), `prepared` (named by a hypervisor, to be confirmed), `static` (configured,
    /// and its MAC is here), `adopted` (a row found at the start).
    pub origin: String,
    /// Time since this MAC has it; of an adopted row, since the start.
    pub age: Span,
    /// Time since the last confirmation; of a remote host, since its route came. `None`: never.
    pub confirmed: Option<Span>,
    /// Who answers ARP/ND for it here.
    pub answered_by: AnsweredBy,
    /// Why.
    pub answered_why: String,
    /// It is a router (RFC 9047).
    pub router: bool,
    /// An operator has bound it, here or at a peer (RFC 9047 I flag).
    #[serde(default)]
    pub immutable: bool,
    /// Another host has the address, or its MAC, too.
    #[serde(default)]
    pub duplicate: bool,
    /// Bridge of the VNI, whose neighbour rows answer.
    pub bridge: String,
}

/// Who answers ARP and ND for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnsweredBy {
    /// The kernel of this VTEP, from a neighbour row.
    Kernel,
    /// The host that has it.
    Owner,
    /// Nobody.
    Nobody,
}

impl core::fmt::Display for AnsweredBy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Owner => "owner",
            Self::Nobody => "nobody",
        })
    }
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
    /// What was dropped where it came in, by port; ports without any are left out.
    #[serde(default)]
    pub port_drops: Vec<PortDropsView>,
    /// ARP and ND by port, as far as it was heard there; ports without any are left out.
    #[serde(default)]
    pub port_hosts: Vec<PortHostsView>,
}

/// ARP and ND of an access port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHostsView {
    /// VNI.
    pub vni: Vni,
    /// The port.
    pub port: String,
    /// By what became of it.
    #[serde(flatten)]
    pub hosts: super::PortHosts,
}

/// Frames dropped where they came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDropsView {
    /// VNI.
    pub vni: Vni,
    /// The port, or the VXLAN device.
    pub port: String,
    /// By rule.
    #[serde(flatten)]
    pub drops: super::PortDrops,
}
