//! Everything that can change a node's state.

use super::bfd::BfdNews;
use super::event::Event;
use super::guard::GuardNews;
use super::hold::{Held, Leave};
use super::port_rules::PortNews;
use super::view::{MoveKind, MoveView, Place};
use crate::fabric::{BridgeFdb, KernelEvent, RowKey, WriteResult};
use crate::hosts::KeptHost;
use crate::mobility::Record;
use crate::types::{ConnId, IfIndex, Mac, PeerId, Span, Time, Vni};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Most octets that a connection's send path holds unsent; what [`ConnEvent::Room`] says is missing of it has
/// not been taken by the socket yet.
pub const SEND_PATH: usize = 64 << 10;

/// An input, to be given to `Node::handle` with the time of its receipt.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// From the kernel monitor or a resync.
    Kernel(KernelEvent),
    /// A frame seen inbound by the tap of an access port or a VXLAN device (ARP, RARP, ND, DHCP).
    Frame {
        /// The port.
        port: IfIndex,
        /// From the destination MAC on, VLAN tag restored if the kernel had stripped one.
        bytes: Bytes,
    },
    /// Something happened on a transport connection.
    Conn {
        /// Which.
        conn: ConnId,
        /// What.
        event: ConnEvent,
    },
    /// How rows handed out by [`crate::fabric::Want::take_dirty`] ended.
    Written(Vec<(RowKey, WriteResult)>),
    /// A request from the API.
    Command {
        /// Returned in the [`super::Reply`].
        id: u64,
        /// Request.
        command: Command,
    },
    /// The underlay's path MTU to a VTEP was measured, or changed (PIT-11).
    PathMtu {
        /// Remote VTEP.
        vtep: IpAddr,
        /// Octets of the largest IP packet that arrives.
        mtu: u32,
    },
    /// What BFD says of a neighbour; after each change of state, the latest alone.
    Bfd {
        /// Which.
        peer: PeerId,
        /// What.
        news: BfdNews,
    },
    /// Rows of local ports, as last told by the kernel ([`super::Output::Recall`]).
    Recalled(Vec<BridgeFdb>),
    /// What became of an [`super::Output::Guard`].
    Guard {
        /// The port.
        port: IfIndex,
        /// What.
        news: GuardNews,
    },
    /// What became of an [`super::Output::PortRules`].
    PortRules {
        /// The device.
        port: IfIndex,
        /// What.
        news: PortNews,
    },
    /// A hold port was made ([`super::Output::HoldPort`]), or could not be: why, and the way out.
    HoldPort {
        /// VNI.
        vni: Vni,
        /// Its index.
        made: Result<IfIndex, String>,
    },
    /// What became of the frames of a MAC that was held, after [`super::HoldWord::Return`].
    Held {
        /// The hold port.
        port: IfIndex,
        /// MAC.
        mac: Mac,
        /// How many.
        held: Held,
    },
    /// Wall clock at this time, in seconds since 1970: for views, and for the age of what is kept.
    Wall {
        /// Seconds since 1970.
        unix: u64,
    },
    /// What an earlier run of this daemon had kept with `Output::Persist`. Before the first `Synced`, that is
    /// before anything is advertised (EVPN-MOB-12), and after `Wall`, so that its age is known.
    Restored(Vec<Record>),
    /// What an earlier run had kept with `Output::KeepHosts`: these hosts are asked whether they are still there.
    RestoredHosts(Vec<KeptHost>),
    /// The state directory has lost what it had: everything worth keeping is handed over again.
    KeepAgain,
    /// What the driver has noticed about itself; it joins the history and is told like any other event.
    Tell(Event),
    /// The kernel's tables are as an earlier run of this boot has left them: our OPENs say so (BGP-GR-02), and selection is
    /// deferred (BGP-GR-07). Before the first `flush`.
    Restarted,
    /// Close all sessions; `Output::Stopped` follows.
    Shutdown {
        /// With Cease/2, so that every peer drops our routes at once. Else only to those that would drop them anyway: the
        /// others keep them for `restart-time`, because the kernel goes on forwarding and we are to come back.
        for_good: bool,
    },
}

