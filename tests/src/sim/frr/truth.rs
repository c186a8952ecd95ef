//! What plans and the truth have to do with FRR-like VTEPs: who goes there, and what nobody can expect of them.

use super::{FIRST, is_frr};
use crate::sim::guest::Place;
use crate::sim::plan::{By, Fabric, Frr, Plan, What};
use crate::sim::rng::Rng;
use crate::sim::world::World;
use evpn::types::{Mac, Span};
use std::net::IpAddr;

/// Their numbers.
pub(in crate::sim) fn hosts(f: &Fabric) -> std::ops::Range<usize> {
    FIRST..FIRST + f.frr.iter().flatten().count()
}

/// One seed in four has one or two of them, and some of its guests' ways lead there. Drawn apart, so that the plans of
/// the other seeds are what they were.
pub(in crate::sim) fn join(plan: &mut Plan) {
    let mut rng = Rng::new(plan.fabric.seed ^ 0x0f44_0000_0000);
    if !rng.percent(25) {
        return;
    }
    let n = rng.range(1, 2);
    for peer in plan.fabric.frr.iter_mut().take(n as usize) {
        *peer =
            Some(Frr { remembers: rng.percent(30), accepts: rng.percent(75), ages: rng.pick(&[0, 0, 20]) });
    }
    for s in &mut plan.steps {
        let host = FIRST + rng.below(n) as usize;
        let (goes, breaks, cold) = (rng.percent(40), rng.percent(20), rng.percent(25));
        if let What::Hot { guest, node, by, .. } = s.what
            && cold
        {
            // Only after a withdrawal FRR forgets.
            s.what = What::Cold { guest, node, by, gap: 400_000, unplug: true };
        }
        match &mut s.what {
            What::Start { node, .. }
            | What::Hot { node, .. }
            | What::Cold { node, .. }
            | What::Remac { node, .. }
                if goes =>
            {
                *node = host;
            }
            What::Reset { b, .. } | What::Cut { b, .. } if breaks => *b = host,
            What::Kill { node, .. } if breaks => *node = host,
            _ => {}
        }
    }
}

/// Hosts that a step names.
fn named(what: &What) -> [Option<usize>; 2] {
    match *what {
        What::Start { node, .. }
        | What::Hot { node, .. }
        | What::Cold { node, .. }
        | What::Remac { node, .. }
        | What::Kill { node, .. } => [Some(node), None],
        What::Reset { a, b } | What::Cut { a, b, .. } => [Some(a), Some(b)],
        What::Prepared { node, .. }
        | What::CalledOff { node, .. }
        | What::Split { node, .. }
        | What::Overrun { node, .. }
        | What::Fail { node, .. }
        | What::Broken { node, .. }
        | What::Slow { node, .. }
        | What::Foreign { node }
        | What::Wipe { node, .. }
        | What::Flush { node }
        // Nothing of that is known of FRR.
        | What::Short { node, .. } => [is_frr(node).then_some(usize::MAX), None],
        What::Wan { .. }
        | What::NewIp { .. }
        | What::TakeIp { .. }
        | What::Port { .. }
        | What::Say { .. }
        | What::Ask { .. }
        | What::Talk { .. }
        | What::Stop { .. } => [None, None],
    }
}

impl World {
    /// A step names an FRR-like VTEP that this fabric does not have, or that cannot do this.
    pub(in crate::sim) fn is_nowhere(&self, what: &What) -> bool {
        named(what).into_iter().flatten().any(|h| is_frr(h) && self.machine(h).is_none())
    }

    /// What a step does to FRR.
    pub(in crate::sim) fn frr_killed(&mut self, host: usize, time: Span) {
        self.upsets += 1;
        self.strays(|n| n == host);
        for t in self.ips.values_mut() {
            let owner = t.mac.and_then(|m| self.macs.get(&m));
            // It may not remember them (D.3-12).
            t.must &= owner.is_none_or(|m| m.place.is_some_and(|p| p.node != host));
        }
        self.frr_kill(host, time);
    }

    /// A guest begins to run somewhere: what is known of its addresses, from FRR or at FRR?
    pub(in crate::sim) fn frr_arrival(&mut self, g: usize, at: Place) {
        let settle = self.settle();
        let vm = &self.vms[g];
        let from = self.macs.get(&vm.mac).and_then(|m| m.speaker).map(|(n, _)| n);
        for ip in vm.ips() {
            let Some(t) = self.ips.get_mut(&ip) else { continue };
            // D.1: addresses do not come along to FRR. From FRR they come only if it had told them already.
            let young = t.said.is_none_or(|s| self.now.since(s) < settle);
            if is_frr(at.node) || from.is_some_and(is_frr) && young {
                t.must = false;
            }
        }
    }

    /// A guest leaves FRR with frames still under way: each may be a claim there (C.8 has no late-frame rule), so nobody
    /// can know until the guest speaks again.
    pub(in crate::sim) fn frr_departure(&mut self, mac: Mac, from: Place, late: u64) {
        if let Some(m) = self.macs.get_mut(&mac).filter(|_| late > 0 && is_frr(from.node)) {
            m.muddled = true;
            m.contested += late as u32;
        }
    }

    /// A guest at FRR has told an address. Whether FRR was to hear it was decided before.
    pub(in crate::sim) fn frr_address(&mut self, at: Place, ip: IpAddr, heard: bool) {
        let now = self.now;
        if let Some(t) = self.ips.get_mut(&ip).filter(|_| is_frr(at.node)) {
            // D.1: what was not heard is as good as not said.
            t.muddled |= !heard;
            if heard && !t.must {
                (t.must, t.said) = (true, Some(now));
            }
        }
    }

    /// Somebody has to know an address of a guest behind FRR that nobody could be told (D.1).
    pub(in crate::sim) fn is_untold(&self, at: Place, ip: IpAddr) -> bool {
        is_frr(at.node) && self.ips.get(&ip).is_none_or(|t| !t.must)
    }

    /// See [`World::is_deaf_to`]; the owner's VTEP.
    pub(in crate::sim) fn owner_is_deaf(&self, ip: IpAddr, mac: Mac) -> bool {
        let place = self.macs.get(&mac).and_then(|m| m.place);
        place.is_some_and(|p| self.is_deaf_to(p.node, ip, mac))
    }

    /// Whether FRR would hear it; a node does.
    pub(in crate::sim) fn would_hear(&self, at: Place, ip: IpAddr, by: By) -> bool {
        !is_frr(at.node) || self.frr_alive(at.node) && self.hears_address(at.node, ip, by)
    }
}
