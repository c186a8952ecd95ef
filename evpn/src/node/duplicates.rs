//! Duplicate MACs and IPs: found out, told, contained, let go (EVPN-MOB-15, -16, EVPN-XMOB-16, -17).
//!
//! The VTEP that has lost a contested address asks its own host on the port where that was. A host that has moved
//! away is silent; one that answers is alive, and so is whoever had the address claimed. Which VTEP finds out is
//! decided by who loses, so that two of them never freeze an address each for the other.
//!
//! Here: what is contested and what is found, asking our side, letting go. What leads there is in
//! [`super::duplicate_macs`] and [`super::duplicate_ips`].

use super::config::DuplicateAction;
use super::input::About;
use super::output::{Output, Reply};
use super::view::{DuplicateView, Place};
use super::{Event, Node};
use crate::mobility::{Contest, Holder};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Addresses whose owners are watched; those of further ones are not, and counted.
const TRACKED: usize = 65_536;
/// Duplicates kept at a time; further ones are only counted.
const FOUND: usize = 4096;
/// Hosts that are to be asked a little later.
const ASKS: usize = 4096;
/// Addresses of a host that it is asked for.
pub(super) const IPS: usize = 2;
/// Between two questions to our side of a duplicate.
const ASK_EVERY: Span = Span::secs(1);
/// Unanswered questions after which our side is taken for gone.
const UNANSWERED: u8 = 3;
/// A duplicate that is only reported is over when it has stayed with one owner for so long.
const QUIET: Span = Span::secs(30);
/// Until the kernel has the row that lets the answer in.
const SETTLE: Span = Span::millis(5);

type Key = (Vni, About);

/// A duplicate, as this VTEP has found it out.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) since: Time,
    pub(super) changed: Time,
    pub(super) action: DuplicateAction,
    /// Our side of it: port, host, and what it is asked for.
    pub(super) port: IfIndex,
    pub(super) mac: Mac,
    pub(super) ips: Vec<IpAddr>,
    pub(super) unanswered: u8,
    pub(super) owners: Vec<String>,
    /// Who keeps an IP that is frozen.
    pub(super) keeper: Option<Mac>,
    /// A conflict: unanswered questions to the other side.
    pub(super) other_side: Option<u8>,
    /// Nobody answers for it (PROXY-DUP-04).
    pub(super) mute: bool,
}

impl Found {
    /// `side`: our port, and the host there.
    pub(super) fn new(
        action: DuplicateAction,
        side: (IfIndex, Mac),
        ips: Vec<IpAddr>,
        owners: Vec<String>,
        at: Time,
    ) -> Self {
        let (port, mac) = side;
        Self {
            since: at,
            changed: at,
            action,
            port,
            mac,
            ips,
            unanswered: 0,
            owners,
            keeper: None,
            other_side: None,
            mute: false,
        }
    }

    pub(super) fn frozen(&self) -> bool {
        self.action != DuplicateAction::Report
    }

    pub(super) fn state(&self) -> &'static str {
        match self.action {
            DuplicateAction::Freeze if self.mute => "unanswered",
            DuplicateAction::Report => "reported",
            DuplicateAction::Freeze => "frozen",
            DuplicateAction::Block => "blocked",
        }
    }
}

/// Contested and duplicate addresses of a node.
#[derive(Debug, Default)]
pub(super) struct Duplicated {
    pub(super) macs: BTreeMap<(Vni, Mac), Contest<Holder>>,
    pub(super) ips: BTreeMap<(Vni, IpAddr), Contest<Mac>>,
    /// When to look whether a contest may be forgotten; one entry each.
    expiry: VecDeque<(Time, Key)>,
    pub(super) found: BTreeMap<Key, Found>,
    due: BTreeSet<(Time, Key)>,
    asks: BTreeSet<(Time, Vni, Mac, IfIndex, IpAddr)>,
    pub(super) blocked: BTreeSet<(IfIndex, Mac)>,
    untracked: u64,
}

impl Duplicated {
    /// The contest of a MAC, unless there are too many.
    pub(super) fn mac(&mut self, vni: Vni, mac: Mac, until: Time) -> Option<&mut Contest<Holder>> {
        if !self.macs.contains_key(&(vni, mac)) {
            self.room((vni, About::Mac(mac)), until)?;
        }
        Some(self.macs.entry((vni, mac)).or_default())
    }

    pub(super) fn ip(&mut self, vni: Vni, ip: IpAddr, until: Time) -> Option<&mut Contest<Mac>> {
        if !self.ips.contains_key(&(vni, ip)) {
            self.room((vni, About::Ip(ip)), until)?;
        }
        Some(self.ips.entry((vni, ip)).or_default())
    }

