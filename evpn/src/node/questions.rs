//! Questions to hosts that are repeated until they are answered: signs of life that name an address (PROXY-LEARN-02,
//! HOST-DAD-01, HOST-ARP-01) and bindings under suspicion. The answer is learned by the ordinary way.

use super::Node;
use super::frames::FIRST_PROBE;
use crate::hosts::{Binding, BindingOrigin};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

/// Between two questions of the same host for the same address.
pub(super) const AGAIN: Span = Span::secs(1);
/// After so many nobody is there.
pub(super) const TIMES: u8 = 3;
/// Open questions at a time; further ones are not put.
const LIMIT: usize = 4096;
/// The same for one MAC: whoever names many addresses does not keep others from being asked.
const PER_MAC: usize = 8;
/// Put per flush.
const PER_FLUSH: usize = 64;
/// A port that comes up is asked for whom it had such a while before: as long as bridges keep rows.
const FORMER: Span = Span::secs(300);
/// Such bindings remembered for each port, and for all; the oldest give way.
const GONE_PER_PORT: usize = 256;
const GONE: usize = 8192;

type Key = (Vni, Mac, IpAddr);

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Where it is asked for unless it is known to be elsewhere.
    port: IfIndex,
    next: Time,
    asked: u8,
    since: Time,
    /// It is bound, and is not if nobody answers.
    suspect: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeMap<Key, Open>,
    due: BTreeSet<(Time, Key)>,
    /// Bindings whose MAC has left a port, oldest first.
    gone: BTreeMap<IfIndex, VecDeque<(Time, Key)>>,
    /// The first of each port.
    oldest: BTreeSet<(Time, IfIndex)>,
    gone_len: usize,
}

impl Questions {
    pub(super) fn timeout(&self) -> Option<Time> {
        self.due.first().map(|(t, _)| *t)
    }

    /// Open ones about an address, with who is asked, where, how often so far, when next, and whether it is bound.
    pub(super) fn about(&self, vni: Vni, ip: IpAddr) -> impl Iterator<Item = (Mac, IfIndex, u8, Time, bool)> {
        let of_it = self.open.iter().filter(move |((v, _, i), _)| (*v, *i) == (vni, ip));
        of_it.map(|((_, mac, _), o)| (*mac, o.port, o.asked, o.next, o.suspect))
    }

    fn of_mac(&self, vni: Vni, mac: Mac) -> usize {
        let low = (vni, mac, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.open.range(low..).take_while(|((v, m, _), _)| (*v, *m) == (vni, mac)).count()
    }

    fn put(&mut self, key: Key, o: Open) {
        if let Some(old) = self.open.insert(key, o) {
            self.due.remove(&(old.next, key));
        }
        self.due.insert((o.next, key));
    }

    fn remember(&mut self, port: IfIndex, key: Key, at: Time) {
        let of = self.gone.entry(port).or_default();
        if of.is_empty() {
            self.oldest.insert((at, port));
        }
        of.push_back((at, key));
        let full = of.len() > GONE_PER_PORT;
        self.gone_len += 1;
        if full {
            self.drop_oldest_of(port);
        } else if self.gone_len > GONE
            && let Some((_, port)) = self.oldest.first().copied()
        {
            self.drop_oldest_of(port);
        }
    }

    fn drop_oldest_of(&mut self, port: IfIndex) {
        let Some(of) = self.gone.get_mut(&port) else { return };
        if let Some((t, _)) = of.pop_front() {
            self.oldest.remove(&(t, port));
            self.gone_len -= 1;
        }
        match of.front() {
            Some((t, _)) => drop(self.oldest.insert((*t, port))),
            None => drop(self.gone.remove(&port)),
        }
    }

    /// The port is no more: its index may come back as another one's.
    pub(super) fn forget_port(&mut self, port: IfIndex) {
        self.recall(port, Time(0));
    }

    fn recall(&mut self, port: IfIndex, at: Time) -> Vec<Key> {
        let all = self.gone.remove(&port).unwrap_or_default();
        if let Some((t, _)) = all.front() {
            self.oldest.remove(&(*t, port));
        }
        self.gone_len -= all.len();
        all.into_iter().filter(|(t, _)| at.since(*t) < FORMER).map(|(_, k)| k).collect()
    }
}

impl Node {
    /// Has a host asked for an address, from some time on, until it answers or has not answered three times. A later time
    /// puts a question off that has not been put yet. False: too many are open.
    pub(super) fn question(
        &mut self,
        vni: Vni,
        mac: Mac,
        ip: IpAddr,
        port: IfIndex,
        first: Time,
        suspect: bool,
        at: Time,
    ) -> bool {
        let key = (vni, mac, ip);
        if let Some(o) = self.questions.open.get(&key).copied() {
            let next = if o.asked == 0 { o.next.max(first) } else { o.next };
            self.questions.put(key, Open { next, suspect: suspect || o.suspect, ..o });
            return true;
        }
        if self.questions.open.len() >= LIMIT || self.questions.of_mac(vni, mac) >= PER_MAC {
            self.journal.count("questions_refused");
            return false;
        }
        self.questions.put(key, Open { port, next: first, asked: 0, since: at, suspect });
        true
    }

    /// Questions whose time has come: put, answered, or given up.
    pub(super) fn due_open_questions(&mut self, at: Time) {
        let until = self.ask_until(at);
        for _ in 0..PER_FLUSH {
            let Some((_, key)) = self.questions.due.first().copied().filter(|(t, _)| *t <= until) else {
                break;
            };
            self.questions.due.pop_first();
            if let Some(o) = self.questions.open.remove(&key) {
                self.pursue(key, o, at);
            }
        }
    }

