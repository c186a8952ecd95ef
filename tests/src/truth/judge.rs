//! Whether an answer was true when it was heard. Knows who had which address when, and when that was said; nothing of how a
//! VTEP finds out.

use evpn::types::Mac;
use std::collections::BTreeMap;
use std::net::IpAddr;

const MS: u64 = 1_000_000;
/// After a change was announced nobody says anything else for longer than this.
pub(crate) const GRACE: u64 = 50 * MS;
/// A request for a live host is answered in this time.
pub(crate) const SOON: u64 = 5 * MS;

/// Somebody has an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stint {
    pub(crate) mac: Mac,
    /// Where, last.
    pub(crate) vtep: usize,
    /// Not before this time.
    pub(crate) begun: u64,
    /// When it had been said, if it was.
    pub(crate) announced: Option<u64>,
    /// It answers when asked.
    pub(crate) answers: bool,
    /// Since when not any more.
    pub(crate) gone: Option<u64>,
}

/// A daemon was away, or had not heard everything yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Outage {
    pub(crate) vtep: usize,
    pub(crate) from: u64,
    /// `u64::MAX` as long as it lasts.
    pub(crate) to: u64,
}

/// How an answer was seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    /// A host heard it.
    Frame,
    /// The kernel would give it.
    Row,
}

/// An answer, from a port or in a kernel's table of this VTEP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) how: How,
    pub(crate) vtep: usize,
    pub(crate) ip: IpAddr,
    pub(crate) mac: Mac,
    /// Between these times.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    pub(crate) vtep: usize,
    pub(crate) ip: IpAddr,
    pub(crate) at: u64,
    /// How long until the first answer.
    pub(crate) took: Option<u64>,
}

/// What is to be said of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Right,
    /// Somebody else had announced the address so long before, or nobody ever had it with this MAC.
    Wrong {
        /// Nanoseconds since the announcement, if there was one.
        after: Option<u64>,
    },
    /// Whoever had it has been gone for so long.
    Dead {
        after: u64,
    },
}

/// What is to be said of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    /// Nobody lives there who would answer, or not all the time.
    NotCounted,
    InTime,
    Late,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    stints: BTreeMap<IpAddr, Vec<Stint>>,
    pub(crate) outages: Vec<Outage>,
    /// A dead host's binding may stay for so long.
    pub(crate) dead: u64,
}

impl Ledger {
    pub(crate) fn new(dead: u64) -> Self {
        Self { dead, ..Self::default() }
    }

    /// From now on somebody has an address. With the MAC of who has it already: he has moved.
    pub(crate) fn has(&mut self, ip: IpAddr, s: Stint) {
        let of = self.stints.entry(ip).or_default();
        match of.last_mut() {
            Some(last) if last.gone.is_none() && last.mac == s.mac => {
                (last.vtep, last.answers) = (s.vtep, s.answers);
                last.announced = last.announced.or(s.announced);
            }
            Some(last) if last.gone.is_none() => {
                last.gone = Some(s.begun);
                of.push(s);
            }
            Some(_) | None => of.push(s),
        }
    }

    /// It has been said who has it.
    pub(crate) fn announced(&mut self, ip: IpAddr, at: u64) {
        if let Some(last) = self.stints.get_mut(&ip).and_then(|s| s.last_mut()) {
            last.announced = last.announced.or(Some(at));
        }
    }

    /// Nobody has it any more.
    pub(crate) fn gone(&mut self, ip: IpAddr, at: u64) {
        if let Some(last) = self.stints.get_mut(&ip).and_then(|s| s.last_mut()) {
            last.gone = last.gone.or(Some(at));
        }
    }

    /// Who has it now.
    pub(crate) fn holder(&self, ip: IpAddr) -> Option<Stint> {
        self.stints.get(&ip)?.last().copied().filter(|s| s.gone.is_none())
    }

    /// Who had it when.
    pub(crate) fn history(&self, ip: IpAddr) -> &[Stint] {
        self.stints.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// What was to be known at `by` is to be known at this time, because these daemons could not hear it.
    fn due(&self, said: u64, by: u64, vteps: [usize; 2]) -> u64 {
        let mut due = by;
        // Each may move it into the next.
        for _ in 0..=self.outages.len() {
            let in_the_way = |o: &&Outage| vteps.contains(&o.vtep) && o.from <= due && o.to >= said;
            let later = self.outages.iter().filter(in_the_way).map(|o| o.to.saturating_add(by - said)).max();
            match later {
                Some(t) if t > due => due = t,
                Some(_) | None => break,
            }
        }
        due
    }

    pub(crate) fn judge(&self, seen: &Seen) -> Verdict {
        let all = self.history(seen.ip);
        let mut verdict = Verdict::Wrong { after: None };
        for (n, s) in all.iter().enumerate() {
            if s.mac != seen.mac || s.begun > seen.to {
                continue;
            }
            let next = all[n + 1..].iter().find(|o| o.mac != s.mac && o.announced.is_some());
            let corrected = next.and_then(|o| {
                let said = o.announced?;
                Some((said, self.due(said, said + GRACE, [seen.vtep, o.vtep])))
            });
            let buried = s.gone.map(|t| (t, self.due(t, t + self.dead, [seen.vtep, s.vtep])));
            verdict = match (corrected, buried) {
                (Some((said, due)), _) if seen.from > due => Verdict::Wrong { after: Some(seen.from - said) },
                (_, Some((gone, due))) if seen.from > due => Verdict::Dead { after: seen.from - gone },
                _ => return Verdict::Right,
            };
        }
        verdict
    }

    pub(crate) fn service(&self, asked: &Asked) -> Service {
        let lives = |s: &Stint| {
            s.answers
                && s.announced.unwrap_or(s.begun) <= asked.at
                && s.gone.is_none_or(|t| t > asked.at.saturating_add(SOON))
        };
        if !self.history(asked.ip).iter().any(lives) {
            return Service::NotCounted;
        }
        if asked.took.is_some_and(|t| t <= SOON) { Service::InTime } else { Service::Late }
    }

    /// A daemon was away around this time.
    pub(crate) fn beside_outage(&self, at: u64) -> bool {
        self.outages.iter().any(|o| o.from <= at + SOON && o.to >= at)
    }
}
