//! What must be so, kept apart from every table of a node: who runs where, who has said what, and what the
//! kernels may hold. No code of `evpn::mobility` is used.

use super::frr::is_frr;
use super::guest::Place;
use super::plan::By;
use super::sniff::Seen;
use super::vtep::{address, vni};
use super::world::{Ev, World};
use evpn::fabric::FdbRow;
use evpn::types::{IfIndex, Mac, Span, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A MAC of a guest, past or present.
#[derive(Clone, Debug, Default)]
pub(super) struct MacTruth {
    /// Guest that has or had it.
    pub(super) guest: usize,
    /// Where it runs.
    pub(super) place: Option<Place>,
    /// The other place, if two copies run.
    pub(super) twin: Option<Place>,
    /// First heard at its place.
    pub(super) spoken: Option<Time>,
    /// That was too soon after something else for all to know at once.
    pub(super) muddled: bool,
    /// There were two copies of it at some time: who was believed last, nobody can know.
    pub(super) twinned: bool,
    /// It has stopped, and its port has no carrier.
    pub(super) unplugged: bool,
    /// Ports that it has left and that have carrier: their VTEPs may still see it there.
    pub(super) residue: BTreeSet<Place>,
    /// It was heard at some time.
    pub(super) known: bool,
    /// Where it was heard last, and since when.
    pub(super) speaker: Option<(usize, Time)>,
    /// When it left each VTEP.
    pub(super) left: BTreeMap<usize, Time>,
    /// Changes of the VTEP where it was heard.
    pub(super) moves: u32,
    /// Moves during which another place also had a say.
    pub(super) contested: u32,
    /// Addresses that it took over from another MAC.
    pub(super) taken: u32,
    /// Frames may still come from the place that it has left last.
    pub(super) late_until: Time,
    /// The route of its place went while such frames could come: whoever has them had every reason to claim it.
    pub(super) stray: Time,
    /// Whatever happened to it.
    pub(super) events: u32,
}

impl MacTruth {
    /// The route of its place goes now, or may: until the last late frame has come, nobody but the guest can tell
    /// where it is.
    pub(super) fn goes_astray(&mut self, now: Time, slowed: &BTreeSet<usize>) {
        // Where a write was refused, the port that it has left before still has it, and gets it back (EVPN-MOB-11).
        self.contested += u32::from(self.residue.iter().any(|p| slowed.contains(&p.node)));
        if now < self.late_until {
            self.stray = self.late_until;
            self.muddled = true;
            self.contested += 1;
        }
    }
}

/// An address.
#[derive(Clone, Debug, Default)]
pub(super) struct IpTruth {
    /// Whose it is; `None`: nobody's, or nobody can know.
    pub(super) mac: Option<Mac>,
    /// Since when, as told by its owner.
    pub(super) said: Option<Time>,
    /// All must know it.
    pub(super) must: bool,
    /// Its owner changed faster than news travels.
    pub(super) muddled: bool,
    /// Who had it before.
    pub(super) before: Option<Mac>,
}

/// What the wire has carried.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Type-2 routes sent from one to another, with and without IP.
    pub(super) sent: BTreeMap<(usize, usize, Mac), [u32; 2]>,
    /// Highest sequence.
    pub(super) highest: BTreeMap<Mac, u32>,
    /// Highest sequence that each node has advertised.
    own: BTreeMap<(usize, Mac), u32>,
    /// Node, MAC, sequence that was advertised after a higher one.
    pub(super) fallen: Vec<(usize, Mac, u32, u32)>,
}

impl Tally {
    pub(super) fn note(&mut self, from: usize, to: usize, seen: Seen) {
        self.sent.entry((from, to, seen.mac)).or_default()[usize::from(seen.ip)] += 1;
        if let Some(seq) = seen.seq {
            let h = self.highest.entry(seen.mac).or_default();
            *h = seq.max(*h);
            let own = self.own.entry((from, seen.mac)).or_default();
            if seq < *own {
                self.fallen.push((from, seen.mac, *own, seq));
            }
            *own = seq.max(*own);
        }
    }
}

/// Something that is not as it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Sort of fault: a shrunk plan must still have it.
    pub kind: &'static str,
    /// What was seen, where, and what should be.
    pub text: String,
    /// Virtual time in microseconds.
    pub at: u64,
}