/// Life of a TCP connection. Its id is the driver's for accepted ones and the node's for dialled ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnEvent {
    /// A peer connected to us.
    Accepted {
        /// Peer.
        remote: SocketAddr,
        /// Our side.
        local: SocketAddr,
    },
    /// A connection that we dialled is up.
    Connected {
        /// Our side.
        local: SocketAddr,
    },
    /// A connection that we dialled did not come up.
    Failed {
        /// For people.
        why: String,
    },
    /// Octets arrived, at most 64 KiB.
    Bytes(Bytes),
    /// So many octets fit into the send path now (at most [`SEND_PATH`] are unsent at any time). Told after
    /// every write that made room, so that it also says how far the socket has taken what was sent.
    Room(usize),
    /// Closed by the peer or by an error. No further event follows; not sent after `Hangup`.
    Closed {
        /// For people.
        why: String,
    },
}

/// A request from the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One slice of a table.
    Show(Query),
    /// Events after number `after`, oldest first (`vtepd watch`).
    Events {
        /// Last event number seen; 0 for none.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// A step of a prepared move, from the hypervisor's side.
    Move(MoveRequest),
    /// Who has an address, and by which rule.
    Why(WhyRequest),
    /// News of a guest that changes nothing here: becomes an event.
    Tell {
        /// The guest, by what the teller knows of it: a name, a socket.
        guest: String,
        /// What.
        text: String,
        /// An operator should look.
        warn: bool,
    },
    /// What an operator does to a neighbour, or wants to know of it.
    Neighbor(NeighborRequest),
    /// A duplicate is let go (EVPN-XMOB-17).
    ClearDuplicate {
        /// VNI.
        vni: Vni,
        /// Which address.
        address: About,
    },
}

/// Something about one neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborRequest {
    /// Its address, or its description.
    pub name: String,
    /// What is to happen.
    pub action: NeighborAction,
}

/// What an operator does to a neighbour. Each may be asked for twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeighborAction {
    /// Nothing: everything that is known of it.
    Show,
    /// Cease 6/2 with this text (RFC 9003), and nothing is tried until it is started.
    Shutdown {
        /// For the other side; may be empty.
        message: String,
    },
    /// The end of a shutdown, and of any wait before the next attempt.
    Start,
    /// Cease 6/4 with this text, and a new attempt at once.
    Reset {
        /// For the other side; may be empty.
        message: String,
    },
    /// Everything again over the session as it is (RFC 2918).
    Refresh {
        /// Ask for its routes.
        inbound: bool,
        /// Send ours.
        outbound: bool,
    },
}

/// What `vtepd why` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhyRequest {
    /// VNI.
    pub vni: Vni,
    /// Address.
    pub about: About,
}

/// A MAC or an IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// Who owns a MAC.
    Mac(Mac),
    /// Which MAC an IP is bound to.
    Ip(IpAddr),
}

impl core::fmt::Display for About {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Mac(m) => m.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// A step of a prepared move: one MAC, one port (PIT-06).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRequest {
    /// The VNI; when absent it is that of the port, or the only one that knows the MAC.
    pub vni: Option<Vni>,
    /// The guest's MAC.
    pub mac: Mac,
    /// Addresses of the guest that the hypervisor knows, on top of those that BGP or ARP/ND have told.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// What is to happen.
    pub step: MoveStep,
    /// Who asks.
    pub by: Requester,
    /// At *release*: the guest has stopped, and the target's VTEP is told so. At *prepare*: when the source's VTEP
    /// says so, that is as good as *activate* (PIT-26).
    #[serde(default)]
    pub at_stop: bool,
}

