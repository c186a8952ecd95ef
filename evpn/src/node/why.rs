//! `vtepd why`: who has an address, by which rule, and what was before.

mod host_side;
mod notes;

use super::bindings::candidate_mac;
use super::input::{About, WhyRequest};
use super::remote::claim_of;
use super::view::{
    BindingView, CandidateView, KernelView, LostView, MemoryView, MoveView, Place, RuleView, VERSION, WhyView,
};
use super::{Node, Segment};
use crate::fabric::RowKey;
use crate::hosts::{Binding, MacEntry, Owner};
use crate::mobility::{Claim, Rule, difference, explain};
use crate::rib::Candidate;
use crate::types::{Mac, Span, Time, Vni};
use core::cmp::Ordering;
use core::ops::Range;
use notes::{late, remembered};
use std::net::IpAddr;

/// Last moves told.
const HISTORY: usize = 8;
/// Claims told; a MAC has a route per peer and address.
const CANDIDATES: usize = 64;
/// VNIs named when the one asked for is not there.
const NAMED: usize = 16;
/// Rows of addresses beside the row of a MAC.
const ROWS: usize = 16;

impl Node {
    /// # Errors
    /// The VNI is not configured, or nothing is known of the address.
    pub(super) fn why(&self, q: &WhyRequest, at: Time) -> Result<WhyView, String> {
        let Some(seg) = self.segments.get(&q.vni) else { return Err(self.no_such_vni(q.vni)) };
        let found = match q.about {
            About::Mac(mac) => self.why_mac(seg, mac, at),
            About::Ip(ip) => self.why_ip(seg, ip, at),
        };
        found.ok_or_else(|| self.nothing_known(seg, q))
    }

    fn no_such_vni(&self, vni: Vni) -> String {
        let mut names: Vec<String> = self.segments.keys().take(NAMED).map(ToString::to_string).collect();
        if self.segments.len() > NAMED {
            names.push("…".into());
        }
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!("VNI {vni} is not configured here; configured: {known}")
    }

    /// An empty answer about a MAC, an IP, or both.
    fn blank(&self, vni: Vni, mac: Option<Mac>, ip: Option<IpAddr>) -> WhyView {
        let about = |m: &&MoveView| {
            m.vni == vni
                && match ip {
                    Some(ip) => m.ips.contains(&ip),
                    None => mac.is_some_and(|x| m.mac == x || m.mac_before == Some(x)),
                }
        };
        let all = self.moves.after(0);
        let mut history: Vec<MoveView> = all.into_iter().rev().filter(about).take(HISTORY).cloned().collect();
        history.reverse();
        WhyView {
            version: VERSION,
            vni,
            mac,
            ip,
            owner: Place::None,
            since: None,
            seq: None,
            moves: 0,
            rule: None,
            because: Vec::new(),
            candidates: Vec::new(),
            binding: None,
            host_side: None,
            ips: Vec::new(),
            lost: None,
            memory: None,
            history,
            kernel: Vec::new(),
        }
    }