    fn room(&mut self, key: Key, until: Time) -> Option<()> {
        if self.macs.len() + self.ips.len() >= TRACKED {
            self.untracked += 1;
            return None;
        }
        self.expiry.push_back((until, key));
        Some(())
    }

    pub(super) fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let times = [
            self.due.first().map(|(t, _)| (*t, "duplicate")),
            self.asks.first().map(|(t, ..)| (*t, "question to a host")),
            self.expiry.front().map(|(t, _)| (*t, "end of a contest")),
        ];
        times.into_iter().flatten().min_by_key(|(t, _)| *t)
    }

    /// Whether this MAC, or this IP (with its MAC), is a duplicate.
    pub(super) fn marks(&self, vni: Vni, mac: Mac, ip: Option<IpAddr>) -> bool {
        !self.found.is_empty()
            && (self.found.contains_key(&(vni, About::Mac(mac)))
                || ip.is_some_and(|ip| self.found.contains_key(&(vni, About::Ip(ip)))))
    }

    /// A MAC that stays with its owner whatever its frames say.
    pub(super) fn is_frozen(&self, vni: Vni, mac: Mac) -> bool {
        self.found.get(&(vni, About::Mac(mac))).is_some_and(Found::frozen)
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Moves that nobody watches, because too many addresses move at once.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked
    }
}

impl Node {
    pub(super) fn window(&self) -> Span {
        self.config.mobility.duplicates.window
    }

    pub(super) fn ask_soon(&mut self, vni: Vni, mac: Mac, port: IfIndex, ips: &[IpAddr], at: Time) {
        // A host whose hypervisor has said that it leaves is not asked (PIT-04).
        if self.duplicated.asks.len() < ASKS && !self.is_released(vni, mac, Some(port)) {
            self.duplicated.asks.extend(ips.iter().map(|ip| (at + SETTLE, vni, mac, port, *ip)));
        }
    }

    pub(super) fn found(&mut self, key: Key, f: Found, at: Time) -> bool {
        self.journal.count("duplicates_found");
        if self.duplicated.found.len() >= FOUND {
            self.journal.count("duplicates_over_limit");
            return false;
        }
        self.revision += 1;
        let event = Event::Duplicate {
            vni: key.0,
            address: key.1,
            owners: f.owners.clone(),
            port: self.dev_name(f.port),
            action: f.action,
        };
        self.journal.event(event, at);
        self.duplicated.due.insert((at + ASK_EVERY, key));
        self.duplicated.found.insert(key, f);
        match key.1 {
            About::Mac(mac) => self.duplicated.macs.remove(&(key.0, mac)).is_some(),
            About::Ip(ip) => self.duplicated.ips.remove(&(key.0, ip)).is_some(),
        };
        true
    }

    /// Any frame of our side of a duplicate is a sign of life; the bridge may not show it any more.
    pub(super) fn duplicate_heard(&mut self, vni: Vni, mac: Mac, port: IfIndex, ip: Option<IpAddr>) {
        if self.duplicated.found.is_empty() {
            return;
        }
        for key in [Some(About::Mac(mac)), ip.map(About::Ip)].into_iter().flatten() {
            if let Some(f) = self.duplicated.found.get_mut(&(vni, key))
                && f.port == port
                && f.mac == mac
            {
                f.unanswered = 0;
            }
        }
    }

    pub(super) fn due_duplicates(&mut self, at: Time) {
        while let Some(&ask) = self.duplicated.asks.first()
            && ask.0 <= at
        {
            self.duplicated.asks.pop_first();
            let (_, vni, mac, port, ip) = ask;
            self.probe_on(vni, mac, ip, port);
        }
        while let Some(&(t, key)) = self.duplicated.due.first()
            && t <= at
        {
            self.duplicated.due.pop_first();
            self.review_duplicate(key, at);
        }
        let window = self.window();
        while let Some(&(t, key)) = self.duplicated.expiry.front()
            && t <= at
        {
            self.duplicated.expiry.pop_front();
            let last = match key.1 {
                About::Mac(m) => self.duplicated.macs.get(&(key.0, m)).map(Contest::last),
                About::Ip(ip) => self.duplicated.ips.get(&(key.0, ip)).map(Contest::last),
            };
            match (last, key.1) {
                (Some(last), _) if at.since(last) < window => {
                    // Later than its turn at most by one window, and the queue stays in order.
                    self.duplicated.expiry.push_back((at + window, key));
                }
                (Some(_), About::Mac(m)) => drop(self.duplicated.macs.remove(&(key.0, m))),
                (Some(_), About::Ip(ip)) => drop(self.duplicated.ips.remove(&(key.0, ip))),
                (None, _) => {}
            }
        }
    }

