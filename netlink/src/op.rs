//! One kernel request, and what came of it.

use core::fmt;
use evpn::types::{IfIndex, Mac};
use std::net::IpAddr;

/// One request to the kernel. Every op names its device, so that a delete that comes late cannot hit a row
/// which a guest has taken meanwhile (PIT-05). All of them are idempotent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// Bridge row on the VXLAN port and `self` row to the VTEP in one request, both `NTF_EXT_LEARNED`.
    /// Replaces a row to another VTEP and takes over a dynamic local row; never sent over a static one,
    /// which would pin the MAC to the VXLAN port.
    SetRemote {
        /// VXLAN device, a port of the bridge.
        vxlan: IfIndex,
        /// The host's MAC.
        mac: Mac,
        /// Destination.
        vtep: IpAddr,
    },
    /// Only the `self` row, `NTF_EXT_LEARNED`.
    SetSelf {
        /// VXLAN device.
        vxlan: IfIndex,
        /// MAC.
        mac: Mac,
        /// Destination.
        vtep: IpAddr,
    },
    /// Only the bridge row on the VXLAN port, static and `NTF_STICKY` without `NTF_EXT_LEARNED`, which would
    /// silently lose the stickiness (PIT-04). The `self` row carries the ownership mark.
    SetSticky {
        /// VXLAN device, a port of the bridge.
        vxlan: IfIndex,
        /// MAC.
        mac: Mac,
    },
    /// Bridge row on an access port, dynamic: it ages like a learned one.
    SetLocal {
        /// The port.
        port: IfIndex,
        /// MAC.
        mac: Mac,
    },
    /// Removes bridge row and `self` row in one request; if a guest took the bridge row, only the `self` row.
    DelRemote {
        /// VXLAN device.
        vxlan: IfIndex,
        /// MAC.
        mac: Mac,
        /// Destination of the `self` row.
        vtep: IpAddr,
    },
    /// Removes the bridge row if it points to this port.
    DelMaster {
        /// The port; the VXLAN device for remote MACs.
        port: IfIndex,
        /// MAC.
        mac: Mac,
    },
    /// Removes the `self` row of the VXLAN device.
    DelSelf {
        /// VXLAN device.
        vxlan: IfIndex,
        /// MAC.
        mac: Mac,
        /// Its destination.
        vtep: IpAddr,
    },
    /// An address of the bridge itself: permanent on the bridge device, `NTF_EXT_LEARNED` (the ownership mark).
    SetOwn {
        /// The bridge.
        bridge: IfIndex,
        /// MAC.
        mac: Mac,
    },
    /// Removes an address of the bridge itself.
    DelOwn {
        /// The bridge.
        bridge: IfIndex,
        /// MAC.
        mac: Mac,
    },
    /// One more destination of the zero-MAC row (`NLM_F_APPEND`).
    AddFlood {
        /// VXLAN device.
        vxlan: IfIndex,
        /// Destination.
        vtep: IpAddr,
    },
    /// One destination less.
    DelFlood {
        /// VXLAN device.
        vxlan: IfIndex,
        /// Destination.
        vtep: IpAddr,
    },
    /// Neighbour row, `NUD_NOARP`, `NTF_EXT_LEARNED`, our `NDA_PROTOCOL`.
    SetNeigh {
        /// Device (the bridge).
        dev: IfIndex,
        /// Address.
        ip: IpAddr,
        /// What to answer.
        mac: Mac,
        /// `NTF_ROUTER`.
        router: bool,
    },
    /// Removes a neighbour row.
    DelNeigh {
        /// Device.
        dev: IfIndex,
        /// Address.
        ip: IpAddr,
    },
}

impl Op {
    /// Whether this errno means that the kernel is already where the op wanted it: a row to delete is not there.
    pub fn tolerates(&self, errno: i32) -> bool {
        match self {
            Self::DelRemote { .. }
            | Self::DelMaster { .. }
            | Self::DelSelf { .. }
            | Self::DelOwn { .. }
            | Self::DelFlood { .. }
            | Self::DelNeigh { .. } => matches!(errno, libc::ENOENT | libc::ESRCH),
            Self::AddFlood { .. } => errno == libc::EEXIST,
            Self::SetRemote { .. }
            | Self::SetSelf { .. }
            | Self::SetSticky { .. }
            | Self::SetLocal { .. }
            | Self::SetOwn { .. }
            | Self::SetNeigh { .. } => false,
        }
    }
}

/// The kernel's refusal.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct OpError {
    /// Positive errno.
    pub errno: i32,
    /// Text of the extended acknowledgement; empty if the kernel gave none.
    pub text: String,
}

impl OpError {
    /// Without text from the kernel.
    pub fn from_errno(errno: i32) -> Self {
        Self { errno, text: String::new() }
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = std::io::Error::from_raw_os_error(self.errno);
        if self.text.is_empty() { write!(f, "{os}") } else { write!(f, "{}: {os}", self.text) }
    }
}

/// How one op ended.
pub type OpResult = Result<(), OpError>;

/// Something that takes ops: [`crate::fake::FakeKernel`] or [`crate::linux::Writer`].
pub trait Kernel {
    /// Applies all ops in order, a failed one does not stop the rest, and appends one result per op.
    fn apply(&mut self, ops: &[Op], results: &mut Vec<OpResult>);
}