    fn why_mac(&self, seg: &Segment, mac: Mac, at: Time) -> Option<WhyView> {
        let vni = seg.config.vni;
        let routes = self.rib.mac_candidates(vni, mac);
        let entry = seg.hosts.macs.get(&mac);
        let mut v = self.blank(vni, Some(mac), None);
        v.memory = memory(seg, mac);
        let gone = self.moves.past.macs.get((vni, mac));
        if entry.is_none()
            && routes.is_empty()
            && v.memory.is_none()
            && v.history.is_empty()
            && gone.is_none()
        {
            return None;
        }
        v.ips = seg.hosts.ips_of(mac);
        v.kernel = self.rows_of_mac(seg, mac, &v.ips);
        v.lost = entry.and_then(|e| self.lost_view(e, at));
        self.claims_of_mac(seg, mac, entry, &routes, &mut v);
        if let Some(e) = entry {
            self.owner_view(e, at, &mut v);
            v.because.push(owned(&About::Mac(mac), &v));
            v.because.extend(won(&v));
        } else if seg.own.contains(&mac) && !routes.is_empty() {
            v.because.push(format!(
                "{mac} is the address of {} or of one of its ports: the kernel keeps it for itself, and no route can have it (PIT-01).",
                seg.config.bridge
            ));
        } else {
            v.because.push(format!("Nobody has {mac} in VNI {vni} now."));
            if let Some(g) = gone {
                let ago = at.since(g.at);
                v.because.push(format!(
                    "Its last owner was {} with sequence {}, {ago} ago.",
                    who(&g.place),
                    g.seq
                ));
            }
        }
        v.because.extend(late(&v));
        v.because.extend(self.refused_note(vni, mac, at));
        v.because.extend(self.duplicate_note(vni, mac, None, at));
        v.because.extend(self.prepared(vni, mac, at));
        if entry.is_none() {
            v.because.extend(self.no_place(seg));
        }
        v.because.extend(remembered(&v));
        if v.kernel.first().is_some_and(|k| k.stale) {
            let text = "Its row was found at the start, and no peer has confirmed it yet.";
            v.because.push(text.into());
        }
        Some(v)
    }

    fn why_ip(&self, seg: &Segment, ip: IpAddr, at: Time) -> Option<WhyView> {
        let vni = seg.config.vni;
        let routes = self.rib.ip_candidates(vni, ip);
        let binding = seg.hosts.binding(ip).copied();
        let past = self.moves.past.ips.get((vni, ip));
        let mut v = self.blank(vni, binding.map(|b| b.mac), Some(ip));
        if binding.is_none() && routes.is_empty() && v.history.is_empty() && past.is_none() {
            return None;
        }
        v.binding = binding.map(|b| {
            let answer = self.answerer(seg, ip, &b);
            BindingView {
                mac: b.mac,
                origin: b.known_by().into(),
                age: at.since(b.since),
                confirmed: at.since(b.confirmed),
                probes: b.probes,
                router: b.router,
                answered_by: answer.by,
                answered_why: answer.why,
            }
        });
        v.host_side = Some(self.host_side(vni, ip, at));
        if let Some(dev) = seg.bridge {
            v.kernel.push(self.row_view(&RowKey::Neigh { dev, ip }));
        }
        self.claims_of_ip(seg, ip, binding, &routes, &mut v);
        let Some(b) = v.binding.clone() else {
            v.because.push(format!("{ip} in VNI {vni} is bound to no MAC now."));
            if let Some(c) = routes.first() {
                let mac = candidate_mac(&c.key).map_or_else(String::new, |m| m.to_string());
                v.because.push(format!("VTEP {} binds it to {mac}, which is not behind a VTEP.", c.vtep));
            } else if let Some(u) = past {
                let ago = at.since(u.at);
                v.because.push(format!(
                    "It was last bound to {} behind {}, {ago} ago.",
                    u.mac,
                    who(&u.place)
                ));
            }
            v.because.extend(self.adopted_note(seg, ip));
            v.because.extend(host_side::said(&v));
            return Some(v);
        };
        v.memory = memory(seg, b.mac);
        v.kernel.extend(seg.mac_key(b.mac).map(|k| self.row_view(&k)));
        let entry = seg.hosts.macs.get(&b.mac);
        v.lost = entry.and_then(|e| self.lost_view(e, at));
        if let Some(e) = entry {
            self.owner_view(e, at, &mut v);
        }
        v.because.push(format!(
            "{ip} in VNI {vni} belongs to {}, {}, for {} ({}, confirmed {} ago).",
            b.mac,
            v_place(&v.owner),
            b.age,
            host_side::origin_text(&b.origin),
            b.confirmed
        ));
        v.because.extend(won(&v));
        v.because.push(b.answered());
        v.because.extend(host_side::said(&v));
        v.because.extend(self.refused_note(vni, b.mac, at));
        v.because.extend(self.duplicate_note(vni, b.mac, Some(ip), at));
        v.because.extend(self.prepared(vni, b.mac, at));
        v.because.extend(late(&v));
        Some(v)
    }

