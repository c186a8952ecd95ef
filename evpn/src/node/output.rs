//! Everything a node asks its driver to do. Wanted kernel rows are read from `Node::want` instead.

use super::bfd::BfdWant;
use super::config::Hops;
use super::event::Event;
use super::guard::GuardChange;
use super::hold::HoldWord;
use super::port_rules::PortRules;
use super::view;
use crate::hosts::KeptHost;
use crate::mobility::Record;
use crate::types::{ConnId, IfIndex, Mac, PeerId, Seq, Time, Vni};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// An output of `Node::poll_output`.
#[derive(Clone, Debug)]
pub enum Output {
    /// Listen for BGP connections here (once, at start).
    Listen(SocketAddr),
    /// Open a TCP connection; `Connected` or `Failed` follows.
    Dial {
        /// Id chosen by the node (highest bit set).
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
        /// Source address.
        from: Option<IpAddr>,
        /// TTL to set, and to ask for.
        hops: Hops,
    },
    /// Send these octets; the node keeps within `Room`, except for KEEPALIVE and NOTIFICATION.
    Send {
        /// Connection.
        conn: ConnId,
        /// Whole messages.
        bytes: Bytes,
    },
    /// Close after everything handed over was written (short time limit, BGP-NOTIF-03). No event follows.
    Hangup {
        /// Connection.
        conn: ConnId,
    },
    /// There is to be a BFD session with a neighbour, or (`None`) it is switched off, and the neighbour told so
    /// (BFD-09). Its state comes as `Input::Bfd`.
    Bfd {
        /// Which.
        peer: PeerId,
        /// Like this.
        want: Option<BfdWant>,
    },
    /// Open a frame tap on this access port, or on a VXLAN device for what comes in from the overlay.
    Tap(IfIndex),
    /// Close the tap.
    Untap(IfIndex),
    /// Send a frame to one VTEP through the underlay, VXLAN header of this VNI in front, past flood lists and
    /// suppression (PIT-14, PIT-17, PIT-19).
    Encap {
        /// VNI.
        vni: Vni,
        /// Remote VTEP.
        vtep: IpAddr,
        /// From the destination MAC on.
        frame: Bytes,
    },
    /// Send a frame out of an access port.
    Emit {
        /// Port.
        port: IfIndex,
        /// From the destination MAC on.
        frame: Bytes,
    },
    /// Keep these in the state directory: written before any later `Send` reaches a socket, so that `kill -9`
    /// loses nothing; flushed to disk within a second, off the core thread (EVPN-MOB-12).
    Persist(Vec<Record>),
    /// Keep these local bindings in the state directory, or forget them. They are hints and may be lost (PROXY-MAINT-02).
    KeepHosts(Vec<KeptHost>),
    /// Frames with these source addresses are dropped where they come in, on these ports; all others are not (any
    /// more). Whenever the set changes (EVPN-MOB-16).
    Blocked(BTreeSet<(IfIndex, Mac)>),
    /// A port that makes MACs up is to let only known ones in, or all again.
    Guard {
        /// The port.
        port: IfIndex,
        /// What changes.
        change: GuardChange,
    },
    /// What is dropped where it comes in at this device, from now on; nothing if the rules are empty. The answer is
    /// `Input::PortRules` (PIT-10).
    PortRules {
        /// An access port, or the VXLAN device.
        port: IfIndex,
        /// Its name; empty if there are no rules.
        device: String,
        /// The rules.
        rules: PortRules,
    },
    /// Make the hold port of a VNI: a tap in this bridge, of this name, that nothing is flooded to. The answer is
    /// `Input::HoldPort` (PIT-26).
    HoldPort {
        /// VNI.
        vni: Vni,
        /// The bridge.
        bridge: IfIndex,
        /// Name of the device.
        name: String,
    },
    /// The hold port of a VNI is gone: what it held, too.
    HoldPortGone {
        /// VNI.
        vni: Vni,
    },
    /// What is to be done with frames for a MAC that come out of a hold port. Before the row that brings them there.
    Hold {
        /// The hold port.
        port: IfIndex,
        /// MAC.
        mac: Mac,
        /// What.
        word: HoldWord,
    },
    /// Read all kernel tables again.
    Resync,
    /// Tell the rows of this bridge's local ports that are there, as `Input::Recalled`.
    Recall(IfIndex),
    /// The VTEPs in use, whenever the set changes: VXLAN is accepted from these only (PIT-12), and the path
    /// MTU to each is to be measured and told as `Input::PathMtu` (PIT-11).
    Vteps(BTreeSet<IpAddr>),
    /// Answer to a command.
    Reply {
        /// The command's id.
        id: u64,
        /// Answer.
        reply: Reply,
    },
    /// Something worth telling a person, with its time and running number.
    Event {
        /// When.
        at: Time,
        /// Running number from 1.
        n: u64,
        /// What.
        event: Event,
    },
    /// Answer to `Input::Shutdown`: all that had to be sent has been handed over.
    Stopped,
}

