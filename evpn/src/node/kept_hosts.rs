//! Local bindings over a restart of the daemon (PROXY-MAINT-02, EVPN-IRB-15): a host that never speaks first would be lost until
//! it does. The driver keeps them; after the start each is asked by a unicast probe, at the pace of the configuration, where
//! the forwarding table has its MAC or on the port where it was. Who answers is bound, and advertised, by the ordinary way; who
//! does not is forgotten.

use super::{Node, Output};
use crate::hosts::{Binding, KeptHost};
use crate::mobility::PortMark;
use crate::types::{IfIndex, Span, Time, Vni};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Until one that cannot be asked now is looked at again.
const LATER: Span = Span::secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KeptHosts {
    /// To be asked.
    waiting: BTreeMap<Vni, VecDeque<KeptHost>>,
    /// Asked, and not heard since.
    asked: BTreeMap<(Vni, IpAddr), KeptHost>,
    /// When the next one may be asked.
    next: Time,
}

impl KeptHosts {
    /// All have been asked, and have answered or not.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }

    /// When somebody is to be asked next.
    pub(super) fn timeout(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.next)
    }
}

impl Node {
    /// What an earlier run had bound. Those of a VNI that is not configured any more are let go.
    pub(super) fn hosts_restored(&mut self, hosts: Vec<KeptHost>) {
        let mut gone = Vec::new();
        for h in hosts.into_iter().filter(|h| h.here).take(KeptHost::LIMIT) {
            if self.segments.contains_key(&h.vni) {
                self.journal.count("hosts_restored");
                self.kept_hosts.waiting.entry(h.vni).or_default().push_back(h);
            } else {
                gone.push(KeptHost { here: false, ..h });
            }
        }
        self.push_kept(gone);
    }

    /// Once per flush: what has changed of the local bindings.
    pub(super) fn keep_hosts(&mut self) {
        let mut changed = Vec::new();
        for (vni, seg) in &mut self.segments {
            for (ip, mac) in seg.hosts.take_locals_changed() {
                self.kept_hosts.asked.remove(&(*vni, ip));
                let bound = seg.hosts.binding(ip).filter(|b| b.is_local()).map(|b| b.mac);
                let port = bound.and_then(|m| seg.hosts.macs.get(&m)?.local()).map(|l| l.port);
                let name = port.and_then(|p| self.links.get(&p)).map_or("", |l| &l.name);
                let mac = bound.unwrap_or(mac);
                let port = PortMark::of(name);
                changed.push(KeptHost { vni: *vni, ip, mac, port, here: bound.is_some() });
            }
        }
        self.push_kept(changed);
    }

    fn push_kept(&mut self, hosts: Vec<KeptHost>) {
        if !hosts.is_empty() {
            self.journal.push(Output::KeepHosts(hosts));
        }
    }

    /// Asks those whose turn has come, once the tables have been read.
    pub(super) fn due_kept_hosts(&mut self, at: Time) {
        if !self.synced {
            return;
        }
        let gap = Span(1_000_000_000 / u64::from(self.config.arp.probe_rate.max(1)));
        while self.kept_hosts.timeout().is_some_and(|t| t <= at) {
            let ready = |vni: &Vni| self.segments.get(vni).is_some_and(|s| s.ready);
            let Some(vni) = self.kept_hosts.waiting.keys().copied().find(ready) else {
                self.kept_hosts.next = at + LATER;
                return;
            };
            let Some(h) = self.next_kept(vni) else { continue };
            match self.where_to_ask(&h) {
                Where::Known => {}
                Where::Nowhere => self.push_kept(vec![KeptHost { here: false, ..h }]),
                // What it has said may wait to be read.
                Where::On(port) if self.unread.contains(&port) => {
                    self.kept_hosts.waiting.entry(vni).or_default().push_back(h);
                    self.kept_hosts.next = at + gap;
                }
                Where::On(port) => {
                    self.had_an_address(vni, h.mac, at);
                    if self.question(vni, h.mac, h.ip, port, at, false, at) {
                        self.journal.count("restored_hosts_asked");
                        self.kept_hosts.asked.insert((vni, h.ip), h);
                        // Whoever looks rarely makes up for nothing: there is no hurry.
                        self.kept_hosts.next = at + gap;
                    } else {
                        self.kept_hosts.waiting.entry(vni).or_default().push_back(h);
                        self.kept_hosts.next = at + LATER;
                    }
                }
            }
        }
    }

    fn next_kept(&mut self, vni: Vni) -> Option<KeptHost> {
        let queue = self.kept_hosts.waiting.get_mut(&vni)?;
        let h = queue.pop_front();
        if queue.is_empty() {
            self.kept_hosts.waiting.remove(&vni);
        }
        h
    }

    fn where_to_ask(&self, h: &KeptHost) -> Where {
        let Some(seg) = self.segments.get(&h.vni) else { return Where::Nowhere };
        if seg.hosts.binding(h.ip).is_some_and(Binding::is_local) {
            return Where::Known;
        }
        match seg.hosts.macs.get(&h.mac) {
            Some(e) => e.local().map_or(Where::Nowhere, |l| Where::On(l.port)),
            None => self.port_marked(h.vni, h.port).map_or(Where::Nowhere, Where::On),
        }
    }

    fn port_marked(&self, vni: Vni, mark: PortMark) -> Option<IfIndex> {
        let of_vni = self.taps.iter().filter(|(_, v)| **v == vni).map(|(p, _)| *p);
        let mut named = of_vni.filter(|p| self.links.get(p).is_some_and(|l| PortMark::of(&l.name) == mark));
        named.next()
    }

    /// A host has not answered: if it was asked because of an earlier run, that is over.
    pub(super) fn kept_unanswered(&mut self, vni: Vni, ip: IpAddr) {
        if let Some(h) = self.kept_hosts.asked.remove(&(vni, ip)) {
            self.push_kept(vec![KeptHost { here: false, ..h }]);
        }
    }
}

/// Where a host is asked.
enum Where {
    On(IfIndex),
    /// It has spoken by itself.
    Known,
    /// Its MAC is behind another VTEP, or its port is gone.
    Nowhere,
}