    /// Everybody who claims a MAC, the winner first.
    fn claims_of_mac(
        &self,
        seg: &Segment,
        mac: Mac,
        entry: Option<&MacEntry>,
        routes: &[Candidate],
        v: &mut WhyView,
    ) {
        let ours = entry.and_then(|e| e.local()).map(|l| {
            let place = Place::Port(self.dev_name(l.port));
            (seg.our_claim(mac, l.seq, self.config.vtep), candidate(None, place, mac, None))
        });
        let usable = !seg.own.contains(&mac);
        let owner = entry.and_then(|e| e.remote()).map(|r| r.claim);
        let mut theirs: Vec<_> = routes
            .iter()
            .map(|c| {
                let from = self.peer_address(c.peer);
                (claim_of(c), candidate(from, Place::Vtep(c.vtep), mac, c.ip))
            })
            .collect();
        // The owner's first; what stands before it among the routes does not count here.
        let refused = theirs.iter().take_while(|(c, _)| owner.is_some_and(|o| *c != o)).count();
        let absent = owner.is_some() && refused == theirs.len();
        theirs.rotate_left(refused);
        let refused = theirs.len() - refused..theirs.len();
        let refused = if ours.is_some() || owner.is_none() { 0..0 } else { refused };
        rank(ours.into_iter().chain(theirs), usable && entry.is_some() && !absent, refused, v);
    }

    /// Everybody who claims an IP.
    fn claims_of_ip(
        &self,
        seg: &Segment,
        ip: IpAddr,
        binding: Option<Binding>,
        routes: &[Candidate],
        v: &mut WhyView,
    ) {
        let ours = binding.filter(Binding::is_local).and_then(|b| {
            let l = seg.hosts.macs.get(&b.mac).and_then(|e| e.local())?;
            let place = Place::Port(self.dev_name(l.port));
            Some((seg.our_claim(b.mac, l.seq, self.config.vtep), candidate(None, place, b.mac, Some(ip))))
        });
        let mut theirs: Vec<_> = routes
            .iter()
            .filter_map(|c| {
                let from = self.peer_address(c.peer);
                Some((claim_of(c), candidate(from, Place::Vtep(c.vtep), candidate_mac(&c.key)?, Some(ip))))
            })
            .collect();
        // The one in use first; one before it whose MAC is not remote is passed over.
        if let Some(b) = binding.filter(|b| !b.is_local()) {
            theirs.sort_by_key(|(_, c)| c.mac != b.mac);
        }
        rank(ours.into_iter().chain(theirs), binding.is_some(), 0..0, v);
    }

    fn owner_view(&self, e: &MacEntry, at: Time, v: &mut WhyView) {
        (v.owner, v.seq) = match &e.owner {
            Owner::Local(l) => (Place::Port(self.dev_name(l.port)), Some(l.seq)),
            Owner::Remote(r) => (Place::Vtep(r.claim.vtep), Some(r.claim.seq)),
        };
        v.since = Some(at.since(e.since));
        v.moves = e.moves;
    }

    fn lost_view(&self, e: &MacEntry, at: Time) -> Option<LostView> {
        let l = e.lost.latest().filter(|_| e.remote().is_some())?;
        let guard = self.config.mobility.guard_time;
        Some(LostView {
            port: self.dev_name(l.port),
            ago: at.since(l.at),
            late_frames: l.frames,
            last: l.late.map(|t| at.since(t)),
            guarded: (l.at + guard).since(at),
        })
    }

    fn rows_of_mac(&self, seg: &Segment, mac: Mac, ips: &[IpAddr]) -> Vec<KernelView> {
        let neigh = ips.iter().take(ROWS).filter_map(|ip| seg.neigh_key(*ip));
        seg.mac_key(mac).into_iter().chain(neigh).map(|k| self.row_view(&k)).collect()
    }

