//! What a kernel holds, read by netlink code of the tests' own: forwarding rows and neighbour rows.

use crate::ns::Netns;
use crate::packet::{
    AF_BRIDGE, NDA_DST, NDA_LLADDR, NDA_MASTER, NLM_F_REQUEST, NTF_EXT_LEARNED, RTM_NEWNEIGH, address,
    attributes, message, u16_at, u32_at,
};
use evpn::types::Mac;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

const RTM_GETNEIGH: u16 = 30;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP: u16 = 0x300;
const NUD_PERMANENT: u16 = 0x80;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A forwarding row that was learned or written, no device's own and no flood row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fdb {
    /// Port, or VXLAN device.
    pub device: u32,
    /// A bridge row; otherwise one of the VXLAN device itself.
    pub bridge: bool,
    /// MAC.
    pub mac: Mac,
    /// Destination of a VXLAN device's row.
    pub vtep: Option<IpAddr>,
}

/// A neighbour row that somebody wrote (`extern_learn`): the kernel answers with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Neigh {
    /// Bridge.
    pub device: u32,
    /// Address.
    pub ip: IpAddr,
    /// MAC.
    pub mac: Mac,
}

/// Reads a namespace's tables.
#[derive(Debug)]
pub struct Tables {
    socket: OwnedFd,
}

impl Tables {
    /// Of this namespace.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn open(ns: &Netns) -> Self {
        let socket = ns.enter(|| {
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .expect("anybody may open netlink sockets")
        });
        Self { socket }
    }

    /// All forwarding rows.
    ///
    /// # Panics
    /// When the kernel does not answer.
    pub fn fdb(&self) -> Vec<Fdb> {
        let mut out = Vec::new();
        self.dump(AF_BRIDGE, |body| {
            let (Some(device), Some(state)) = (u32_at(body, 4), u16_at(body, 8)) else { return };
            let mut row = Fdb { device, bridge: false, mac: Mac::ZERO, vtep: None };
            for (kind, value) in attributes(body.get(12..).unwrap_or(&[])) {
                match kind {
                    NDA_LLADDR => row.mac = Mac::from_slice(value).unwrap_or(Mac::ZERO),
                    NDA_MASTER => row.bridge = true,
                    NDA_DST => row.vtep = address(value),
                    _ => {}
                }
            }
            let learned = row.bridge && state & NUD_PERMANENT == 0;
            if row.mac != Mac::ZERO && (learned || row.vtep.is_some()) {
                out.push(row);
            }
        });
        out
    }

    /// All neighbour rows with which the kernel answers for others.
    ///
    /// # Panics
    /// When the kernel does not answer.
    pub fn neighbors(&self) -> Vec<Neigh> {
        let mut out = Vec::new();
        for family in [AF_INET, AF_INET6] {
            self.dump(family, |body| {
                let (Some(device), Some(flags)) = (u32_at(body, 4), body.get(10)) else { return };
                let (mut ip, mut mac) = (None, None);
                for (kind, value) in attributes(body.get(12..).unwrap_or(&[])) {
                    match kind {
                        NDA_DST => ip = address(value),
                        NDA_LLADDR => mac = Mac::from_slice(value),
                        _ => {}
                    }
                }
                if flags & NTF_EXT_LEARNED != 0
                    && let (Some(ip), Some(mac)) = (ip, mac)
                {
                    out.push(Neigh { device, ip, mac });
                }
            });
        }
        out
    }

    fn dump(&self, family: u8, mut take: impl FnMut(&[u8])) {
        let mut m = Vec::new();
        m.extend(28u32.to_ne_bytes());
        m.extend(RTM_GETNEIGH.to_ne_bytes());
        m.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        m.extend([0; 8]);
        m.extend([family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        send(&self.socket, &m, SendFlags::empty()).expect("the kernel takes requests");
        let mut buf = vec![0; 1 << 16];
        loop {
            let (n, _) = recv(&self.socket, &mut *buf, RecvFlags::empty()).expect("the kernel answers");
            let mut rest = &buf[..n];
            while let Some((kind, body, next)) = message(rest) {
                match kind {
                    NLMSG_DONE => return,
                    NLMSG_ERROR => panic!("the kernel refuses a dump of family {family}: {body:?}"),
                    RTM_NEWNEIGH => take(body),
                    _ => {}
                }
                rest = next;
            }
        }
    }
}
