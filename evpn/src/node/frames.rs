//! Frames from the access ports: signs of life, IP bindings, and our probes.
//!
//! A frame alone never moves a MAC: what it says waits until the forwarding table shows the MAC on that
//! port, because a locked, blocked or filtered port may refuse what the tap saw (PIT-07).

use super::bindings::Said;
use super::parked::Parked;
use super::probe_mac::link_local;
use super::signs::{BACKLOG, Sign};
use super::{Event, Node, Output};
use crate::hosts::{BindingOrigin, Evidence, Owner};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame::{self, Arp, Body, Frame};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long the forwarding table may take to agree with a frame (design section 5).
pub(super) const PATIENCE: Span = Span::millis(20);
/// From a move to the first probe of a binding that came along: a guest that announces itself with its address, as a
/// whole rack does that is evacuated, is not asked for it. The binding is advertised from the start.
pub(super) const FIRST_PROBE: Span = Span::millis(20);
/// A probe that is so late is sent although frames wait to be read: there may be no end of them.
const OVERDUE: Span = Span::secs(1);
/// Between two probes of a binding that came with its MAC.
const PROBE_EVERY: Span = Span::secs(1);
/// Unanswered probes after which such a binding is given up.
const PROBES: u8 = 3;

/// What a frame tells about its sender.
struct Tells {
    /// Announces or answers, rather than merely being under way (PIT-04).
    strong: bool,
    /// Answers a probe of ours.
    answer: bool,
    binding: Option<(IpAddr, BindingOrigin, bool)>,
}

