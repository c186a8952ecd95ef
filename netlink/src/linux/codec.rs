//! The kernel's links, forwarding rows and neighbours, from and to octets.
//!
//! Rows are hot and links must be read whole, so both are read by hand. What is only *written* when devices are
//! set up is in [`super::links`], with `netlink-packet-route`.

use super::nl::{
    Msg, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, Out, attrs, u16_at, u32_at,
};
use crate::op::Op;
use evpn::fabric::{
    BridgeFdb, BridgeLink, FdbRow, KernelEvent, Link, LinkKind, NeighRow, NeighState, PortFlags, VxlanFdb,
    VxlanLink,
};
use evpn::types::{IfIndex, Mac};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;

pub(super) const AF_BRIDGE: u8 = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const NUD_REACHABLE: u16 = 0x02;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

pub(super) const NTF_SELF: u8 = 0x02;
pub(super) const NTF_MASTER: u8 = 0x04;
const NTF_EXT_LEARNED: u8 = 0x10;
const NTF_STICKY: u8 = 0x40;
const NTF_ROUTER: u8 = 0x80;

pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
pub(super) const NDA_MASTER: u16 = 9;
const NDA_PROTOCOL: u16 = 12;

/// `struct ndmsg`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ndmsg {
    pub(super) family: u8,
    pub(super) ifindex: u32,
    pub(super) state: u16,
    pub(super) flags: u8,
}

impl Ndmsg {
    pub(super) fn octets(self) -> [u8; 12] {
        let [i0, i1, i2, i3] = self.ifindex.to_ne_bytes();
        let [s0, s1] = self.state.to_ne_bytes();
        [self.family, 0, 0, 0, i0, i1, i2, i3, s0, s1, self.flags, 0]
    }
}

pub(super) fn put_ip(out: &mut Out, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(a) => out.attr(kind, &a.octets()),
        IpAddr::V6(a) => out.attr(kind, &a.octets()),
    }
}

/// Appends the request for one op.
pub(super) fn put_op(out: &mut Out, op: &Op, seq: u32, ack: bool) {
    const SET: u16 = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
    const DEL: u16 = NLM_F_REQUEST;
    let (kind, nlflags, dev, state, flags) = match *op {
        Op::SetRemote { vxlan, .. } => {
            (RTM_NEWNEIGH, SET, vxlan, NUD_REACHABLE, NTF_SELF | NTF_MASTER | NTF_EXT_LEARNED)
        }
        Op::SetSelf { vxlan, .. } => (RTM_NEWNEIGH, SET, vxlan, NUD_REACHABLE, NTF_SELF | NTF_EXT_LEARNED),
        Op::SetSticky { vxlan, .. } => {
            (RTM_NEWNEIGH, SET, vxlan, NUD_REACHABLE | NUD_NOARP, NTF_MASTER | NTF_STICKY)
        }
        Op::SetLocal { port, .. } => (RTM_NEWNEIGH, SET, port, NUD_REACHABLE, NTF_MASTER),
        Op::SetOwn { bridge, .. } => (RTM_NEWNEIGH, SET, bridge, NUD_PERMANENT, NTF_SELF | NTF_EXT_LEARNED),
        Op::DelOwn { bridge, .. } => (RTM_DELNEIGH, DEL, bridge, 0, NTF_SELF),
        Op::DelRemote { vxlan, .. } => (RTM_DELNEIGH, DEL, vxlan, NUD_REACHABLE, NTF_SELF | NTF_MASTER),
        Op::DelMaster { port, .. } => (RTM_DELNEIGH, DEL, port, 0, NTF_MASTER),
        Op::DelSelf { vxlan, .. } | Op::DelFlood { vxlan, .. } => (RTM_DELNEIGH, DEL, vxlan, 0, NTF_SELF),
        Op::AddFlood { vxlan, .. } => {
            let nlflags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND;
            (RTM_NEWNEIGH, nlflags, vxlan, NUD_NOARP | NUD_PERMANENT, NTF_SELF | NTF_EXT_LEARNED)
        }
        Op::SetNeigh { dev, router, .. } => {
            let router = if router { NTF_ROUTER } else { 0 };
            (RTM_NEWNEIGH, SET, dev, NUD_NOARP, NTF_EXT_LEARNED | router)
        }
        Op::DelNeigh { dev, .. } => (RTM_DELNEIGH, DEL, dev, 0, 0),
    };
    let family = match op {
        Op::SetNeigh { ip, .. } | Op::DelNeigh { ip, .. } => {
            if ip.is_ipv4() {
                AF_INET
            } else {
                AF_INET6
            }
        }
        _ => AF_BRIDGE,
    };
    out.begin(kind, if ack { nlflags | NLM_F_ACK } else { nlflags }, seq);
    out.bytes(&Ndmsg { family, ifindex: dev.0, state, flags }.octets());
    match *op {
        Op::SetRemote { mac, vtep, .. }
        | Op::SetSelf { mac, vtep, .. }
        | Op::DelRemote { mac, vtep, .. }
        | Op::DelSelf { mac, vtep, .. } => {
            out.attr(NDA_LLADDR, &mac.0);
            put_ip(out, NDA_DST, vtep);
        }
        Op::AddFlood { vtep, .. } | Op::DelFlood { vtep, .. } => {
            out.attr(NDA_LLADDR, &[0; 6]);
            put_ip(out, NDA_DST, vtep);
        }
        Op::SetSticky { mac, .. }
        | Op::SetLocal { mac, .. }
        | Op::SetOwn { mac, .. }
        | Op::DelOwn { mac, .. }
        | Op::DelMaster { mac, .. } => {
            out.attr(NDA_LLADDR, &mac.0);
        }
        Op::SetNeigh { ip, mac, .. } => {
            put_ip(out, NDA_DST, ip);
            out.attr(NDA_LLADDR, &mac.0);
            out.attr(NDA_PROTOCOL, &[NeighRow::PROTOCOL]);
        }
        Op::DelNeigh { ip, .. } => put_ip(out, NDA_DST, ip),
    }
    out.end();
}