impl World {
    pub(super) fn find(&mut self, kind: &'static str, text: String) {
        if self.trace.is_some() {
            self.note(&format!("FINDING {kind}: {text}"));
        }
        if self.findings.len() < 16 {
            self.findings.push(Finding { kind, text, at: self.now.0 / 1000 });
        }
    }

    /// All VTEPs know of a change after this long.
    pub(super) fn settle(&self) -> Span {
        Span(4 * self.longest().0) + Span::millis(50)
    }

    /// Quiet from `settle` before until `settle` after this time.
    pub(super) fn calm_around(&self, at: Time) -> bool {
        let (from, to) = (at - self.settle(), at + self.settle());
        let open = self.calm_since.map(|since| (since, Time(u64::MAX)));
        self.calm.iter().copied().chain(open).any(|(a, b)| a <= from && b >= to)
    }

    /// A guest is heard at a place where it runs.
    pub(super) fn spoke(&mut self, g: usize, at: Place, by: By, strong: bool) {
        let (now, settle) = (self.now, self.settle());
        let vm = &self.vms[g];
        let mac = vm.mac;
        let ips: Vec<IpAddr> = match by {
            By::Garp => vm.used().collect(),
            By::Ask => vm.used().filter(IpAddr::is_ipv4).collect(),
            By::Rarp | By::Qemu | By::Data => Vec::new(),
        };
        let guard = Span::secs(1) + settle;
        let deaf = vm.stack.is_deaf(now);
        let Some(m) = self.macs.get_mut(&mac) else { return };
        m.known = true;
        if m.speaker.is_none_or(|(n, _)| n != at.node) {
            let soon = m.speaker.is_some_and(|(_, t)| now.since(t) < settle);
            m.moves += 1;
            m.events += u32::from(m.twin.is_some());
            m.contested += u32::from(soon || m.twin.is_some());
            m.muddled |= soon;
            if let Some((n, _)) = m.speaker {
                m.left.insert(n, now);
            }
        }
        let moved = m.speaker.is_none_or(|(n, _)| n != at.node);
        m.speaker = Some((at.node, now));
        // Late-frame rule: on a port that lost it just now a weak frame is no claim.
        // Nor is an announcement where its VTEP wants it proven (PIT-04), as long as the guest hears no question: its
        // hypervisor has said it.
        m.muddled |= (!strong || deaf) && m.left.get(&at.node).is_some_and(|t| now.since(*t) < guard);
        if m.place == Some(at) && m.spoken.is_none() {
            m.spoken = Some(now);
        }
        m.muddled |= m.twin.is_some();
        if moved {
            // Where it comes to, its old addresses may come along.
            for t in self.ips.values_mut().filter(|t| t.before == Some(mac)) {
                t.muddled |= t.said.is_some_and(|s| now.since(s) < settle);
            }
        }
        for ip in ips {
            let heard = self.would_hear(at, ip, by);
            self.says_ip(g, at, ip, heard);
            self.frr_address(at, ip, heard);
        }
    }

    /// A guest tells an address of its own; `must`: everybody has to know it from then on.
    pub(super) fn says_ip(&mut self, g: usize, at: Place, ip: IpAddr, must: bool) {
        let (mac, now, settle) = (self.vms[g].mac, self.now, self.settle());
        let single = self.vms[g].twin.is_none();
        let listening = self.listens(at.node);
        let speaker = |m: Mac| self.macs.get(&m).and_then(|m| m.speaker).map(|(_, t)| t);
        let t = self.ips.entry(ip).or_default();
        if t.mac != Some(mac) {
            let other = t.mac.or(t.before).filter(|m| *m != mac);
            let recent = [t.said, other.and_then(speaker)].into_iter().flatten().max();
            if let Some(m) = self.macs.get_mut(&mac) {
                m.taken += u32::from(other.is_some());
            }
            t.muddled = other.is_some() && recent.is_some_and(|r| now.since(r) < settle);
            (t.said, t.must) = (None, false);
            t.before = other.or(t.before);
        }
        t.mac = Some(mac);
        t.must = t.must || must && listening;
        if t.said.is_none() {
            t.said = Some(now);
            let known = t.clone();
            if single {
                let grace = self.grace(&known);
                self.push(grace + Span::millis(5), Ev::Probe(ip));
                self.expect_told(ip, grace);
            }
        }
    }