/// Answer to a command.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Rows of a table.
    Page(view::Page),
    /// Events, and whether some between `after` and the first were lost.
    Events {
        /// Number of events that were dropped from the history before they could be read.
        lagged: u64,
        /// Events with number and time.
        events: Vec<(u64, Time, Event)>,
    },
    /// A step of a prepared move is done.
    Move(MoveReply),
    /// Who has an address, and why. The driver adds what the kernel holds.
    Why(Box<view::WhyView>),
    /// A step of a prepared move is not possible; nothing was changed.
    MoveRefused {
        /// What kind of no.
        refusal: Refusal,
        /// For people: what is wrong, and the way out.
        text: String,
    },
    /// [`super::Command::Tell`] is in the history.
    Told,
    /// A duplicate was let go; what happens now, for people.
    Cleared(String),
    /// A neighbour, or what was done to it.
    Neighbor(NeighborReply),
    /// What was asked of a neighbour is not possible; nothing was changed.
    NeighborRefused {
        /// There is no such neighbour.
        unknown: bool,
        /// For people.
        text: String,
    },
    /// The request is not understood or asks for something that is not there.
    Error(String),
}

/// Answer to [`super::Command::Neighbor`].
#[derive(Clone, Debug)]
pub enum NeighborReply {
    /// Everything that is known of it.
    Detail(Box<view::NeighborDetail>),
    /// It was done.
    Done {
        /// The neighbour.
        address: IpAddr,
        /// State of its session now, by its RFC 4271 name.
        state: String,
        /// What was done, for people.
        did: String,
    },
}

/// Why a step of a prepared move is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The request itself is wrong: an unknown VNI or port, a MAC that no host can have.
    Invalid,
    /// The request is right, but not now: the guest runs here, the MAC is sticky elsewhere, the VNI is not ready.
    Conflict,
    /// Too many moves at a time; later.
    Busy,
    /// The kernel did not take the row in time.
    Late,
}

/// How a step of a prepared move ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReply {
    /// The VNI it was; `None` when no VNI knows the MAC and there was nothing to do.
    pub vni: Option<Vni>,
    /// The MAC.
    pub mac: Mac,
    /// What is now: `prepared`, `active`, `aborted`, `released`, or `nothing` when there was nothing to do.
    pub state: String,
    /// Sequence that we advertise, when we do.
    pub seq: Option<Seq>,
    /// Addresses that went out with the MAC.
    pub ips: Vec<IpAddr>,
    /// Established peers whose socket has the UPDATE.
    pub sent_to: Vec<IpAddr>,
    /// Established peers whose socket took it not in time.
    pub lagging: Vec<IpAddr>,
    /// What the asker should know: a peer that is down, a guest that never answered.
    pub notes: Vec<String>,
}