    fn pursue(&mut self, key: Key, o: Open, at: Time) {
        let (vni, mac, ip) = key;
        let Some(seg) = self.segments.get(&vni) else { return };
        let bound = seg.hosts.binding(ip).copied().filter(|b| b.mac == mac && b.is_local());
        let entry = seg.hosts.macs.get(&mac);
        // Somebody else has it by now.
        if entry.is_some_and(|e| e.local().is_none()) {
            return;
        }
        let port = entry.and_then(|e| e.local()).map_or(o.port, |l| l.port);
        // Those that came with their MAC are asked for in their own way.
        let settled = |b: Binding| heard_since(&b, o.since) || b.origin == BindingOrigin::Moved;
        if bound.is_some_and(settled) || o.suspect && bound.is_none() {
            return;
        }
        // What was answered may wait to be read.
        if o.asked >= TIMES && !(o.suspect && self.unread.contains(&port)) {
            self.unanswered(vni, ip, bound.is_some() && o.suspect, at);
            return;
        }
        let mute = self.links.get(&port).is_none_or(|l| !(l.up && l.carrier))
            || self.is_released(vni, mac, Some(port));
        if mute || o.suspect && (o.asked >= TIMES || self.awaits_guest(vni, mac)) {
            // The silence of a guest that cannot be asked, or cannot answer, says nothing against what it had.
            let asked = if o.suspect { o.asked } else { o.asked + 1 };
            self.questions.put(key, Open { next: at + AGAIN, asked, ..o });
            return;
        }
        if let IpAddr::V4(v4) = ip
            && let Err(until) = self.arp_sender(vni, mac, port, v4, at)
        {
            self.questions.put(key, Open { next: until, ..o });
            return;
        }
        self.questions.put(key, Open { next: at + AGAIN, asked: o.asked + 1, ..o });
        self.probe_on(vni, mac, ip, port);
    }

    /// Nobody has answered: what was bound is bound no more.
    pub(super) fn unanswered(&mut self, vni: Vni, ip: IpAddr, bound: bool, at: Time) {
        if bound && self.is_static_ip(vni, ip) {
            self.journal.count("static_hosts_silent");
            return;
        }
        if bound {
            self.journal.count("bindings_unanswered");
            self.drop_local_ip(vni, ip, at);
        } else {
            self.journal.count("signs_unanswered");
        }
        self.revision += u64::from(bound);
        self.kept_unanswered(vni, ip);
    }

    /// A MAC is behind another port of ours now. Whether its addresses are, too, only its host can say: it is asked soon,
    /// unless it says so by itself, and what it does not answer for is withdrawn.
    pub(super) fn suspect(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        self.is_past_its_check(vni, mac, at);
        let Some(seg) = self.segments.get(&vni) else { return };
        let heard = |ip: &IpAddr| seg.hosts.binding(*ip).is_some_and(|b| heard_since(b, Time(0)));
        for ip in seg.hosts.ips_of(mac).into_iter().filter(heard).take(PER_MAC).collect::<Vec<_>>() {
            // A MAC that goes to and fro is not asked each time.
            if self.may_ask(vni, ip, at) {
                self.question(vni, mac, ip, port, at + FIRST_PROBE, true, at);
            }
        }
    }

    /// A MAC has left a port with these addresses: if the port comes back, it is asked for them.
    pub(super) fn remember_gone(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], port: IfIndex, at: Time) {
        // What left because its port did is nowhere to be asked for.
        if !self.links.contains_key(&port) {
            return;
        }
        for ip in ips.iter().take(PER_MAC) {
            self.questions.remember(port, (vni, mac, *ip), at);
        }
    }

    /// A port has carrier again: who was behind it before may be there and silent.
    pub(super) fn ask_again_behind(&mut self, port: IfIndex, at: Time) {
        for (vni, mac, ip) in self.questions.recall(port, at) {
            self.question(vni, mac, ip, port, at, false, at);
        }
    }
}

/// Whether a host has confirmed a binding by itself since then.
pub(super) fn heard_since(b: &Binding, since: Time) -> bool {
    matches!(b.origin, BindingOrigin::Arp | BindingOrigin::Nd) && b.confirmed >= since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_come_and_go_fill_no_memory() {
        let vni = Vni::new(100).expect("valid");
        let ip = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
        let mut q = Questions::default();
        for n in 0..2 * GONE as u32 {
            q.remember(IfIndex(n), (vni, Mac([2, 0, 0, 0, 0, 1]), ip), Time(u64::from(n)));
        }
        assert_eq!((q.gone_len, q.gone.len(), q.oldest.len()), (GONE, GONE, GONE), "and no empty list");
        let (first, last) = (q.gone.first_key_value(), q.gone.last_key_value());
        assert_eq!(first.zip(last).map(|(a, b)| (a.0.0, b.0.0)), Some((GONE as u32, 2 * GONE as u32 - 1)));
        let last = IfIndex(2 * GONE as u32 - 1);
        q.forget_port(last);
        assert_eq!((q.gone_len, q.oldest.len(), q.recall(last, Time(0)).len()), (GONE - 1, GONE - 1, 0));
        for n in 0..2 * GONE_PER_PORT as u64 {
            q.remember(last, (vni, Mac([2, 0, 0, 0, 0, 1]), ip), Time(1_000_000 + n));
        }
        assert_eq!(q.recall(last, Time(0)).len(), GONE_PER_PORT);
        assert_eq!((q.gone_len, q.oldest.len()), (q.gone.len(), q.gone.len()));
    }
}
