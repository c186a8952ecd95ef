//! Connections among the nodes and from outside, and what is looked at on them.

use super::{Trace, World, vni, vtep};
use bytes::Bytes;
use evpn::node::{ConnEvent, Input, Output};
use evpn::types::{ConnId, Seq, Span};
use evpn::wire::{DecodeCtx, EvpnNlri, EvpnRoute, Message, Nlri};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

impl World {
    /// No sequence reaches a peer that the state directory does not have (EVPN-MOB-12): `kill -9` may come between
    /// any two outputs.
    pub(super) fn check_kept(&mut self, i: usize, bytes: &Bytes) {
        if bytes.get(18) != Some(&2) {
            return;
        }
        let ctx = DecodeCtx { ibgp: true, max_len: 65_535, ..DecodeCtx::default() };
        let Ok(Message::Update(u)) = evpn::wire::decode(bytes, &ctx).map(|d| d.message) else { return };
        let Some(Nlri::Evpn(routes)) = u.reach.map(|r| r.nlri) else { return };
        let seq = u.attrs.mobility().map_or(Seq::ZERO, |(s, _)| s);
        for r in routes {
            let EvpnNlri { route: EvpnRoute::MacIp(m), .. } = r else { continue };
            let (now, h) = (self.now, &mut self.hosts[i]);
            h.announced.push((now, m.mac, seq));
            if seq != Seq::ZERO {
                let kept = h.kept.get(&(vni(), m.mac));
                assert!(
                    kept.is_some_and(|k| !seq.newer_than(k.seq)),
                    "node {i} tells {} with {seq} and has kept {kept:?}",
                    m.mac
                );
            }
        }
    }

    pub(super) fn trace_routes(&mut self, i: usize, conn: ConnId, bytes: &Bytes) {
        let Some(to) = self.hosts[i].conns.get(&conn).map(|p| p.to) else { return };
        let ctx = DecodeCtx { ibgp: true, max_len: 65_535, ..DecodeCtx::default() };
        let Ok(Message::Update(u)) = evpn::wire::decode(bytes, &ctx).map(|d| d.message) else { return };
        let Some(Nlri::Evpn(routes)) = u.reach.map(|r| r.nlri) else { return };
        let seq = u.attrs.mobility().map_or(Seq::ZERO, |(s, _)| s);
        for r in routes {
            if let EvpnNlri { route: EvpnRoute::MacIp(m), .. } = r {
                self.hosts[i].trace.push(Trace::Told(to, m.mac, seq));
            }
        }
    }

    /// A peer's socket takes nothing any more.
    pub fn stall(&mut self, i: usize, to: usize) {
        self.hosts[i].stalled.entry(to).or_default();
    }

    /// It takes everything again, and what has waited.
    pub fn unstall(&mut self, i: usize, to: usize) {
        for (conn, bytes) in self.hosts[i].stalled.remove(&to).unwrap_or_default() {
            self.output(i, Output::Send { conn, bytes });
        }
    }

    /// The connection of a node to another.
    pub fn conn_to(&self, i: usize, to: usize) -> ConnId {
        let up = self.hosts[i].conns.iter().filter(|(_, p)| p.to == to).map(|(c, _)| *c).next();
        up.expect("they are connected")
    }

    /// The other end's id of a connection.
    pub fn other_end(&self, i: usize, conn: ConnId) -> ConnId {
        self.hosts[i].conns[&conn].to_conn
    }

    /// A peer outside connects to a node. What it is sent is in [`World::outside`].
    pub fn accept(&mut self, i: usize, from: IpAddr) -> ConnId {
        self.hosts[i].accepted += 1;
        let conn = ConnId(self.hosts[i].accepted);
        self.outside.insert((i, conn), Vec::new());
        let (remote, local) = (SocketAddr::new(from, 40000), SocketAddr::new(vtep(i), 179));
        for event in [ConnEvent::Accepted { remote, local }, ConnEvent::Room(65536)] {
            self.send(i, Span::ZERO, Input::Conn { conn, event });
        }
        conn
    }

    /// Something happens on a connection from outside, one delay from now.
    pub fn outside_event(&mut self, i: usize, conn: ConnId, event: ConnEvent) {
        self.send(i, self.delay, Input::Conn { conn, event });
    }

    /// Cuts all connections between two nodes, or of one with itself: both see them closed.
    pub fn cut(&mut self, a: usize, b: usize) {
        let gone: VecDeque<ConnId> =
            self.hosts[a].conns.iter().filter(|(_, p)| p.to == b).map(|(c, _)| *c).collect();
        for conn in gone {
            let p = self.hosts[a].conns.remove(&conn).expect("listed");
            self.hosts[b].conns.remove(&p.to_conn);
            let closed = || ConnEvent::Closed { why: "cut".into() };
            self.send(a, Span::ZERO, Input::Conn { conn, event: closed() });
            self.send(b, Span::ZERO, Input::Conn { conn: p.to_conn, event: closed() });
        }
    }
}