fn ip(b: &[u8]) -> Option<IpAddr> {
    match b.len() {
        4 => <[u8; 4]>::try_from(b).ok().map(|o| Ipv4Addr::from(o).into()),
        16 => <[u8; 16]>::try_from(b).ok().map(|o| Ipv6Addr::from(o).into()),
        _ => None,
    }
}

/// A neighbour message as an event; `None` if it is of no concern. `relevant` is asked with the bridge, the
/// VXLAN device or the L3 device before anything else is decoded.
pub(super) fn neigh_event(m: &Msg<'_>, relevant: impl Fn(u32) -> bool) -> Option<KernelEvent> {
    let gone = m.kind == RTM_DELNEIGH;
    let family = *m.body.first()?;
    let index = u32_at(m.body, 4)?;
    let state = u16_at(m.body, 8)?;
    let flags = *m.body.get(10)?;
    let rest = m.body.get(12..)?;
    if family != AF_BRIDGE && !relevant(index) {
        return None;
    }
    let (mut mac, mut dst, mut master, mut vlan, mut protocol) = (None, None, None, 0, 0);
    for (kind, b) in attrs(rest) {
        match kind {
            NDA_DST => dst = ip(b),
            NDA_LLADDR => mac = Mac::from_slice(b),
            NDA_MASTER => master = u32_at(b, 0),
            NDA_VLAN => vlan = u16_at(b, 0)?,
            NDA_PROTOCOL => protocol = *b.first()?,
            _ => {}
        }
    }
    let ext_learned = flags & NTF_EXT_LEARNED != 0;
    let permanent = state & NUD_PERMANENT != 0;
    match family {
        AF_BRIDGE => {
            let row = if flags & NTF_SELF != 0 {
                // A bridge's own addresses carry NTF_SELF too, with the bridge as master.
                if master.is_some() || !relevant(index) {
                    return None;
                }
                FdbRow::Vxlan(VxlanFdb { dev: IfIndex(index), mac: mac?, vtep: dst, ext_learned, permanent })
            } else {
                let bridge = IfIndex(master.unwrap_or(index));
                if !relevant(bridge.0) {
                    return None;
                }
                FdbRow::Bridge(BridgeFdb {
                    bridge,
                    port: IfIndex(index),
                    mac: mac?,
                    vlan,
                    ext_learned,
                    sticky: flags & NTF_STICKY != 0,
                    is_static: state & NUD_NOARP != 0,
                    permanent,
                })
            };
            Some(if gone { KernelEvent::FdbGone(row) } else { KernelEvent::Fdb(row) })
        }
        AF_INET | AF_INET6 => {
            let coarse = if permanent {
                NeighState::Permanent
            } else if state & NUD_NOARP != 0 {
                NeighState::NoArp
            } else if state & (NUD_INCOMPLETE | NUD_FAILED) != 0 || state == 0 {
                NeighState::Invalid
            } else {
                NeighState::Valid
            };
            let row = NeighRow {
                dev: IfIndex(index),
                ip: dst?,
                mac: mac.filter(|_| coarse != NeighState::Invalid),
                state: coarse,
                ext_learned,
                router: flags & NTF_ROUTER != 0,
                protocol,
            };
            Some(if gone { KernelEvent::NeighGone(row) } else { KernelEvent::Neigh(row) })
        }
        _ => None,
    }
}

