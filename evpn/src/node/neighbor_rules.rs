//! What an operator has laid down for a neighbour beyond who it is.

use crate::types::Span;
use serde::Serialize;

/// Rules of one neighbour; the default is what a neighbour gets that says nothing of them.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct NeighborRules {
    /// Down from the start, with the text for the other side; empty: none (BGP-SHUT-01).
    pub shutdown: Option<String>,
    /// Seconds of the send hold timer; `None`: 8 minutes or twice the hold time, `Some(0)`: off (BGP-SHT-02).
    pub send_hold_time: Option<u32>,
    /// Most routes in its Adj-RIB-In; `None`: no limit.
    pub max_prefixes: Option<PrefixLimit>,
}

/// Most routes of a neighbour, and what happens beyond (RFC 4271 §6.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct PrefixLimit {
    /// Routes that may be there; one more is too many.
    pub limit: u32,
    /// Percent of it at which there is a warning.
    pub warning: u8,
    /// What happens beyond the limit.
    pub action: PrefixAction,
    /// After a teardown the neighbour is tried again after this time; `None`: only by an operator.
    pub restart: Option<Span>,
}

/// What happens when a neighbour has more routes than it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrefixAction {
    /// Cease 6/1 with family and limit (BGP-NOTIF-05); the neighbour stays down.
    Teardown,
    /// A warning, and nothing else.
    Warn,
}
