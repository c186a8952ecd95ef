//! What is known about the MACs and IPs of one VNI: who owns them, and since when.

mod calendar;
mod kept;
mod table;

pub use calendar::{Calendar, Entry, Slot, jitter};
pub use kept::KeptHost;
pub use table::{Binding, BindingOrigin, Evidence, Hosts, Local, MacEntry, Owner, RemoteMac};