    /// Nobody has this address any more, as far as anybody can know.
    pub(super) fn nobodys(&mut self, ip: IpAddr) {
        if let Some(t) = self.ips.get_mut(&ip) {
            t.before = t.mac.or(t.before);
            (t.mac, t.must) = (None, false);
        }
    }

    /// Nobody gives a wrong answer so long after the owner's announcement: one-way delay, and a few milliseconds for lags of
    /// tap and monitor. Whoever claims what another MAC has is believed once that one has had a round trip and 10 ms to object.
    pub(super) fn grace(&self, t: &IpTruth) -> Span {
        let check =
            if t.before.is_some() { Span(2 * self.longest().0) + Span::millis(10) } else { Span::ZERO };
        self.longest() + check + Span::millis(20)
    }

    /// A kernel was told to answer for an address.
    pub(super) fn check_answer(&mut self, node: usize, ip: IpAddr) {
        let Some(t) = self.ips.get(&ip) else { return };
        let (Some(mac), Some(said)) = (t.mac, t.said) else { return };
        if self.now < said + self.grace(t) || !self.calm_around_now(said) {
            return;
        }
        if t.muddled
            || self.owner_is_deaf(ip, mac)
            || self.macs.get(&mac).is_none_or(|m| m.twin.is_some() || m.muddled)
        {
            return;
        }
        let v = &self.vteps[node];
        let got = v.kernel.answer(v.bridge, ip);
        if let Some(wrong) = got.filter(|m| *m != mac) {
            let text = format!("node {node} answers {wrong} for {ip}, which {mac} announced at {}", us(said));
            self.find("wrong-answer", text);
        }
    }

    /// Quiet since a little before this time until now.
    pub(super) fn calm_around_now(&self, at: Time) -> bool {
        self.calm_since.is_some_and(|since| since + self.settle() <= at)
    }

    /// A while after an announcement: does any kernel still answer with another MAC?
    pub(super) fn probe(&mut self, ip: IpAddr) {
        for i in 0..self.vteps.len() {
            self.check_answer(i, ip);
        }
    }

    /// A guest was answered.
    pub(super) fn told_address(&mut self, g: usize, ip: IpAddr, mac: Mac) {
        if self.vms[g].here.is_some_and(|p| is_frr(p.node)) {
            // FRR's kernel has answered, and what it knows is its own affair (B.3, D.2-2).
            return;
        }
        let Some(t) = self.ips.get(&ip) else { return };
        let (Some(owner), Some(said)) = (t.mac, t.said) else { return };
        // The answer was under way for up to a round trip.
        let grace = Span(2 * self.longest().0) + self.grace(t);
        let sure = !t.muddled && self.macs.get(&owner).is_some_and(|m| m.twin.is_none() && !m.muddled);
        if sure && mac != owner && self.now >= said + grace && self.calm_around_now(said) {
            let text = format!("guest {g} was told {mac} for {ip}, which {owner} announced at {}", us(said));
            self.find("wrong-answer", text);
        }
    }

    /// Compares every kernel with the truth. `all`: also those MACs that had moved too fast for everybody to follow;
    /// by then they have spoken again.
    pub(super) fn check_kernels(&mut self, all: bool) {
        let mut bad = Vec::new();
        for (mac, m) in &self.macs {
            let muddled = m.muddled || m.spoken.is_some_and(|t| !self.calm_around(t));
            if (all || !muddled) && !self.is_aged(*mac) {
                self.check_mac(*mac, m, &mut bad);
            }
        }
        for (ip, t) in &self.ips {
            self.check_ip(*ip, t, all, &mut bad);
        }
        for i in 0..self.vteps.len() {
            self.check_rest(i, &mut bad);
        }
        if all {
            self.check_frrs(&mut bad);
        }
        for (kind, text) in bad {
            self.find(kind, text);
        }
    }

