//! How far other VTEPs are: a host behind one of them that is asked about its address is given the time that the question and
//! the answer take, and no more (PROXY-DUP-03).
//!
//! A VTEP that is new is asked for its probe address (PIT-15) three times, from ours and through the underlay as hosts are; its
//! vtepd answers at once. The shortest time counts, for the others had to wait somewhere. VTEPs that do not answer, as all
//! that are not vtepd, are as far as `claim-time` says until a host behind them has answered.

use super::Node;
use super::probe_mac::{link_local, probe_mac};
use crate::types::{Mac, Span, Time, Vni};
use crate::wire::frame;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// On top of a round trip and a quarter: what a busy host takes.
const BUSY: Span = Span::millis(5);
/// No VTEP is waited for longer.
pub(super) const LONGEST: Span = Span::millis(500);
/// VTEPs whose distance is remembered, or asked for.
const VTEPS: usize = 4096;
/// From one question to the next; the first one waits for the routes of both.
const EVERY: Span = Span::secs(1);
/// Questions with an answer, and questions at all.
const ANSWERS: u8 = 3;
const TIMES: u8 = 10;

#[derive(Clone, Copy, Debug)]
struct Echo {
    asked: Time,
    times: u8,
    answers: u8,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    known: BTreeMap<IpAddr, Span>,
    echoes: BTreeMap<IpAddr, Echo>,
    due: BTreeSet<(Time, IpAddr)>,
}

impl RoundTrips {
    pub(super) fn timeout(&self) -> Option<Time> {
        self.due.first().map(|(t, _)| *t)
    }

    /// How long a host behind this VTEP may take, given what one here may.
    pub(super) fn patience(&self, vtep: Option<IpAddr>, here: Span) -> Span {
        let trip = vtep.and_then(|v| self.known.get(&v)).copied();
        trip.map_or(here, |t| here.max(Span(t.0 + t.0 / 4) + BUSY).min(here.max(LONGEST)))
    }

    /// A host behind a VTEP has answered after so long: it counts if it is longer than what is known.
    pub(super) fn took(&mut self, vtep: IpAddr, trip: Span) {
        self.note(vtep, |known| known.map_or(trip, |k| k.max(trip)).min(LONGEST));
    }

    fn note(&mut self, vtep: IpAddr, f: impl Fn(Option<Span>) -> Span) {
        if self.known.len() < VTEPS || self.known.contains_key(&vtep) {
            let new = f(self.known.get(&vtep).copied());
            self.known.insert(vtep, new);
        }
    }

    /// The VTEPs in use: those that are gone are forgotten, new ones are to be asked.
    pub(super) fn review(&mut self, vteps: &BTreeSet<IpAddr>, at: Time) {
        self.known.retain(|v, _| vteps.contains(v));
        self.echoes.retain(|v, _| vteps.contains(v));
        self.due.retain(|(_, v)| vteps.contains(v));
        for v in vteps {
            if self.echoes.len() < VTEPS && !self.echoes.contains_key(v) {
                self.echoes.insert(*v, Echo { asked: at, times: 0, answers: 0 });
                self.due.insert((at + EVERY, *v));
            }
        }
    }

    /// A VNI forwards from now on: VTEPs that were asked in vain, or could not be asked, may answer in it.
    pub(super) fn ask_again(&mut self, at: Time) {
        for (vtep, e) in self.echoes.iter_mut().filter(|(_, e)| e.answers == 0 && e.times >= TIMES) {
            e.times = 0;
            self.due.insert((at + EVERY, *vtep));
        }
    }

    fn answered(&mut self, vtep: IpAddr, at: Time) {
        let Some(e) = self.echoes.get_mut(&vtep).filter(|e| e.times > 0 && e.answers < e.times) else {
            return;
        };
        e.answers = e.times;
        let trip = at.since(e.asked).min(LONGEST);
        self.note(vtep, |known| known.map_or(trip, |k| k.min(trip)));
    }

