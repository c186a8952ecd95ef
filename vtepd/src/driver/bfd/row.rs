//! What `show bfd` shows.

use evpn::bfd::{Config, Diag, Reject, Session, State};
use evpn::types::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BfdTable {
    /// In the order of the configuration.
    pub rows: Vec<BfdRow>,
    /// Packets that were discarded, by reason (BFD-04, BFD-05, BFD-08).
    pub dropped: BTreeMap<String, u64>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BfdRow {
    /// The neighbour.
    pub neighbor: IpAddr,
    /// Our address towards it, if one is chosen.
    pub local: Option<IpAddr>,
    /// Over several hops.
    pub multihop: bool,
    /// Our state.
    pub state: State,
    /// Why it left Up the last time.
    pub diag: Option<String>,
    /// The neighbour's state, as it last said.
    pub remote_state: State,
    /// Why that one left Up.
    pub remote_diag: Option<String>,
    /// Time in this state.
    pub since: Span,
    /// Our number of the session.
    pub discriminator: u32,
    /// The neighbour's; 0: not known.
    pub remote_discriminator: u32,
    /// Between two packets of ours, before jitter; `None`: the neighbour wants none.
    pub interval: Option<Span>,
    /// After so long without a packet the neighbour is taken to be gone.
    pub detection_time: Span,
    /// Packets in a row of ours that the neighbour may miss.
    pub multiplier: u8,
    /// Packets sent.
    pub sent: u64,
    /// Packets taken in.
    pub received: u64,
    /// Times that it came up.
    pub ups: u64,
    /// Times that the path or the neighbour has failed.
    pub failures: u64,
    /// The longest pause between two packets of the neighbour since it came up.
    pub longest_gap: Span,
    /// Why packets cannot be sent, if they cannot.
    pub error: Option<String>,
}

fn told(d: Diag) -> Option<String> {
    (d != Diag::NONE).then(|| d.as_str().into())
}

impl BfdRow {
    /// Of a session at this time since its last change.
    pub(super) fn new(
        neighbor: IpAddr,
        local: Option<IpAddr>,
        multihop: bool,
        s: &Session,
        since: Span,
    ) -> Self {
        let (remote_state, remote_diag) = s.remote();
        let (discriminator, remote_discriminator) = s.discriminators();
        let Config { multiplier, .. } = *s.config();
        let stats = s.stats();
        Self {
            neighbor,
            local,
            multihop,
            state: s.state(),
            diag: told(s.diag()),
            remote_state,
            remote_diag: told(remote_diag),
            since,
            discriminator,
            remote_discriminator,
            interval: s.pace(),
            detection_time: s.detection_time(),
            multiplier,
            sent: stats.sent,
            received: stats.received,
            ups: stats.ups,
            failures: stats.failures,
            longest_gap: stats.longest_gap,
            error: None,
        }
    }
}

/// Counted rejects by name.
pub(super) fn dropped(counts: impl Iterator<Item = (Reject, u64)>) -> BTreeMap<String, u64> {
    counts.map(|(why, n)| (why.name().to_owned(), n)).collect()
}