impl Node {
    pub(super) fn handle_frame(&mut self, port: IfIndex, bytes: &[u8], at: Time) {
        if let Some(vni) = self.overlay_of(port) {
            return self.overlay_frame(vni, bytes, at);
        }
        let Some(&vni) = self.taps.get(&port) else { return };
        let f = match frame::parse(bytes) {
            Ok(f) => f,
            Err(why) => {
                *self.journal.refused_frames.entry(why.name()).or_default() += 1;
                self.count_at(vni, port, |c| c.refused += 1);
                return;
            }
        };
        // PIT-10: tagged frames belong to no VLAN-based VNI.
        if f.vlan.is_some() {
            self.journal.count("frames_tagged");
            return;
        }
        if !f.src.is_host() || self.own_mac_seen(vni, f.src, port) {
            return;
        }
        if self.fixed_elsewhere(vni, f.src, port, at) {
            return;
        }
        if let Some(why) = self.odd_sender(&f) {
            *self.journal.refused_frames.entry(why).or_default() += 1;
            self.count_at(vni, port, |c| c.refused += 1);
        }
        if self.speaks_for_gateway(vni, &f, at) {
            return;
        }
        let tells = self.tells(vni, &f);
        self.duplicate_heard(vni, f.src, port, tells.binding.map(|b| b.0));
        self.note_holder(vni, &f);
        let odd = self.odd_question(vni, port, &f, bytes, at);
        if !odd {
            self.count_said(vni, port, &f);
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        let entry = seg.hosts.macs.get(&f.src);
        let agrees = entry.and_then(|e| e.local()).is_some_and(|l| l.port == port);
        // The table did not let it in, nor will it.
        if entry.is_none() && self.guards.shuts(port) {
            return;
        }
        if self.probe_mac(vni) != Some(f.dst) {
            self.note_overheard(vni, &f, at);
        }
        if !odd {
            self.carry(vni, port, &f, bytes, at);
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        let entry = seg.hosts.macs.get(&f.src);
        // The table showed it here a moment ago and was put right; now it turns out that the VM is here.
        let late = entry
            .and_then(|e| e.lost.on(port))
            .is_some_and(|l| l.late.is_some_and(|t| at.since(t) < BACKLOG));
        let remote = entry.is_some_and(|e| matches!(e.owner, Owner::Remote(_)));
        let known = entry.is_some();
        let rarp = matches!(f.body, Body::Rarp(_));
        if !agrees {
            let sign = Sign { at, strong: tells.strong, answer: tells.answer, rarp };
            self.signs.put((port, f.src), known, sign);
        }
        if agrees {
            self.heard(vni, f.src, at);
            self.activation_heard(vni, f.src, at);
            if rarp {
                self.ask_for_former(vni, f.src, port, at);
            }
        }
        self.has_announced(vni, f.src, rarp, tells.binding.map(|b| b.0), at);
        if tells.strong && remote {
            self.announced_elsewhere(vni, f.src, port);
        }
        if tells.strong && late && remote {
            self.local_seen(vni, f.src, port, at);
        }
        if let Some((ip, ..)) = tells.binding.filter(|_| tells.answer && agrees) {
            self.owner_answered(vni, ip, f.src, at);
        }
        if let Some((ip, origin, router)) = tells.binding
            && !(tells.answer && self.ip_answer(vni, port, f.src, ip, at))
        {
            self.binding_seen(vni, port, f.src, ip, origin, router, at);
            if tells.answer {
                self.binding_by(vni, f.src, ip, Evidence::Answer, at);
            }
        }
        self.check_heard(vni, port, &f, bytes, at);
        self.routers_solicited(vni, port, &f, at);
        self.sign_of_life(vni, port, &f, at);
    }

    fn tells(&self, vni: Vni, f: &Frame) -> Tells {
        match &f.body {
            Body::Rarp(_) => Tells { strong: true, answer: false, binding: None },
            Body::Arp(a) => self.arp_tells(vni, f, a),
            Body::NeighborAdvertisement(na) => {
                let ours = na.tlla.is_none_or(|m| m == f.src) && is_host_v6(na.target);
                let to_us = self.is_to_us(vni, f.dst);
                // PROXY-LEARN-06, PROXY-DUP-06: without O it is an anycast address. An answer to a unicast question may leave out the
                // link-layer address, and has no O then (RFC 4861 §7.2.4).
                let brief = to_us && na.tlla.is_none();
                let learn = ours && (brief || na.r#override && (to_us || na.tlla.is_some()));
                Tells {
                    strong: ours && (!na.solicited || to_us),
                    answer: ours && to_us,
                    binding: learn.then_some((IpAddr::V6(na.target), BindingOrigin::Nd, na.router)),
                }
            }
            // PROXY-LEARN-02: never from NS or RS; HOST-DAD-01.
            Body::NeighborSolicitation(_)
            | Body::RouterSolicitation(_)
            | Body::RouterAdvertisement(_)
            | Body::Dhcp(_)
            | Body::Other(_) => Tells { strong: false, answer: false, binding: None },
        }
    }

    /// PROXY-LEARN-01, HOST-GARP-01, HOST-ARP-01, -02; HOST-RARP-01 and HOST-ND-01 above.
    fn arp_tells(&self, vni: Vni, f: &Frame, a: &Arp) -> Tells {
        let honest = a.sender_mac == f.src;
        let answer = a.reply && self.is_to_us(vni, f.dst);
        let own = IpAddr::V4(a.sender_ip) == self.config.vtep;
        Tells {
            strong: honest && (a.is_gratuitous() || answer),
            answer: honest && answer,
            binding: (honest && is_host_v4(a.sender_ip) && !own).then_some((
                IpAddr::V4(a.sender_ip),
                BindingOrigin::Arp,
                false,
            )),
        }
    }

    fn binding_seen(
        &mut self,
        vni: Vni,
        port: IfIndex,
        mac: Mac,
        ip: IpAddr,
        origin: BindingOrigin,
        router: bool,
        at: Time,
    ) {
        // A leaving guest's last words are expected to lead nowhere.
        if self.has_left(vni, mac, port) {
            return;
        }
        if !self.is_allowed(vni, port, ip) {
            self.journal.count("addresses_not_allowed");
            self.count_at(vni, port, |c| c.refused += 1);
            if self.alarm(vni, mac, at) {
                let port = self.dev_name(port);
                self.journal.event(Event::AddressNotAllowed { vni, mac, ip, port }, at);
            }
            return;
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        if seg.hosts.macs.get(&mac).and_then(|e| e.local()).is_some_and(|l| l.port == port) {
            self.learn_binding(vni, ip, Said { mac, origin, router }, at);
            return;
        }
        let deadline = at + PATIENCE;
        if self.parked.put((vni, port, mac), Parked { ip, origin, router, known: false, deadline }) {
            self.journal.count("parked_overflow");
        }
    }

    /// A MAC leaves a port, but what it said a moment ago may be newer than that news: a port that lost its carrier
    /// and got it back tells so when the guest has spoken again. Its bindings wait for the table, as others do.
    pub(super) fn repark(&mut self, vni: Vni, port: IfIndex, mac: Mac, at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let fresh = seg.hosts.ips_of(mac).into_iter().filter_map(|ip| Some((ip, *seg.hosts.binding(ip)?)));
        let fresh: Vec<_> =
            fresh.filter(|(_, b)| heard(b.origin) && at.since(b.confirmed) < PATIENCE).collect();
        for (ip, b) in fresh {
            if self.parked.has_room() {
                let (origin, router, deadline) = (b.origin, b.router, at + PATIENCE);
                self.parked.put((vni, port, mac), Parked { ip, origin, router, known: true, deadline });
            }
        }
    }

    /// Whether a host behind this port may have this address (PIT-07).
    pub(super) fn is_allowed(&self, vni: Vni, port: IfIndex, ip: IpAddr) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        let allowed = &seg.config.mobility.allowed;
        if allowed.is_empty() {
            return true;
        }
        let list = self.links.get(&port).and_then(|l| allowed.get(&l.name));
        list.is_none_or(|list| list.iter().any(|p| p.contains(ip)))
    }

    /// The table agrees: bindings that waited for it are learned.
    pub(super) fn unpark(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        self.signs.remove((port, mac));
        self.check_let_in(vni, port, mac, at);
        for p in self.parked.take((vni, port, mac)) {
            self.learn_binding(vni, p.ip, Said { mac, origin: p.origin, router: p.router }, at);
        }
    }

    /// The forwarding table did not agree in time. While the kernel has more to say than was read, nobody knows
    /// that yet: a rack that moves at once is announced faster than its rows are told. Nor while a long turn has kept
    /// us from reading.
    pub(super) fn due_parked(&mut self, at: Time) {
        let read = self.caught_up(at);
        while !self.behind
            && let Some(((vni, port, mac), p)) = self.parked.due(read)
        {
            if p.known {
                continue;
            }
            // The table agrees; we have not come to that yet.
            if self.strangers.waits(vni, mac, port) {
                self.parked.put((vni, port, mac), Parked { deadline: at + PATIENCE, ..p });
                continue;
            }
            self.journal.count("bindings_refused");
            self.count_at(vni, port, |c| c.refused += 1);
            if self.alarm(vni, mac, at) {
                let port = self.dev_name(port);
                self.journal.event(Event::BindingRefused { vni, mac, ip: Some(p.ip), port }, at);
            }
        }
    }

    /// Asks one MAC on one port whether it has an address. Unicast, so nobody else is disturbed. The ARP sender is 0, or the
    /// gateway if the guest may be checking its address; without one it is asked later (PIT-16). Returns whether it was asked
    /// now.
    pub(super) fn probe_on(&mut self, vni: Vni, mac: Mac, ip: IpAddr, port: IfIndex) -> bool {
        let Some(from) = self.probe_mac(vni) else { return false };
        let at = self.clock;
        let frame = match ip {
            IpAddr::V4(v4) => match self.arp_sender(vni, mac, port, v4, at) {
                Ok(None) => frame::arp_probe(from, mac, Ipv4Addr::UNSPECIFIED, v4),
                Ok(Some((gateway, sender))) => frame::arp_probe(gateway, mac, sender, v4),
                Err(until) => {
                    self.journal.count("probes_put_off");
                    self.question(vni, mac, ip, port, until, false, at);
                    return false;
                }
            },
            IpAddr::V6(ip) => frame::neighbor_solicitation(from, link_local(from), Some(mac), ip),
        };
        self.journal.count("probes_sent");
        self.count_at(vni, port, |c| c.probed += 1);
        self.journal.push(Output::Emit { port, frame });
        true
    }

    /// Devices that have more frames than were read. Answers may be among them.
    pub fn set_unread(&mut self, devices: BTreeSet<IfIndex>) {
        self.unread = devices;
    }

    /// Whether what a MAC has answered may wait to be read. What waits elsewhere puts off nobody else: a host that sends
    /// without end would keep all others that are gone alive.
    pub(super) fn may_have_answered(&self, vni: Vni, mac: Mac) -> bool {
        let Some(seg) = self.segments.get(&vni).filter(|_| !self.unread.is_empty()) else { return false };
        let port = seg.hosts.macs.get(&mac).and_then(|e| e.local()).map(|l| l.port);
        port.or(seg.vxlan).is_some_and(|dev| self.unread.contains(&dev))
    }

    /// What is due until then is asked now: while answers may wait to be read, only what is late.
    pub(super) fn ask_until(&self, at: Time) -> Time {
        if self.unread.is_empty() { at } else { Time(at.0.saturating_sub(OVERDUE.0)) }
    }

    /// Bindings that came with their MAC are confirmed, or given up.
    pub(super) fn due_probes(&mut self, at: Time) {
        while let Some(t) = self.probes.first() {
            if t > self.ask_until(at) {
                break;
            }
            let Some((vni, ip)) = self.probes.take() else { break };
            let Some(seg) = self.segments.get(&vni) else { continue };
            let Some(b) = seg.hosts.binding(ip).copied() else { continue };
            let Some(l) = seg.hosts.macs.get(&b.mac).and_then(|e| e.local().copied()) else { continue };
            // It checks the address (PIT-16): what was not asked is not unanswered.
            if let IpAddr::V4(v4) = ip
                && !heard(b.origin)
                && let Err(until) = self.arp_sender(vni, b.mac, l.port, v4, at)
            {
                self.journal.count("probes_put_off");
                self.probes.put(until, vni, ip);
                continue;
            }
            let fixed = seg.is_static_host(b.mac, ip);
            match b.origin {
                BindingOrigin::Arp | BindingOrigin::Nd => continue,
                // It stays as long as its MAC does.
                BindingOrigin::Moved if b.probes >= PROBES && fixed => continue,
                BindingOrigin::Moved if b.probes >= PROBES && !self.awaits_guest(vni, b.mac) => {
                    self.journal.count("bindings_unanswered");
                    self.drop_local_ip(vni, ip, at);
                    continue;
                }
                BindingOrigin::Bgp if b.probes >= PROBES => continue,
                BindingOrigin::Moved | BindingOrigin::Bgp => {}
            }
            if let Some(seg) = self.segments.get_mut(&vni) {
                seg.hosts.touch(ip, |b| b.probes = b.probes.saturating_add(1));
            }
            self.probes.put(at + PROBE_EVERY, vni, ip);
            self.probe_on(vni, b.mac, ip, l.port);
        }
    }
}

/// Learned from the host itself.
fn heard(origin: BindingOrigin) -> bool {
    matches!(origin, BindingOrigin::Arp | BindingOrigin::Nd)
}

/// Whether a host can have this address.
pub(super) fn is_host_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_host_v4(ip),
        IpAddr::V6(ip) => is_host_v6(ip),
    }
}

fn is_host_v4(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback())
}

pub(super) fn is_host_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback())
}