    fn row_view(&self, key: &RowKey) -> KernelView {
        self.kernel_row(key, self.want.get(key))
    }
}

fn memory(seg: &Segment, mac: Mac) -> Option<MemoryView> {
    let r = seg.memory.get(mac)?;
    Some(MemoryView { seq: r.seq, ours: r.ours, released_until: seg.memory.released_until(mac) })
}

/// A candidate whose claim is filled in by [`rank`].
fn candidate(from: Option<IpAddr>, place: Place, mac: Mac, ip: Option<IpAddr>) -> CandidateView {
    let seq = crate::types::Seq::ZERO;
    let (sticky, gateway, stale, wins) = (false, false, false, false);
    CandidateView { place, from, mac, ip, seq, sticky, gateway, stale, wins, lost_by: None }
}

/// Compares each claim with the first, which is the one that counts if `decided`. `refused`: those that are better and
/// do not count here.
fn rank(
    claims: impl Iterator<Item = (Claim, CandidateView)>,
    decided: bool,
    refused: Range<usize>,
    v: &mut WhyView,
) {
    let mut first: Option<Claim> = None;
    for (i, (claim, mut c)) in claims.enumerate().take(CANDIDATES) {
        (c.seq, c.sticky, c.gateway, c.stale) = (claim.seq, claim.sticky, claim.gateway, claim.stale);
        match &first {
            None => {
                c.wins = decided;
                first = Some(claim);
            }
            Some(best) => {
                let (order, rule) = explain(best, &claim);
                // The order of routes knows more than two claims: of gateways it compares no sequences, and numbers
                // spread over half the circle have no newest.
                let rule = match order {
                    _ if refused.contains(&i) => Rule::NotAdmitted,
                    // Ours is above them all, or it would have been lost: it is held.
                    Ordering::Less
                        if c.from.is_some() && v.candidates.first().is_some_and(|f| f.from.is_none()) =>
                    {
                        Rule::NotAdmitted
                    }
                    Ordering::Less => Rule::RouteOrder,
                    Ordering::Equal | Ordering::Greater => rule,
                };
                // The rule that decided is the one against the first that is another claim.
                if v.rule.is_none() && rule != Rule::SameClaim {
                    v.rule = Some(rule_view(rule, difference(rule, best, &claim)));
                }
                c.lost_by = Some(rule_view(rule, difference(rule, best, &claim)));
            }
        }
        v.candidates.push(c);
    }
    if decided && v.rule.is_none() && first.is_some() {
        v.rule = Some(rule_view(Rule::OnlyClaim, None));
    }
    if !decided {
        v.rule = None;
    }
}

fn rule_view(rule: Rule, difference: Option<String>) -> RuleView {
    let text = difference.map_or_else(|| rule.text().to_owned(), |d| format!("{}: {d}", rule.text()));
    RuleView { name: rule.name().into(), text }
}

fn who(place: &Place) -> String {
    match place {
        Place::Port(p) => format!("port {p} of this VTEP"),
        Place::Vtep(v) => format!("VTEP {v}"),
        Place::None => "an unknown place".into(),
    }
}

fn v_place(place: &Place) -> String {
    match place {
        Place::Port(p) => format!("local on port {p}"),
        Place::Vtep(v) => format!("behind VTEP {v}"),
        Place::None => "whose place is unknown".into(),
    }
}

fn owned(about: &About, v: &WhyView) -> String {
    let seq = v.seq.unwrap_or_default();
    let since = v.since.unwrap_or(Span::ZERO);
    let moves = match v.moves {
        0 => String::new(),
        1 => ", after 1 move".into(),
        n => format!(", after {n} moves"),
    };
    format!("{about} in VNI {} is {} with sequence {seq}, for {since}{moves}.", v.vni, v_place(&v.owner))
}

fn won(v: &WhyView) -> Option<String> {
    let rule = v.rule.as_ref()?;
    Some(format!("It is there because: {}.", rule.text))
}
