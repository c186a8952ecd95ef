//! One neighbour with everything that is known of its session: `show neighbors NAME`.

use super::NeighborView;
use crate::session::Counters;
use crate::types::{Asn, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A neighbour in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighborDetail {
    /// What `show neighbors` says of it.
    #[serde(flatten)]
    pub summary: NeighborView,
    /// Why nothing is tried: shut down by an operator, or too many prefixes.
    pub held_down: Option<String>,
    /// How long the session has been established; `None` while it is not.
    pub established_for: Option<Span>,
    /// Time since it last left Established.
    pub lost_ago: Option<Span>,
    /// What we offer.
    pub local: OpenView,
    /// What it offered in the OPEN of the session at hand.
    pub remote: Option<OpenView>,
    /// What is in use on the session.
    pub agreed: Vec<String>,
    /// Messages received by type.
    pub received: Counters,
    /// Messages sent by type.
    pub sent: Counters,
    /// Octets received.
    pub octets_received: u64,
    /// Routes of it that are the best of their key.
    pub routes_best: usize,
    /// Routes of it that are kept and not used, by reason.
    pub routes_filtered: BTreeMap<String, usize>,
    /// Routes that were too large to be sent to it.
    pub routes_oversize: u64,
    /// Most routes that it may have.
    pub max_prefixes: Option<u32>,
    /// Faults of its UPDATEs by attribute and reaction.
    pub faults_by: Vec<FaultCount>,
    /// Failed attempts since the last start by an operator (ConnectRetryCounter).
    pub attempts_failed: u64,
    /// Connections of it that were refused.
    pub connections_refused: u64,
    /// How the last session or attempt ended.
    pub last_down: Option<Happened>,
    /// The last NOTIFICATION to it.
    pub notification_sent: Option<Happened>,
    /// The last one from it, with its text (RFC 9003).
    pub notification_received: Option<Happened>,
    /// The last events of the state machine, oldest first.
    pub events: Vec<EventView>,
    /// The last messages, oldest first, KEEPALIVEs of an established session left out.
    pub messages: Vec<MessageView>,
    /// Messages from it that were at fault, oldest first.
    pub faulty: Vec<FaultyView>,
}

/// An OPEN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenView {
    /// AS.
    pub asn: Asn,
    /// BGP identifier.
    pub router_id: IpAddr,
    /// Proposed hold time, seconds.
    pub hold_time: u16,
    /// Capabilities in words.
    pub capabilities: Vec<String>,
}

/// Faults of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    /// Attribute type code; `None`: not in an attribute.
    pub attribute: Option<u8>,
    /// What was done about it.
    pub treatment: String,
    /// How often.
    pub count: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// How long ago.
    pub ago: Span,
    /// What.
    pub text: String,
}

/// An event of the state machine (RFC 4271 §8.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// How long ago.
    pub ago: Span,
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    /// How long ago.
    pub ago: Span,
    /// We sent it.
    pub sent: bool,
    /// Its length.
    pub octets: usize,
    /// What it says.
    pub text: String,
}

/// A message that was at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultyView {
    /// How long ago.
    pub ago: Span,
    /// Its length.
    pub octets: usize,
    /// What is wrong.
    pub what: String,
    /// Its octets, at most 4096 of them.
    pub hex: String,
}
