//! Answers that wait until the peers' sockets have what was originated.

use super::prepare::{Key, No, conflict, plain};
use super::{Node, Output, Reply};
use crate::hosts::{Binding, Owner};
use crate::types::{ConnId, PeerId, Span, Time};
use crate::wire::{Family, RouteKey};
use std::net::IpAddr;

/// A peer whose socket has not taken the routes by then lags, and is named.
const SENT_WITHIN: Span = Span::secs(1);

/// A peer: its number, its connection, and once the routes are encoded, the octet after the last of them.
pub(super) type Receiver = (usize, ConnId, Option<u64>);

/// An answer to *activate*.
#[derive(Debug)]
pub(super) struct Handing {
    id: u64,
    key: Key,
    keys: Vec<RouteKey>,
    left: Vec<Receiver>,
    sent: Vec<IpAddr>,
    notes: Vec<String>,
    pub(super) until: Time,
}

impl Handing {
    pub(super) fn new(
        id: u64,
        key: Key,
        keys: Vec<RouteKey>,
        left: Vec<Receiver>,
        notes: Vec<String>,
        at: Time,
    ) -> Self {
        Self { id, key, keys, left, sent: Vec::new(), notes, until: at + SENT_WITHIN }
    }
}

impl Node {
    /// Answers where every peer has the routes, or where the time is up.
    pub(super) fn due_handings(&mut self, at: Time) {
        if self.prepare.handings.is_empty() {
            return;
        }
        let handings = core::mem::take(&mut self.prepare.handings);
        for mut h in handings {
            self.look_after(&mut h);
            if h.left.is_empty() || h.until <= at {
                let reply = self.handed(h.key, &h);
                match reply {
                    Ok(reply) => self.journal.push(Output::Reply { id: h.id, reply: Reply::Move(reply) }),
                    Err(no) => self.refuse_move(h.id, no),
                }
            } else {
                self.prepare.handings.push(h);
            }
        }
    }

    /// Which peers' sockets have it by now.
    fn look_after(&self, h: &mut Handing) {
        let (keys, sent, notes) = (&h.keys, &mut h.sent, &mut h.notes);
        h.left.retain_mut(|(i, conn, mark)| {
            let Some(peer) = self.peers.get(*i) else { return false };
            let address = peer.config.address;
            let Some((_, agreed)) = peer.up.as_ref().filter(|(c, _)| c == conn) else {
                notes.push(format!("neighbour {address} went down meanwhile"));
                return false;
            };
            if !agreed.families.contains(&Family::EVPN) {
                notes.push(format!("neighbour {address} does not speak L2VPN EVPN"));
                return false;
            }
            let Some(c) = self.conns.get(conn) else { return false };
            if mark.is_none() && !keys.iter().any(|k| self.rib.is_due(PeerId(*i as u32), k)) {
                *mark = Some(c.given);
            }
            let has = mark.is_some_and(|m| c.taken >= m);
            if has {
                sent.push(address);
            }
            !has
        });
    }

    fn handed(&self, key: Key, h: &Handing) -> Result<super::MoveReply, No> {
        let (vni, mac) = key;
        let local = match self.owner_now(key) {
            Some(Owner::Local(l)) => l,
            Some(Owner::Remote(r)) => {
                return Err(conflict(format!("{mac} was activated, and then lost to {}", r.claim.vtep)));
            }
            None => return Err(conflict(format!("{mac} was activated, and then went away"))),
        };
        let mut reply = plain(Some(vni), mac, "active", h.notes.clone());
        reply.seq = Some(local.seq);
        if let Some(seg) = self.segments.get(&vni) {
            let ours = |ip: &IpAddr| seg.hosts.binding(*ip).is_some_and(Binding::is_local);
            reply.ips = seg.hosts.ips_of(mac).into_iter().filter(ours).collect();
        }
        reply.sent_to.clone_from(&h.sent);
        let lagging = h.left.iter().filter_map(|(i, ..)| self.peers.get(*i));
        reply.lagging = lagging.map(|p| p.config.address).collect();
        for p in self.peers.iter().filter(|p| p.up.is_none() && p.expected()) {
            let note = format!("neighbour {} is down and was not told", p.config.address);
            if !reply.notes.iter().any(|n| n.starts_with(&format!("neighbour {} ", p.config.address))) {
                reply.notes.push(note);
            }
        }
        Ok(reply)
    }
}
