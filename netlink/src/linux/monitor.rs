//! What the kernel tells, as it happens.

use super::codec::{
    LinkMsg, RTM_DELLINK, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWLINK, RTM_NEWNEIGH, complete_bridge, link_msg,
    neigh_asked, neigh_event,
};
use super::nl::{Many, messages, receive_buffer, u32_at};
use evpn::fabric::{DeviceWant, KernelEvent, Link, LinkKind};
use evpn::types::IfIndex;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Receive buffer: holds well over 20,000 notifications; the default holds 256.
const BUFFER: libc::c_int = 16 << 20;
const RTMGRP_LINK: u32 = 1;
const RTMGRP_NEIGH: u32 = 4;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;

/// Which devices' rows are wanted. Follows the links by itself, so that a row which comes right after its
/// device is not lost.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    names: BTreeSet<String>,
    indexes: BTreeSet<u32>,
    everything: bool,
    /// Bridges that are gateways.
    gateways: BTreeSet<String>,
    gateway_indexes: BTreeSet<u32>,
}

impl Interest {
    /// Rows of every bridge, VXLAN device and L3 device.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }
    /// Rows of these bridges and VXLAN devices.
    pub fn devices(devices: &[DeviceWant]) -> Self {
        let names = devices.iter().flat_map(|d| [d.bridge.clone(), d.vxlan.clone()]).collect();
        let gateways = devices.iter().filter(|d| d.gateway.is_some()).map(|d| d.bridge.clone()).collect();
        Self { names, gateways, ..Self::default() }
    }
    /// A device as it is now.
    pub fn note(&mut self, link: &Link) {
        if self.names.contains(&link.name) {
            self.indexes.insert(link.index.0);
        } else {
            self.indexes.remove(&link.index.0);
        }
        if self.gateways.contains(&link.name) {
            self.gateway_indexes.insert(link.index.0);
        } else {
            self.gateway_indexes.remove(&link.index.0);
        }
    }
    /// Whether rows of this device are wanted.
    pub fn wants(&self, index: u32) -> bool {
        self.everything || self.indexes.contains(&index)
    }
}

/// Multicast notifications about links, forwarding rows and neighbours. Never blocks.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    many: Many,
    interest: Interest,
    links: BTreeMap<IfIndex, Link>,
    overruns: u64,
    messages: u64,
    /// A gateway, or an address of one, has changed.
    gateways_changed: bool,
    /// Notifications were lost, and the queue has not been empty since: the kernel loses more without a word.
    congested: bool,
}

impl Monitor {
    /// In the network namespace of the calling thread.
    pub fn open(interest: Interest) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        receive_buffer(socket.as_raw_fd(), BUFFER);
        // Addresses matter where there is a gateway; elsewhere a host may change them as often as it likes.
        let addresses =
            if interest.gateways.is_empty() { 0 } else { RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR };
        socket.bind(&SocketAddr::new(0, RTMGRP_LINK | RTMGRP_NEIGH | addresses))?;
        socket.set_non_blocking(true)?;
        let many = Many::new(64, 16 << 10);
        Ok(Self {
            socket,
            many,
            interest,
            links: BTreeMap::new(),
            overruns: 0,
            messages: 0,
            gateways_changed: false,
            congested: false,
        })
    }

    /// For tests of an overrun: a receive buffer of about this many octets.
    pub fn set_buffer(&self, octets: i32) {
        receive_buffer(self.socket.as_raw_fd(), octets);
    }

    /// Changes which rows are wanted; links known so far count.
    pub fn set_interest(&mut self, mut interest: Interest) {
        for l in self.links.values() {
            interest.note(l);
        }
        self.interest = interest;
    }

    /// A link from a dump, so that later partial messages about it can be completed.
    pub fn note_link(&mut self, link: &Link) {
        self.interest.note(link);
        self.links.insert(link.index, link.clone());
    }

    /// Receives at most `budget` notifications (a few more if one system call brought them) and appends what
    /// concerns us. Returns how many were received; 0: nothing waits. A lost notification shows as
    /// [`KernelEvent::Overrun`], once the queue is empty.
    pub fn recv(&mut self, budget: usize, out: &mut Vec<KernelEvent>) -> io::Result<usize> {
        let mut taken = 0;
        while taken < budget {
            match self.many.recv(self.socket.as_raw_fd(), budget - taken, true) {
                Ok(n) => taken += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Only from now on does the kernel tell of further losses: a dump that began before this could
                    // miss what was dropped in silence.
                    if core::mem::take(&mut self.congested) {
                        self.gateways_changed |= !self.interest.gateways.is_empty();
                        out.push(KernelEvent::Overrun);
                        taken += 1;
                    }
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.overruns += 1;
                    self.congested = true;
                    taken += 1;
                    continue;
                }
                Err(e) => return Err(e),
            }
            for (datagram, cut) in self.many.datagrams() {
                if cut {
                    self.overruns += 1;
                    out.push(KernelEvent::Overrun);
                    continue;
                }
                for m in messages(datagram) {
                    self.messages += 1;
                    match m.kind {
                        RTM_NEWNEIGH | RTM_DELNEIGH => {
                            out.extend(neigh_event(&m, |i| self.interest.wants(i)));
                        }
                        RTM_NEWLINK | RTM_DELLINK => {
                            let Some(l) = link_msg(&m) else { continue };
                            let event = link_event(l, &mut self.links, &mut self.interest);
                            if let Some(KernelEvent::Link(l)) = &event {
                                self.gateways_changed |= self.interest.gateways.contains(&l.name);
                            }
                            out.extend(event);
                        }
                        RTM_GETNEIGH => out.extend(neigh_asked(&m, |i| self.interest.wants(i))),
                        RTM_NEWADDR | RTM_DELADDR => {
                            let index = u32_at(m.body, 4);
                            self.gateways_changed |=
                                index.is_some_and(|i| self.interest.gateway_indexes.contains(&i));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Whether a bridge that is a gateway, or one of its addresses, has changed since this was last asked.
    pub fn gateways_changed(&mut self) -> bool {
        core::mem::take(&mut self.gateways_changed)
    }
    /// How often notifications were lost.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }
    /// Messages received.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn link_event(
    msg: LinkMsg,
    links: &mut BTreeMap<IfIndex, Link>,
    interest: &mut Interest,
) -> Option<KernelEvent> {
    let link = match msg {
        LinkMsg::Whole(mut l) => {
            if matches!(l.kind, LinkKind::Bridge(_)) && interest.names.contains(&l.name) {
                complete_bridge(&mut l, links.values());
            }
            l
        }
        LinkMsg::Port(i, master, port) => {
            let mut l = links.get(&i)?.clone();
            l.master = master.or(l.master);
            l.port = Some(port);
            l
        }
        LinkMsg::LeftBridge(i) => {
            let mut l = links.get(&i)?.clone();
            l.master = None;
            l.port = None;
            l
        }
        LinkMsg::Gone(i) => {
            links.remove(&i);
            interest.indexes.remove(&i.0);
            return Some(KernelEvent::LinkGone(i));
        }
    };
    if links.get(&link.index) == Some(&link) {
        return None;
    }
    interest.note(&link);
    links.insert(link.index, link.clone());
    Some(KernelEvent::Link(link))
}