    /// Asks our side of a duplicate, and sees whether it is one still (EVPN-MOB-16).
    fn review_duplicate(&mut self, key: Key, at: Time) {
        let other_gone = match key.1 {
            About::Ip(ip) => self.other_side_is_gone(key.0, ip, UNANSWERED),
            About::Mac(_) => false,
        };
        let (recovery, conflict) = (self.config.mobility.duplicates.recovery, self.config.arp.conflict_time);
        let Some(f) = self.duplicated.found.get_mut(&key) else { return };
        let recovery = if f.other_side.is_some() { Some(conflict) } else { recovery };
        let why = if !self.taps.contains_key(&f.port) {
            Some(("its port is gone", false))
        } else if recovery.is_some_and(|r| at.since(f.since) >= r) {
            Some(("its recovery time is over", true))
        } else if f.unanswered >= UNANSWERED {
            Some(("the host here is silent", false))
        } else if other_gone {
            Some(("the other host is silent", true))
        } else if !f.frozen() && at.since(f.changed) >= QUIET {
            Some(("it has stayed with one owner", false))
        } else {
            None
        };
        if let Some((why, ask)) = why {
            self.let_go(key, why, ask, at);
            self.decide_again(key, at);
            return;
        }
        // A host without a known address cannot be asked; it stays until its owner withdraws it, or its time is over. So does
        // one that is not asked now, because it may be checking its address (PIT-16).
        let (ips, mac, port) = (f.ips.clone(), f.mac, f.port);
        let mut asked = false;
        for ip in ips {
            asked |= self.probe_on(key.0, mac, ip, port);
        }
        if let Some(f) = self.duplicated.found.get_mut(&key) {
            f.unanswered += u8::from(asked);
        }
        self.duplicated.due.insert((at + ASK_EVERY, key));
    }

    /// Not a duplicate any more. With `ask`, our host is asked as soon as the kernel lets its answer in: if it is
    /// there, it claims the address with a sequence above the other's (EVPN-XMOB-17).
    pub(super) fn let_go(&mut self, key: Key, why: &str, ask: bool, at: Time) {
        let Some(f) = self.duplicated.found.remove(&key) else { return };
        self.duplicated.due.retain(|(_, k)| *k != key);
        self.revision += 1;
        let (vni, address) = key;
        if let About::Mac(mac) = address {
            if self.duplicated.blocked.remove(&(f.port, mac)) {
                self.journal.push(Output::Blocked(self.duplicated.blocked.clone()));
            }
            self.release_row(vni, mac);
        }
        if f.mute {
            self.tell_contested(vni, f.mac);
        }
        if ask {
            self.ask_soon(vni, f.mac, f.port, &f.ips, at);
        }
        self.journal.event(Event::DuplicateEnded { vni, address, why: why.to_owned() }, at);
    }

    fn decide_again(&mut self, (vni, address): Key, at: Time) {
        match address {
            About::Mac(mac) => self.decide_mac(vni, mac, at),
            About::Ip(ip) => self.decide_ip(vni, ip, at),
        }
    }

    /// `vtepd clear duplicate`.
    pub(super) fn clear_duplicate(&mut self, vni: Vni, address: About, at: Time) -> Reply {
        if !self.segments.contains_key(&vni) {
            return Reply::Error(format!("VNI {vni} is not configured here; see `vtepd show vnis`"));
        }
        let key = (vni, address);
        let Some(f) = self.duplicated.found.get(&key) else {
            return Reply::Error(format!(
                "{address} is no duplicate in VNI {vni} as far as this VTEP has found out; see `vtepd show duplicates`"
            ));
        };
        let port = self.dev_name(f.port);
        self.let_go(key, "cleared by an operator", true, at);
        self.decide_again(key, at);
        Reply::Cleared(format!(
            "{address} in VNI {vni} is let go; the host behind {port} gets it if it answers, otherwise it stays where it is"
        ))
    }

    pub(super) fn duplicates(
        &self,
        after: Option<Key>,
        limit: usize,
        at: Time,
    ) -> (Vec<(Key, DuplicateView)>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rows = Vec::new();
        for (key, f) in self.duplicated.found.range((from, Unbounded)) {
            if rows.len() == limit {
                return (rows, true);
            }
            let (vni, address) = *key;
            let mac = match address {
                About::Mac(m) => Some(m),
                About::Ip(ip) => self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac),
            };
            let holder = self.segments.get(&vni).zip(mac).map_or(Place::None, |(s, m)| self.place_of(s, m));
            let row = DuplicateView {
                vni,
                address,
                owners: f.owners.clone(),
                holder,
                port: self.dev_name(f.port),
                since: at.since(f.since),
                state: f.state().to_owned(),
                action: f.action,
            };
            rows.push((*key, row));
        }
        (rows, false)
    }
}
