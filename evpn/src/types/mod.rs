//! Small value types that everything else speaks in.

mod ids;
mod mac;
mod time;

pub use ids::{Asn, ConnId, Esi, EthTag, IfIndex, Label, PeerId, Rd, RemoteAs, RouterId, Seq, Vni};
pub use mac::{Mac, ParseMacError};
pub use time::{Span, Time};