    /// The next VTEP that is to be asked, which it is now.
    fn next(&mut self, at: Time) -> Option<IpAddr> {
        let (_, vtep) = self.due.first().copied().filter(|(t, _)| *t <= at)?;
        self.due.pop_first();
        let e = self.echoes.get_mut(&vtep)?;
        (e.asked, e.times) = (at, e.times + 1);
        if e.times < if e.answers > 0 { ANSWERS } else { TIMES } {
            self.due.insert((at + EVERY, vtep));
        }
        Some(vtep)
    }
}

impl Node {
    /// Asks VTEPs whose turn it is for their probe addresses.
    pub(super) fn due_round_trips(&mut self, at: Time) {
        while self.round_trips.timeout().is_some_and(|t| t <= at) {
            let Some(vtep) = self.round_trips.next(at) else { continue };
            let shared = self
                .segments
                .iter()
                .find(|(vni, s)| s.ready && self.vtep_of(**vni, probe_mac(vtep, **vni)) == Some(vtep));
            let Some(vni) = shared.map(|(v, _)| *v) else { continue };
            let Some(from) = self.probe_mac(vni) else { continue };
            let theirs = probe_mac(vtep, vni);
            let ns = frame::neighbor_solicitation(from, link_local(from), Some(theirs), link_local(theirs));
            self.encap(vni, vtep, ns);
        }
    }

    /// Somebody has answered us from afar: a VTEP, for its probe address?
    pub(super) fn round_trip_heard(&mut self, vni: Vni, mac: Mac, ip: IpAddr, at: Time) {
        if let Some(vtep) = self.vtep_of(vni, mac)
            && mac == probe_mac(vtep, vni)
            && ip == IpAddr::V6(link_local(mac))
        {
            self.round_trips.answered(vtep, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Span = Span::millis(10);
    const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn at(ms: u64) -> Time {
        Time(0) + Span::millis(ms)
    }

    #[test]
    fn a_far_vtep_is_given_its_round_trip_and_never_less_than_a_host_here() {
        let mut r = RoundTrips::default();
        assert_eq!((r.patience(None, HERE), r.patience(Some(FAR), HERE)), (HERE, HERE));
        r.took(FAR, Span::millis(40));
        assert_eq!(r.patience(Some(FAR), HERE), Span::millis(55));
        r.took(FAR, Span::millis(1));
        assert_eq!(
            r.patience(Some(FAR), HERE),
            Span::millis(55),
            "a quick host says nothing of the way of others"
        );
        r.took(FAR, Span::secs(9));
        assert_eq!(r.patience(Some(FAR), HERE), LONGEST, "nobody waits for ever");
        for n in 0..2 * VTEPS as u32 {
            r.took(IpAddr::from(n.to_be_bytes()), HERE);
        }
        assert!(r.known.len() <= VTEPS);
    }

    #[test]
    fn a_new_vtep_is_asked_three_times_and_the_shortest_way_counts() {
        let mut r = RoundTrips::default();
        let all = BTreeSet::from([FAR]);
        r.review(&all, at(0));
        assert_eq!(r.next(at(999)), None);
        for (n, trip) in [70, 30, 50].into_iter().enumerate() {
            let t = at(1000 * (n as u64 + 1));
            assert_eq!((r.next(t), r.next(t)), (Some(FAR), None));
            r.answered(FAR, t + Span::millis(trip));
            r.answered(FAR, t + Span::millis(1));
        }
        assert_eq!(r.patience(Some(FAR), HERE), Span::micros(42_500));
        assert_eq!((r.timeout(), r.next(at(60_000))), (None, None));
        r.review(&BTreeSet::new(), at(70_000));
        assert_eq!(r.patience(Some(FAR), HERE), HERE, "forgotten");
    }

    #[test]
    fn who_never_answers_is_asked_ten_times() {
        let mut r = RoundTrips::default();
        r.review(&BTreeSet::from([FAR]), at(0));
        let asked = (0..60).filter(|s| r.next(at(s * 1000)).is_some()).count();
        assert_eq!((asked, r.timeout()), (usize::from(TIMES), None));
        r.ask_again(at(60_000));
        r.ask_again(at(60_001));
        let asked = (60..120).filter(|s| r.next(at(s * 1000)).is_some()).count();
        assert_eq!((asked, r.timeout()), (usize::from(TIMES), None), "as if it were new, and no more");
    }
}