    fn check_mac(&self, mac: Mac, m: &MacTruth, bad: &mut Vec<(&'static str, String)>) {
        let owner = match (m.place, m.twin) {
            (Some(p), None) if m.spoken.is_some() => p,
            (Some(a), Some(b)) => match self.agreed(mac, &[a, b]) {
                Some(p) => p,
                None => return bad.push(("split", format!("{mac}: no agreement between {a:?} and {b:?}"))),
            },
            (None, _) if (m.unplugged && m.residue.is_empty()) || !m.known => {
                for (i, v) in self.vteps.iter().enumerate() {
                    let row = v.kernel.bridge_row(v.bridge, mac);
                    let own = v.kernel.remotes(v.vxlan, mac);
                    if row.is_some() || !own.is_empty() {
                        bad.push(("ghost", format!("{mac} is gone, but node {i} has {row:?} {own:?}")));
                    }
                }
                return;
            }
            _ => return,
        };
        for (i, v) in self.vteps.iter().enumerate() {
            let row = v.kernel.bridge_row(v.bridge, mac).map(|r| r.port);
            let own = v.kernel.remotes(v.vxlan, mac);
            let (want, hop): (IfIndex, &[IpAddr]) =
                if i == owner.node { (v.ports[owner.slot], &[]) } else { (v.vxlan, &[address(owner.node)]) };
            if row != Some(want) || own != hop {
                bad.push((
                    "row",
                    format!(
                        "{mac} is at node {} port {}, but node {i} has port {row:?} (should be {want:?}), \
                         VTEPs {own:?} (should be {hop:?})",
                        owner.node, owner.slot
                    ),
                ));
            }
        }
    }

    /// Which of these places all kernels agree upon.
    fn agreed(&self, mac: Mac, of: &[Place]) -> Option<Place> {
        of.iter().copied().find(|p| {
            self.vteps.iter().enumerate().all(|(i, v)| {
                let row = v.kernel.bridge_row(v.bridge, mac).map(|r| r.port);
                if i == p.node {
                    row == Some(v.ports[p.slot])
                } else {
                    row == Some(v.vxlan) && v.kernel.remotes(v.vxlan, mac) == [address(p.node)]
                }
            })
        })
    }

    fn check_ip(&self, ip: IpAddr, t: &IpTruth, all: bool, bad: &mut Vec<(&'static str, String)>) {
        let Some(mac) = t.mac else { return };
        let Some(m) = self.macs.get(&mac) else { return };
        let muddled = t.muddled
            || m.muddled
            || m.spoken.is_some_and(|x| !self.calm_around(x))
            || t.said.is_some_and(|x| !self.calm_around(x));
        let (Some(place), None, Some(_)) = (m.place, m.twin, m.spoken) else { return };
        // A guest that has answered a question just now has said it as anybody else does who says it then: the others hear
        // of it on their way, whatever the plan had in mind for this moment.
        let fresh = t.said.is_some_and(|x| self.now < x + self.grace(t));
        if fresh || muddled && !all || self.owner_is_deaf(ip, mac) || self.is_aged(mac) {
            return;
        }
        for (i, v) in self.vteps.iter().enumerate() {
            let got = v.kernel.answer(v.bridge, ip);
            let want = (i != place.node).then_some(mac);
            if got == want || got.is_none() && !t.must {
                continue;
            }
            let kind = if got.is_none() { "no-answer" } else { "wrong-answer" };
            bad.push((kind, format!("node {i} answers {got:?} for {ip}, it should be {want:?}")));
        }
    }

    /// Rows that belong to nobody, and flood lists.
    fn check_rest(&self, i: usize, bad: &mut Vec<(&'static str, String)>) {
        let v = &self.vteps[i];
        let mut flood = BTreeSet::new();
        let own = v.kernel.bridge_row(v.bridge, evpn::node::probe_mac(address(i), vni()));
        if own.is_none_or(|r| !r.permanent || r.port != v.bridge) {
            bad.push(("probe-mac", format!("node {i} has {own:?} for its own probes")));
        }
        for row in v.kernel.snapshot() {
            let mac = match row {
                FdbRow::Bridge(r) if r.permanent => continue,
                FdbRow::Bridge(r) => r.mac,
                FdbRow::Vxlan(r) if r.mac.is_zero() => {
                    flood.extend(r.vtep);
                    continue;
                }
                FdbRow::Vxlan(r) => r.mac,
            };
            // A VTEP's probes come back to it (PIT-15).
            let prober = (0..self.vteps.len()).find(|j| evpn::node::probe_mac(address(*j), vni()) == mac);
            if let Some(j) = prober {
                let right = match row {
                    FdbRow::Bridge(r) => j != i && r.port == v.vxlan && r.sticky,
                    FdbRow::Vxlan(r) => j != i && r.vtep == Some(address(j)),
                };
                if !right {
                    bad.push(("probe-mac", format!("node {i} has {row:?} for the probes of node {j}")));
                }
                continue;
            }
            if !self.macs.contains_key(&mac) && !self.foreign.iter().any(|(_, f)| *f == mac) {
                bad.push(("extra-row", format!("node {i} has {row:?}, which belongs to nobody")));
            }
        }
        let vteps = self.all_hosts().filter(|j| *j != i && self.machine(*j).is_some());
        let others: BTreeSet<IpAddr> = vteps.map(address).collect();
        if flood != others {
            bad.push(("flood", format!("node {i} floods to {flood:?}, not to {others:?}")));
        }
        for (n, mac) in &self.foreign {
            if *n == i && v.kernel.bridge_row(v.bridge, *mac).is_none_or(|r| r.ext_learned) {
                bad.push(("foreign", format!("node {i} has lost the foreign row of {mac}")));
            }
        }
        for n in v.kernel.neighbours().filter(|n| n.is_ours()) {
            if !self.ips.contains_key(&n.ip) {
                bad.push(("extra-row", format!("node {i} answers for {}, which nobody has", n.ip)));
            }
        }
    }

    /// Bounds on what was sent.
    pub(super) fn check_wire(&mut self) {
        let mut bad = Vec::new();
        // An address may take the sequence of its MAC along to another, so a guest's MACs count together.
        let mut bound = vec![(0u32, 0u32); self.vms.len()];
        for m in self.macs.values() {
            // Each address that changes its MAC is a step of its own (EVPN-XMOB-06); the first is the MAC's.
            bound[m.guest].0 += m.moves + m.taken.saturating_sub(1);
            bound[m.guest].1 += m.contested;
        }
        if self.shared {
            let all = bound.iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            bound.fill(all);
        }
        for (mac, m) in &self.macs {
            let (moves, contested) = bound[m.guest];
            let most = moves + 2 * contested + self.leaps;
            let seen = self.tally.highest.get(mac).copied().unwrap_or(0);
            if seen > most {
                let text = format!("{mac} has sequence {seen} after {moves} moves, {contested} contested");
                bad.push(("sequence", text));
            }
        }
        for ((from, to, mac), sent) in &self.tally.sent {
            let Some(m) = self.macs.get(mac) else { continue };
            let ups = self.ups.get(&(*from, *to)).copied().unwrap_or(0);
            let routes = [1, self.vms[m.guest].ips().count() as u32 + u32::from(self.vms[m.guest].changes)];
            for (n, routes) in sent.iter().zip(routes) {
                let most = 3 * routes * (m.events + 2 * m.contested + ups + self.upsets);
                if *n > most {
                    let text = format!(
                        "node {from} sent {to} {n} routes of {mac} in {} events, {ups} sessions, {} upsets",
                        m.events, self.upsets
                    );
                    bad.push(("chatter", text));
                }
            }
        }
        // EVPN-MOB-12; a daemon that has lost its memory may fall back.
        let forgets = !self.plan.fabric.memory && self.vteps.iter().any(|v| v.epoch > 1);
        for (from, mac, before, seq) in self.tally.fallen.iter().filter(|_| !forgets).take(1) {
            let text = format!("node {from} advertised {mac} with sequence {seq} after {before}");
            bad.push(("fallen", text));
        }
        for (i, v) in self.vteps.iter().enumerate() {
            if v.forced > 0 && !self.slowed.contains(&i) {
                let n = v.forced;
                bad.push(("forced", format!("node {i} withdrew {n} times without waiting for its kernel")));
            }
        }
        for (kind, text) in bad {
            self.find(kind, text);
        }
    }
}

/// In microseconds, as plans have it.
pub(super) fn us(t: Time) -> u64 {
    t.0 / 1000
}