/// The kernel asks its daemons for a neighbour (`app_solicit`).
pub(super) fn neigh_asked(m: &Msg<'_>, relevant: impl Fn(u32) -> bool) -> Option<KernelEvent> {
    let family = *m.body.first()?;
    let index = u32_at(m.body, 4)?;
    if !matches!(family, AF_INET | AF_INET6) || !relevant(index) {
        return None;
    }
    let of = attrs(m.body.get(12..)?).find(|(kind, _)| *kind == NDA_DST);
    Some(KernelEvent::NeighAsked { dev: IfIndex(index), ip: of.and_then(|(_, b)| ip(b))? })
}

/// What a link message says.
#[derive(Debug)]
pub(super) enum LinkMsg {
    /// A whole device (`AF_UNSPEC`).
    Whole(Link),
    /// New settings of a bridge port (`AF_BRIDGE`), which come without the rest of the device.
    Port(IfIndex, Option<IfIndex>, PortFlags),
    /// The device left its bridge; a whole one follows.
    LeftBridge(IfIndex),
    /// The device is gone.
    Gone(IfIndex),
}

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

pub(super) fn link_msg(m: &Msg<'_>) -> Option<LinkMsg> {
    let family = *m.body.first()?;
    let index = IfIndex(u32_at(m.body, 4)?);
    let flags = u32_at(m.body, 8)?;
    let rest = m.body.get(16..)?;
    if m.kind == RTM_DELLINK {
        return Some(if family == AF_BRIDGE { LinkMsg::LeftBridge(index) } else { LinkMsg::Gone(index) });
    }
    if family == AF_BRIDGE {
        let port = attrs(rest).find(|(k, _)| *k == IFLA_PROTINFO).map(|(_, b)| port_flags(b))?;
        let master = attrs(rest).find(|(k, _)| *k == IFLA_MASTER).and_then(|(_, b)| u32_at(b, 0));
        return Some(LinkMsg::Port(index, master.map(IfIndex), port));
    }
    let mut link = Link {
        index,
        name: String::new(),
        mac: Mac::ZERO,
        mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        master: None,
        kind: LinkKind::Other(String::new()),
        port: None,
    };
    for (kind, b) in attrs(rest) {
        match kind {
            IFLA_IFNAME => link.name = text(b),
            IFLA_ADDRESS => link.mac = Mac::from_slice(b).unwrap_or_default(),
            IFLA_MTU => link.mtu = u32_at(b, 0)?,
            IFLA_MASTER => link.master = u32_at(b, 0).map(IfIndex),
            IFLA_LINKINFO => link_info(b, &mut link),
            _ => {}
        }
    }
    Some(LinkMsg::Whole(link))
}

fn text(b: &[u8]) -> String {
    String::from_utf8_lossy(b.strip_suffix(&[0]).unwrap_or(b)).into_owned()
}

fn link_info(b: &[u8], link: &mut Link) {
    let find = |want: u16| attrs(b).find(|(k, _)| *k == want).map(|(_, b)| b);
    let kind = find(IFLA_INFO_KIND).map(text).unwrap_or_default();
    let data = find(IFLA_INFO_DATA).unwrap_or(&[]);
    link.kind = match kind.as_str() {
        "bridge" => LinkKind::Bridge(bridge_link(data)),
        "vxlan" => LinkKind::Vxlan(vxlan_link(data)),
        _ => LinkKind::Other(kind),
    };
    if find(IFLA_INFO_SLAVE_KIND).map(text).as_deref() == Some("bridge") {
        link.port = find(IFLA_INFO_SLAVE_DATA).map(port_flags);
    }
}

