//! Sessions of FRR-like VTEPs: who calls whom, what comes in, and what goes with a session.

use super::wire::{self, Said};
use super::{COALESCE, FIRST, FrrEv, HOP, Session};
use crate::sim::sniff;
use crate::sim::vtep::address;
use crate::sim::world::{Fault, World};
use evpn::node::ConnEvent;
use evpn::types::ConnId;

impl World {
    /// Nodes call; reflectors, and of two of these the higher number, are called.
    pub(super) fn frr_dial(&mut self, host: usize) {
        let f = self.plan.fabric;
        let to: Vec<usize> = if f.reflectors > 0 {
            (f.nodes..f.nodes + f.reflectors).collect()
        } else {
            (host + 1..FIRST + self.frrs.len()).collect()
        };
        for to in to {
            if !self.frr(host).sessions.contains_key(&to) {
                let at = (self.tcps.len(), 0);
                self.frr_session(host, to, at);
                self.dial(host, ConnId(0), address(to));
            }
        }
    }

    fn frr_session(&mut self, host: usize, to: usize, at: (usize, usize)) {
        let heard = self.now;
        let new = Session { at, buffer: Vec::new(), established: false, open: false, heard };
        self.frr(host).sessions.insert(to, new);
    }

    /// Something happened on a connection.
    pub(in crate::sim) fn frr_event(&mut self, host: usize, tcp: usize, side: usize, event: ConnEvent) {
        let to = self.tcps[tcp].ends[1 - side].host;
        let at = (tcp, side);
        match event {
            ConnEvent::Accepted { .. } => {
                // FRR drops the older of two connections from the same peer.
                self.frr_lost(host, to, true);
                self.frr_session(host, to, at);
                self.frr_greets(host, at);
            }
            ConnEvent::Connected { .. } => self.frr_greets(host, at),
            ConnEvent::Bytes(b) => self.frr_bytes(host, to, at, &b),
            ConnEvent::Closed { .. } | ConnEvent::Failed { .. } => {
                if self.frr(host).sessions.get(&to).is_some_and(|s| s.at == at) {
                    self.frr_lost(host, to, false);
                }
            }
            ConnEvent::Room(_) => {}
        }
    }

    fn frr_greets(&mut self, host: usize, at: (usize, usize)) {
        let open = Self::voice(host).open(self.plan.fabric.hold as u16);
        self.frr_sends(at, &open);
    }

    /// A session is gone, and its routes with it.
    pub(super) fn frr_lost(&mut self, host: usize, to: usize, close: bool) {
        let f = self.frr(host);
        let Some(s) = f.sessions.remove(&to) else { return };
        f.tables.lost(to);
        f.imets.retain(|(_, from), _| *from != to);
        if close {
            self.close(s.at.0, s.at.1);
        }
        self.frr_later(host, HOP, FrrEv::Flood);
        self.frr_turn(host);
        self.look();
    }

    fn frr_bytes(&mut self, host: usize, to: usize, at: (usize, usize), octets: &[u8]) {
        let now = self.now;
        let Some(s) = self.frr(host).sessions.get_mut(&to).filter(|s| s.at == at) else { return };
        s.heard = now;
        s.buffer.extend_from_slice(octets);
        let whole: usize = sniff::messages(&s.buffer).map(<[u8]>::len).sum();
        let octets: Vec<u8> = s.buffer.drain(..whole).collect();
        for m in sniff::messages(&octets) {
            match m.get(18) {
                Some(1) => self.frr_sends(at, &wire::keepalive()),
                Some(2) => self.frr_update(host, to, m),
                Some(3) => return self.frr_lost(host, to, true),
                Some(4) => self.frr_established(host, to, at),
                _ => {}
            }
        }
        self.frr_turn(host);
    }

    fn frr_established(&mut self, host: usize, to: usize, at: (usize, usize)) {
        let Some(s) = self.frr(host).sessions.get_mut(&to) else { return };
        if !std::mem::replace(&mut s.established, true) {
            self.frr_later(host, COALESCE, FrrEv::Open(to, at));
            // Until then nobody can know what is here (D.2-5).
            self.begin(Fault::Repair, COALESCE + HOP);
        }
    }

    fn frr_update(&mut self, host: usize, to: usize, m: &[u8]) {
        let own = address(host);
        let f = self.frr(host);
        let mut flood = false;
        wire::read(m, |said| match said {
            // Its own next hop: not to be used (C.6).
            Said::MacIp(_, Some(p)) if p.vtep == own => {}
            Said::MacIp(key, path) => f.tables.update(to, key, path),
            Said::Imet(rd, vtep) => {
                flood = true;
                match vtep {
                    Some(v) => f.imets.insert((rd, to), v),
                    None => f.imets.remove(&(rd, to)),
                };
            }
        });
        if flood {
            self.frr_later(host, HOP, FrrEv::Flood);
        }
    }
}
