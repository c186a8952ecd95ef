//! Faults in what a peer sent, each with the reaction that its RFC asks for (RFC 4271 §6, RFC 7606).

use bytes::Bytes;
use serde::Serialize;

/// NOTIFICATION (RFC 4271 §4.5): code, subcode, data.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data.
    #[serde(skip)]
    pub data: Bytes,
}

/// What to do about a fault in an UPDATE, weakest first (BGP-ERR-21: the strongest wins).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// The NLRI is skipped by its length, all else is processed (BGP-ERR-27).
    SkipNlri,
    /// RFC 7606: the attribute is dropped, the route kept.
    DiscardAttribute,
    /// RFC 7606: all routes of the UPDATE count as withdrawn.
    TreatAsWithdraw,
    /// NOTIFICATION and close.
    Reset,
}

/// One fault, for the log and the counters (BGP-ERR-28).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Fault {
    /// Byte offset of the start of the offending field, from the start of the message (marker included).
    pub offset: usize,
    /// Attribute type code, when it lies in one.
    pub attribute: Option<u8>,
    /// What is wrong, lower case, without a dot.
    pub what: &'static str,
    /// Reaction.
    pub treatment: Treatment,
}

/// A fault that ends the session.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct MessageError {
    /// Byte offset of the offending field from the start of the message.
    pub offset: usize,
    /// What is wrong.
    pub what: &'static str,
    /// What to send; `None`: close silently (BGP-NOTIF-02).
    pub notification: Option<Notification>,
}
