//! Bidirectional forwarding detection for BGP sessions: RFC 5880 in asynchronous mode, one hop (RFC 5881) and several
//! (RFC 5883). Sans-IO: octets and time in, octets and changes out.
//!
//! | file | what it holds |
//! |---|---|
//! | `packet` | the control packet |
//! | `session` | the state machine of one session, its timers, poll sequences |
//! | `table` | all sessions: which one a packet is for, whose timer is next |
//!
//! Not built: the echo function (we say that we want no echoes), demand mode of our own (the other side's is
//! respected), authentication (RFC 5880 §6.7).

mod packet;
mod session;
mod table;

pub use packet::{Diag, LENGTH, Packet, Reject, State};
pub use session::{Change, Config, Session, Stats};
pub use table::{Arrival, Hops, Output, Path, Table};

/// UDP port of sessions over one hop (RFC 5881 §4, BFD-05).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of sessions over several hops (RFC 5883 §5, BFD-08).
pub const MULTIHOP_PORT: u16 = 4784;