fn on(b: &[u8]) -> bool {
    b.first().is_some_and(|v| *v != 0)
}

fn bridge_link(data: &[u8]) -> BridgeLink {
    const AGEING_TIME: u16 = 4;
    const VLAN_FILTERING: u16 = 7;
    const MCAST_SNOOPING: u16 = 23;
    const FDB_MAX_LEARNED: u16 = 49;
    let mut out = BridgeLink::default();
    for (kind, b) in attrs(data) {
        match kind {
            // In hundredths of a second (clock_t).
            AGEING_TIME => out.ageing_secs = u32_at(b, 0).unwrap_or(0) / 100,
            VLAN_FILTERING => out.vlan_filtering = on(b),
            MCAST_SNOOPING => out.mcast_snooping = on(b),
            FDB_MAX_LEARNED => out.fdb_limit = u32_at(b, 0),
            _ => {}
        }
    }
    out
}

fn vxlan_link(data: &[u8]) -> VxlanLink {
    const ID: u16 = 1;
    const LOCAL: u16 = 4;
    const LEARNING: u16 = 7;
    const PORT: u16 = 15;
    const LOCAL6: u16 = 17;
    const COLLECT_METADATA: u16 = 25;
    let mut out = VxlanLink { vni: 0, local: None, port: 0, learning: false };
    let mut external = false;
    for (kind, b) in attrs(data) {
        match kind {
            ID => out.vni = u32_at(b, 0).unwrap_or(0),
            LOCAL | LOCAL6 => out.local = ip(b).filter(|a| !a.is_unspecified()),
            LEARNING => out.learning = on(b),
            // The one attribute here in network order.
            PORT => out.port = u16_at(b, 0).map_or(0, u16::from_be),
            COLLECT_METADATA => external = on(b),
            _ => {}
        }
    }
    if external {
        out.vni = 0;
    }
    out
}

fn port_flags(data: &[u8]) -> PortFlags {
    const STATE: u16 = 1;
    const MODE: u16 = 4;
    const LEARNING: u16 = 8;
    const UNICAST_FLOOD: u16 = 9;
    const MULTICAST_ROUTER: u16 = 25;
    const PERMANENT: u8 = 2;
    const NEIGH_SUPPRESS: u16 = 32;
    const ISOLATED: u16 = 33;
    const LOCKED: u16 = 39;
    const BR_STATE_FORWARDING: u8 = 3;
    let mut out = PortFlags::default();
    for (kind, b) in attrs(data) {
        match kind {
            STATE => out.forwarding = b.first() == Some(&BR_STATE_FORWARDING),
            MODE => out.hairpin = on(b),
            LEARNING => out.learning = on(b),
            UNICAST_FLOOD => out.flood = on(b),
            MULTICAST_ROUTER => out.multicast_router = b.first() == Some(&PERMANENT),
            NEIGH_SUPPRESS => out.neigh_suppress = on(b),
            ISOLATED => out.isolated = on(b),
            LOCKED => out.locked = on(b),
            _ => {}
        }
    }
    out
}

/// Fills in what netlink does not say: whether a bridge's MAC was set by somebody (`addr_assign_type` 3).
///
/// `/sys` may show another network namespace than the thread is in; it counts only if index and address agree.
/// Otherwise a MAC that no port has is taken for a fixed one (a floating one is that of the lowest port).
pub(super) fn complete_bridge<'a>(link: &mut Link, ports: impl Iterator<Item = &'a Link>) {
    let LinkKind::Bridge(b) = &mut link.kind else { return };
    let read = |what: &str| std::fs::read_to_string(format!("/sys/class/net/{}/{what}", link.name));
    let same = read("ifindex").is_ok_and(|t| t.trim() == link.index.0.to_string())
        && read("address").is_ok_and(|t| t.trim() == link.mac.to_string());
    b.mac_fixed = if same {
        read("addr_assign_type").is_ok_and(|t| t.trim() == "3")
    } else {
        !ports.filter(|p| p.master == Some(link.index)).any(|p| p.mac == link.mac)
    };
}
