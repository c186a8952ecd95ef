//! What outlives the daemon of local bindings: enough to ask each host whether it is still there. Nothing is believed of it.

use crate::mobility::PortMark;
use crate::types::{Mac, Vni};
use std::net::IpAddr;

/// A local binding as it is kept in the state directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeptHost {
    /// VNI.
    pub vni: Vni,
    /// Address.
    pub ip: IpAddr,
    /// MAC.
    pub mac: Mac,
    /// The port that the MAC was behind.
    pub port: PortMark,
    /// It is bound here; otherwise it is no more.
    pub here: bool,
}

impl KeptHost {
    /// Most that are kept; further ones are not found again if they are silent.
    pub const LIMIT: usize = 65_536;
}
