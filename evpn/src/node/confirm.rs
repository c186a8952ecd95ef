//! Silent hosts: a binding that nobody has confirmed for a while is asked for, and given up if nobody answers
//! (PROXY-MAINT-01, -02).
//!
//! An answer refreshes the row of the bridge as well, so that a host that only answers never ages out. What confirms is
//! ARP or ND of the host that names the address; any other frame proves the MAC, and says nothing about its addresses.

use super::Node;
use super::questions::{AGAIN, TIMES, heard_since};
use crate::fabric::LinkKind;
use crate::hosts::{BindingOrigin, Calendar, jitter};
use crate::types::{Mac, Span, Time, Vni};
use std::net::IpAddr;

/// Looked at per flush.
const PER_FLUSH: usize = 256;
/// Until a host is looked at again that cannot be asked now.
const LATER: Span = Span::secs(5);

impl Node {
    /// A host has confirmed an address: it is asked again in due time.
    pub(super) fn confirmed(&mut self, vni: Vni, mac: Mac, ip: IpAddr, origin: BindingOrigin, at: Time) {
        if origin == BindingOrigin::Arp {
            self.has_settled(vni, mac, ip, at);
        }
        if !self.confirmations.has((vni, ip)) {
            self.confirmations.around((vni, ip), self.to_be_confirmed(vni, ip, at), at);
        }
    }

    fn to_be_confirmed(&self, vni: Vni, ip: IpAddr, confirmed: Time) -> Time {
        let time = self.confirm_time(vni);
        Time((confirmed + time).0.saturating_sub(jitter((vni, ip), time).0))
    }

    /// As configured, or earlier where the bridge forgets earlier: the row of a host that answers never ages.
    pub(super) fn confirm_time(&self, vni: Vni) -> Span {
        let bridge = self.segments.get(&vni).and_then(|s| s.bridge).and_then(|b| self.links.get(&b));
        let ageing = bridge.map_or(0, |l| match &l.kind {
            LinkKind::Bridge(set) => u64::from(set.ageing_secs),
            LinkKind::Vxlan(_) | LinkKind::Other(_) => 0,
        });
        let time = self.config.arp.confirm_time;
        if ageing == 0 { time } else { time.min(Span::millis(ageing * 800)) }
    }

    /// Bindings whose time has come.
    pub(super) fn due_confirmations(&mut self, at: Time) {
        let until = self.ask_until(at);
        for _ in 0..PER_FLUSH {
            let Some(((vni, ip), e)) = self.confirmations.due(until) else { break };
            let Some(seg) = self.segments.get(&vni) else { continue };
            let binding = seg.hosts.binding(ip).copied();
            let here = binding
                .filter(|b| matches!(b.origin, BindingOrigin::Arp | BindingOrigin::Nd))
                .and_then(|b| Some((b, seg.hosts.macs.get(&b.mac)?.local()?.port)));
            // Those that came with their MAC are asked for in their own way, and are back here when they answer.
            let Some((b, port)) = here else {
                self.confirmations.forget((vni, ip));
                continue;
            };
            let latest = self.to_be_confirmed(vni, ip, b.confirmed);
            // It has been asked, and has answered.
            let answered = e.asked > 0 && heard_since(&b, e.since);
            if answered {
                self.confirmations.around((vni, ip), latest, at);
                continue;
            }
            // Heard since the entry was made: later, if there is a place. There is none when many were heard at once; then
            // those are asked early whose turn comes early.
            let asked = e.asked;
            if asked == 0 && b.confirmed > e.since && self.confirmations.before((vni, ip), latest, at) {
                continue;
            }
            if asked >= TIMES && !self.unread.contains(&port) {
                self.confirmations.forget((vni, ip));
                self.unanswered(vni, ip, true, at);
                continue;
            }
            let mut put_off = None;
            // Or what was answered may wait to be read.
            if asked >= TIMES
                || self.links.get(&port).is_none_or(|l| !(l.up && l.carrier))
                || self.is_released(vni, b.mac, Some(port))
                || self.awaits_guest(vni, b.mac)
            {
                put_off = Some(at + LATER);
            } else if let IpAddr::V4(v4) = ip {
                put_off = self.arp_sender(vni, b.mac, port, v4, at).err();
            }
            if let Some(until) = put_off {
                self.confirmations.after((vni, ip), until, asked, e.since);
                continue;
            }
            let since = if asked == 0 { at } else { e.since };
            self.confirmations.after((vni, ip), at + AGAIN, asked + 1, since);
            self.confirmations.asked(until);
            self.journal.count("confirmations_asked");
            self.probe_on(vni, b.mac, ip, port);
        }
    }
}

/// With the rate of the configuration.
pub(super) fn calendar(rate: u32) -> Calendar {
    Calendar::new(rate)
}