/// What is to happen to a MAC. Every step may come twice, and in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum MoveStep {
    /// At the target: check and ready everything, advertise nothing.
    Prepare {
        /// The guest's port.
        port: String,
        /// Given up after this time; `[mobility] prepare-time` when absent.
        timeout: Option<Span>,
    },
    /// At the target: the MAC goes on the port in the kernel, then its routes go out with the next sequence.
    /// Without a preparation `port` must be given. The answer comes when the UPDATE has been handed to every
    /// established peer's socket.
    Activate {
        /// The guest's port.
        port: Option<String>,
        /// How long the row is held for a guest that says nothing; `[mobility] prepare-time` when absent.
        timeout: Option<Span>,
    },
    /// At the target: the move will not happen; leave no trace. An activated one is withdrawn unless the
    /// guest has been heard.
    Abort,
    /// At the source: the guest is leaving, its last frames do not win it back (PIT-04).
    Release {
        /// For how long; `[mobility] release-time` when absent.
        timeout: Option<Span>,
    },
    /// At the source: what arrives for the guest while it stands still is held (PIT-26). *Release* with `at_stop` begins
    /// that, too.
    Leave(Leave),
}

/// Who asks for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requester {
    /// A person or a program, over the API.
    Api,
    /// QEMU's own events.
    Qmp,
    /// libvirt's hook or its lifecycle events.
    Libvirt,
}

impl Requester {
    /// Word for events and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Qmp => "qmp",
            Self::Libvirt => "libvirt",
        }
    }
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Show {
    /// BGP neighbours.
    Neighbors,
    /// VNIs.
    Vnis,
    /// MACs, local and remote.
    Macs,
    /// IP bindings.
    Hosts,
    /// EVPN routes, received and originated.
    Routes,
    /// Moves.
    Moves,
    /// Duplicate MACs and IPs.
    Duplicates,
    /// Wanted kernel rows.
    Kernel,
    /// One row: who we are, since when, counters.
    Status,
}

/// A page of a table: rows after `cursor`, at most `limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Table.
    pub show: Show,
    /// Only these.
    pub filter: MacFilter,
    /// `next` of the page before; `None` for the first.
    pub cursor: Option<String>,
    /// At most so many rows, and never more than 256.
    pub limit: usize,
}

/// Filter of `show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacFilter {
    /// Only this VNI.
    pub vni: Option<Vni>,
    /// Only this MAC.
    pub mac: Option<Mac>,
    /// Only this IP.
    pub ip: Option<IpAddr>,
    /// Of MACs and hosts, only those at this place.
    #[serde(skip)]
    pub place: PlaceFilter,
    /// Of moves, only these.
    #[serde(skip)]
    pub moves: MoveFilter,
}

/// Filter of `show macs` and `show hosts` by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceFilter {
    /// Only behind this port of ours, by name.
    pub port: Option<String>,
    /// Only behind this VTEP.
    pub vtep: Option<IpAddr>,
}

impl PlaceFilter {
    /// Whether a place is one of those asked for. With both, either.
    pub fn matches(&self, place: &Place) -> bool {
        if self.port.is_none() && self.vtep.is_none() {
            return true;
        }
        match place {
            Place::Port(p) => self.port.as_ref() == Some(p),
            Place::Vtep(v) => self.vtep == Some(*v),
            Place::None => false,
        }
    }
}

/// Filter of `show moves`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoveFilter {
    /// Only of this kind.
    pub kind: Option<MoveKind>,
    /// Only with this cause.
    pub cause: Option<&'static str>,
    /// Only in this role.
    pub role: Option<&'static str>,
    /// Only those whose first sign was then or later.
    pub since: Option<Time>,
    /// Only those that took so long from the first sign to the last step, or longer.
    pub slow: Option<Span>,
}

impl MoveFilter {
    /// Whether a record is one of those asked for.
    pub fn matches(&self, m: &MoveView) -> bool {
        self.kind.is_none_or(|k| k == m.kind)
            && self.cause.is_none_or(|c| c == m.cause)
            && self.role.is_none_or(|r| r == m.role)
            && self.since.is_none_or(|t| m.seen >= t)
            && self.slow.is_none_or(|s| m.took() >= s)
    }
}
