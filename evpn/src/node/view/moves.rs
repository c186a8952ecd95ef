//! The record of a move.

use super::Place;
use crate::types::{Mac, Seq, Span, Time, Vni};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;

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
