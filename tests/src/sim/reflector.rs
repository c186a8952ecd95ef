//! Route reflectors as FRR is one: every route of a client goes to the others 50 ms later, with ORIGINATOR_ID and
//! CLUSTER_LIST (RFC 4456), and is taken back when its client is lost.

use super::vtep::address;
use super::world::{Ev, Fault, World};
use bytes::Bytes;
use evpn::node::ConnEvent;
use evpn::types::{Asn, Span, Time};
use evpn::wire::{
    Attrs, Capability, DecodeCtx, EncodeCtx, EvpnRoute, Family, Message, NextHop, Nlri, Open, RouteKey,
    UpdateBuilder, decode, end_of_rib, frame_len, keepalive,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// FRR's route work queue holds this long.
const PAUSE: Span = Span::millis(50);

/// One client's session.
struct Client {
    /// Connection and end.
    at: (usize, usize),
    buffer: Vec<u8>,
    established: bool,
    heard: Time,
    due: BTreeSet<RouteKey>,
    /// Nothing has been sent yet.
    fresh: bool,
}

struct Route {
    from: usize,
    nlri: EvpnRoute,
    attrs: Attrs,
    next_hop: NextHop,
}

/// A reflector.
#[derive(Default)]
pub(super) struct Reflector {
    pub(super) alive: bool,
    clients: BTreeMap<usize, Client>,
    routes: BTreeMap<RouteKey, Route>,
    /// Work waits already.
    paused: bool,
    epoch: u32,
}

fn id(host: usize) -> Ipv4Addr {
    match address(host) {
        IpAddr::V4(a) => a,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

impl World {
    fn rr(&mut self, host: usize) -> &mut Reflector {
        let n = host - self.plan.fabric.nodes;
        &mut self.reflectors[n]
    }

    pub(super) fn rr_boot(&mut self, host: usize) {
        let rr = self.rr(host);
        rr.alive = true;
        rr.epoch += 1;
        let epoch = rr.epoch;
        self.push(Span::secs(1), Ev::Tick(host, epoch));
    }

    /// The reflector dies; its sockets are closed.
    pub(super) fn rr_kill(&mut self, host: usize, time: Span) {
        if std::mem::take(&mut self.rr(host).alive) {
            let clients = std::mem::take(&mut self.rr(host).clients);
            self.rr(host).routes.clear();
            self.rr(host).paused = false;
            for c in clients.into_values() {
                self.close(c.at.0, c.at.1);
            }
        }
        self.begin(Fault::Down(host), time);
    }

    /// Something happened on a connection of a reflector.
    pub(super) fn rr_event(&mut self, host: usize, tcp: usize, side: usize, event: ConnEvent) {
        let client = self.tcps[tcp].ends[1 - side].host;
        match event {
            ConnEvent::Accepted { .. } => {
                // FRR drops the older of two connections from the same peer.
                self.rr_lost(host, client, true);
                let heard = self.now;
                let new = Client {
                    at: (tcp, side),
                    buffer: Vec::new(),
                    established: false,
                    heard,
                    due: BTreeSet::new(),
                    fresh: true,
                };
                self.rr(host).clients.insert(client, new);
                let open = Open {
                    my_as: 65000,
                    hold_time: self.plan.fabric.hold as u16,
                    id: id(host),
                    capabilities: vec![
                        Capability::Multiprotocol(Family::EVPN),
                        Capability::RouteRefresh,
                        Capability::As4(Asn(65000)),
                    ],
                    extended: false,
                };
                let bytes = Message::Open(open).encode(&EncodeCtx::default());
                self.transmit(tcp, side, bytes);
            }
            ConnEvent::Bytes(b) => self.rr_bytes(host, client, (tcp, side), &b),
            ConnEvent::Closed { .. } => {
                if self.rr(host).clients.get(&client).is_some_and(|c| c.at == (tcp, side)) {
                    self.rr_lost(host, client, false);
                }
            }
            ConnEvent::Connected { .. } | ConnEvent::Failed { .. } | ConnEvent::Room(_) => {}
        }
    }

    /// A client is gone, and its routes with it.
    fn rr_lost(&mut self, host: usize, client: usize, close: bool) {
        let rr = self.rr(host);
        let Some(c) = rr.clients.remove(&client) else { return };
        let keys: Vec<RouteKey> =
            rr.routes.iter().filter(|(_, r)| r.from == client).map(|(k, _)| k.clone()).collect();
        for k in keys {
            rr.routes.remove(&k);
            for other in rr.clients.values_mut() {
                other.due.insert(k.clone());
            }
        }
        if close {
            self.close(c.at.0, c.at.1);
        }
        self.rr_pause(host);
    }

    fn rr_pause(&mut self, host: usize) {
        let rr = self.rr(host);
        if rr.alive && !std::mem::replace(&mut rr.paused, true) {
            let epoch = rr.epoch;
            self.push(PAUSE, Ev::Reflect(host, epoch));
        }
    }

    fn rr_bytes(&mut self, host: usize, client: usize, at: (usize, usize), octets: &[u8]) {
        let now = self.now;
        let Some(c) = self.rr(host).clients.get_mut(&client).filter(|c| c.at == at) else { return };
        c.heard = now;
        c.buffer.extend_from_slice(octets);
        let ctx = DecodeCtx { ibgp: true, ..DecodeCtx::default() };
        loop {
            let Some(c) = self.rr(host).clients.get_mut(&client) else { return };
            let Ok(Some(len)) = frame_len(&c.buffer, 4096) else { return };
            if c.buffer.len() < len {
                return;
            }
            let message: Vec<u8> = c.buffer.drain(..len).collect();
            match decode(&message, &ctx).map(|d| d.message) {
                Ok(Message::Open(_)) => self.transmit(at.0, at.1, keepalive()),
                Ok(Message::Keepalive) => {
                    if !std::mem::replace(&mut c.established, true) {
                        let keys: Vec<RouteKey> = self.rr(host).routes.keys().cloned().collect();
                        if let Some(c) = self.rr(host).clients.get_mut(&client) {
                            c.due.extend(keys);
                        }
                        self.rr_pause(host);
                    }
                }
                Ok(Message::Update(u)) => {
                    let mut keys = Vec::new();
                    let rr = self.rr(host);
                    if let Some(Nlri::Evpn(l)) = u.unreach.map(|m| m.nlri) {
                        for n in l {
                            rr.routes.remove(&n.route.key());
                            keys.push(n.route.key());
                        }
                    }
                    if let Some(m) = u.reach
                        && let Nlri::Evpn(l) = m.nlri
                    {
                        for n in l {
                            let (attrs, next_hop) = (u.attrs.clone(), m.next_hop);
                            keys.push(n.route.key());
                            let new = Route { from: client, nlri: n.route, attrs, next_hop };
                            rr.routes.insert(new.nlri.key(), new);
                        }
                    }
                    for (_, other) in rr.clients.iter_mut().filter(|(n, _)| **n != client) {
                        other.due.extend(keys.iter().cloned());
                    }
                    self.rr_pause(host);
                }
                Ok(Message::Notification(_)) | Err(_) => return self.rr_lost(host, client, true),
                Ok(Message::Refresh(_)) => {}
            }
        }
    }

    /// The pause is over: everybody gets what is due.
    pub(super) fn reflect(&mut self, host: usize, epoch: u32) {
        let rr = self.rr(host);
        if rr.epoch != epoch || !rr.alive {
            return;
        }
        rr.paused = false;
        let mut out: Vec<((usize, usize), Bytes)> = Vec::new();
        for (n, c) in rr.clients.iter_mut().filter(|(_, c)| c.established) {
            for k in std::mem::take(&mut c.due) {
                let update = match rr.routes.get(&k) {
                    Some(r) if r.from == *n => continue,
                    Some(r) => {
                        let mut attrs = r.attrs.clone();
                        attrs.originator_id = Some(id(r.from));
                        attrs.cluster_list = vec![id(host)];
                        attrs.local_pref = Some(100);
                        let mut b = UpdateBuilder::reach(&attrs, r.next_hop, 4096, true);
                        b.push(&r.nlri);
                        b.finish()
                    }
                    None => {
                        let mut b = UpdateBuilder::unreach(4096);
                        b.push(&k.to_withdraw_route());
                        b.finish()
                    }
                };
                out.extend(update.map(|u| (c.at, u)));
            }
            if std::mem::take(&mut c.fresh) {
                out.push((c.at, end_of_rib(Family::EVPN)));
            }
        }
        for ((tcp, side), bytes) in out {
            self.transmit(tcp, side, bytes);
        }
    }

    /// Once a second: KEEPALIVEs, and clients that have not been heard for the hold time.
    pub(super) fn rr_tick(&mut self, host: usize, epoch: u32) {
        let (now, hold) = (self.now, Span::secs(self.plan.fabric.hold));
        let rr = self.rr(host);
        if rr.epoch != epoch || !rr.alive {
            return;
        }
        let lost: Vec<usize> =
            rr.clients.iter().filter(|(_, c)| now.since(c.heard) > hold).map(|(n, _)| *n).collect();
        let all: Vec<(usize, usize)> = rr.clients.values().filter(|c| c.established).map(|c| c.at).collect();
        for (tcp, side) in all {
            self.transmit(tcp, side, keepalive());
        }
        for client in lost {
            self.rr_lost(host, client, true);
        }
        self.push(Span::secs(1), Ev::Tick(host, epoch));
    }
}
