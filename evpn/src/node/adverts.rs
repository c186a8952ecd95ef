//! Router advertisements of a gateway (RFC 4861 §6.2), where they are asked for: `ra = true`.
//!
//! They go out of the access ports, from the gateway's link-local address and MAC, the same at every VTEP: a host that moves
//! hears of no change. Nothing of it goes to the VXLAN device. A host that solicits is answered alone. A daemon that stops
//! says nothing: its bridge goes on routing, and the next one goes on advertising.

use super::{Node, Output};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame::{self, Body, Frame, Prefix};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// `MaxRtrAdvInterval` and `MinRtrAdvInterval` (RFC 4861 §6.2.1), and the first three at most so far apart (§6.2.4).
const LONGEST: Span = Span::secs(600);
const SHORTEST: Span = Span::secs(200);
const FIRST: Span = Span::secs(16);
const FIRSTS: u32 = 3;
/// `AdvDefaultLifetime`: three times the longest interval.
const LIFETIME: u16 = 1800;
/// Answers to solicitations wait so long at most (`MAX_RA_DELAY_TIME`).
const DELAY: Span = Span::millis(500);
/// Answers that wait; further solicitations are left to the next advertisement to all.
const ANSWERS: usize = 256;
/// Until a bridge is looked at again that is not ready.
const AGAIN: Span = Span::secs(1);

/// A host that has solicited, or all behind the port if it has no address yet.
type Asker = (Vni, IfIndex, Option<(Mac, Ipv6Addr)>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Adverts {
    /// When all are told next, and how often they were.
    due: BTreeMap<Vni, (Time, u32)>,
    answers: BTreeSet<(Time, Asker)>,
}

impl Adverts {
    pub(super) fn timeout(&self) -> Option<Time> {
        let all = self.due.values().map(|(t, _)| *t);
        all.chain(self.answers.first().map(|(t, _)| *t)).min()
    }
}

/// A number from what is there, where RFC 4861 asks for a random one: others shall not do the same at the same time.
fn scattered(mac: Mac, n: u32) -> u64 {
    let fold = |h: u64, o: &u8| (h ^ u64::from(*o)).wrapping_mul(0x0100_0000_01b3);
    mac.0.iter().chain(&n.to_be_bytes()).fold(0xcbf2_9ce4_8422_2325, fold) >> 16
}

impl Node {
    /// Gateways that advertise themselves begin to.
    pub(super) fn begin_adverts(&mut self, at: Time) {
        let advertise = |v: &&super::VniConfig| v.hosts.gateway.as_ref().is_some_and(|g| g.ra);
        let vnis = self.config.vnis.iter().filter(advertise).map(|v| (v.vni, (at, 0)));
        self.adverts.due.extend(vnis);
    }

    /// A host asks for routers.
    pub(super) fn routers_solicited(&mut self, vni: Vni, port: IfIndex, f: &Frame, at: Time) {
        let Body::RouterSolicitation(rs) = &f.body else { return };
        if !self.adverts.due.contains_key(&vni) {
            return;
        }
        let host = (!rs.src.is_unspecified()).then_some((f.src, rs.src));
        let asker = (vni, port, host);
        let waits = self.adverts.answers.iter().any(|(_, a)| *a == asker);
        if waits || self.adverts.answers.len() >= ANSWERS {
            self.journal.count("solicitations_refused");
            return;
        }
        let wait = Span(scattered(f.src, port.0) % DELAY.0);
        self.adverts.answers.insert((at + wait, asker));
    }

    /// Advertisements whose time has come.
    pub(super) fn due_adverts(&mut self, at: Time) {
        while let Some((t, asker)) = self.adverts.answers.first().copied()
            && t <= at
        {
            self.adverts.answers.pop_first();
            let (vni, port, host) = asker;
            if self.taps.get(&port) == Some(&vni)
                && let Some(frame) = self.advertisement(vni, host)
            {
                self.journal.push(Output::Emit { port, frame });
                self.journal.count("routers_advertised");
            }
        }
        let due: Vec<Vni> = self.adverts.due.iter().filter(|(_, (t, _))| *t <= at).map(|(v, _)| *v).collect();
        for vni in due {
            self.advertise_to_all(vni, at);
        }
    }

    fn advertise_to_all(&mut self, vni: Vni, at: Time) {
        let told = self.adverts.due.get(&vni).map_or(0, |(_, n)| *n);
        let (Some(frame), Some(seg)) = (self.advertisement(vni, None), self.segments.get(&vni)) else {
            self.adverts.due.insert(vni, (at + AGAIN, told));
            return;
        };
        let own = seg.config.hosts.probe_mac;
        let ports: Vec<IfIndex> = self.listening_ports(vni, &seg.hosts, own).collect();
        self.journal.add("routers_advertised", ports.len() as u64);
        for port in ports {
            self.journal.push(Output::Emit { port, frame: frame.clone() });
        }
        let told = told.saturating_add(1);
        let wait = SHORTEST + Span(scattered(own, told) % (LONGEST.0 - SHORTEST.0));
        let wait = if told < FIRSTS { wait.min(FIRST) } else { wait };
        self.adverts.due.insert(vni, (at + wait, told));
    }

    /// What the gateway says of itself, while the bridge has its MAC.
    fn advertisement(&self, vni: Vni, to: Option<(Mac, Ipv6Addr)>) -> Option<Bytes> {
        let seg = self.segments.get(&vni)?;
        let g =
            seg.config.hosts.gateway.as_ref().filter(|g| g.ra && seg.ready && seg.own.contains(&g.mac))?;
        let prefixes: Vec<Prefix> = g
            .addresses
            .iter()
            .filter_map(|a| match a.ip {
                IpAddr::V6(ip) if !ip.is_unicast_link_local() => Some(Prefix { ip, bits: a.bits }),
                IpAddr::V6(_) | IpAddr::V4(_) => None,
            })
            .collect();
        let mtu = self.links.get(&seg.bridge?).map(|l| l.mtu);
        Some(frame::router_advertisement(g.mac, g.link_local()?, to, LIFETIME, mtu, &prefixes))
    }
}
