//! Scenario files: mobility cases as text. `evpn/tests/scenarios/README.md` explains the language.

#![allow(dead_code, unreachable_pub, reason = "the test binary uses its part")]

mod check;
mod parse;
mod run;
mod speaker;
mod words;

#[allow(unused_imports, reason = "the test binary uses its part")]
pub use speaker::{Held, Speaker, passive};
#[allow(unused_imports, reason = "the test binary uses its part")]
pub use {parse::parse, run::run};

use evpn::types::{Mac, Seq, Span, Time};
use std::net::IpAddr;

/// What went wrong, and in which line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// From 1.
    pub line: usize,
    /// For people.
    pub what: String,
}

/// A scenario, ready to run.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// Names of the vtepd nodes, in the order of their VTEP addresses.
    pub vteps: Vec<String>,
    /// Names and VTEP addresses of the scripted peers.
    pub speakers: Vec<(String, IpAddr)>,
    pub settings: Vec<Setting>,
    /// One-way delay between any two.
    pub delay: Option<Span>,
    pub steps: Vec<(usize, Step)>,
}

/// A setting of some nodes' configuration.
#[derive(Clone, Debug)]
pub enum Setting {
    Sticky { vtep: usize, mac: Mac, port: String },
    GatewayMac { vtep: usize, mac: Mac },
    MoveIpsWithMac(bool),
    GuardTime(Span),
}

/// One line.
#[derive(Clone, Debug)]
pub enum Step {
    /// Virtual time goes on until then, counted from the beginning.
    At(Time),
    /// Events, probes and messages are counted from here on.
    Mark,
    Host {
        vtep: usize,
        act: HostAct,
    },
    Peer {
        speaker: usize,
        act: PeerAct,
    },
    Cut(usize, usize),
    Expect {
        vtep: usize,
        fact: Fact,
    },
}

/// Something happens behind, or inside, a vtepd node.
#[derive(Clone, Debug)]
pub enum HostAct {
    /// The bridge learns a MAC by a frame that says nothing.
    Sees {
        mac: Mac,
        port: Port,
    },
    /// A frame that says something; the bridge learns it unless a filter drops it behind the tap (PIT-07).
    Hears {
        frame: Frame,
        port: Port,
        filtered: bool,
    },
    /// The bridge forgets a MAC.
    Ages(Mac),
    /// A hypervisor says that a guest will come; `at_stop`: a mark at its source's route is as good as its word (PIT-26).
    Prepares {
        mac: Mac,
        port: Port,
        at_stop: bool,
    },
    /// A hypervisor says that a guest leaves; `at_stop`: it has stopped.
    Releases {
        mac: Mac,
        at_stop: bool,
    },
    /// A hypervisor says that the move does not happen.
    Aborts(Mac),
    PortDown(Port),
    PortUp(Port),
    PortGone(Port),
    /// The kernel answers nothing for a while.
    KernelStops,
    KernelResumes,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Port {
    P1,
    P2,
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: FrameKind,
    pub mac: Mac,
    pub ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameKind {
    Rarp,
    /// Gratuitous ARP, or an unsolicited NA for an IPv6 address.
    Announce,
    /// An ARP request for some other address.
    Arp,
    /// The answer to a probe of this node.
    Answer,
}

/// Something a scripted peer does.
#[derive(Clone, Debug)]
pub enum PeerAct {
    Announces(Route),
    Withdraws {
        mac: Mac,
        ip: Option<IpAddr>,
    },
    /// Its sessions end.
    Leaves,
    /// They are up again, with no routes.
    Returns,
}

/// A Type-2 route.
#[derive(Clone, Debug)]
pub struct Route {
    pub mac: Mac,
    pub ip: Option<IpAddr>,
    /// `None`: no MAC Mobility community.
    pub seq: Option<Seq>,
    pub sticky: bool,
    pub gateway: bool,
    /// LLGR_STALE.
    pub stale: bool,
    /// The mark of a guest that has stopped.
    pub going: bool,
}

/// What is expected of a node at this moment.
#[derive(Clone, Debug)]
pub enum Fact {
    /// Its peers have this route from it, exactly so.
    Advertises { mac: Mac, ip: Option<IpAddr>, seq: Option<Seq>, sticky: bool },
    /// Its peers have no such route from it.
    Withholds { mac: Mac, ip: Option<IpAddr> },
    /// Messages with routes sent to each peer since the mark.
    Sends { updates: usize },
    /// Its own table.
    Has { mac: Mac, place: Option<Place>, seq: Option<Seq>, sticky: bool },
    /// Its kernel's bridge sends frames for this MAC there.
    Forwards { mac: Mac, place: Option<Place> },
    /// Its kernel answers ARP and ND for this address with that MAC.
    Answers { ip: IpAddr, mac: Option<Mac> },
    /// Events of this name about this MAC since the mark; `None`: at least one.
    Tells { event: String, mac: Mac, times: Option<usize> },
    /// Probes sent out of its ports to this MAC since the mark.
    Probes { mac: Mac, ip: Option<IpAddr>, port: Option<Port>, times: Option<usize> },
    /// The last record of a move of this MAC.
    Records { mac: Mac, kind: String, from: Place, to: Place },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    Port(Port),
    Vtep(IpAddr),
}
