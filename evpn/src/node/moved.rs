//! Telling moves apart: which kind a change of owner is, and when a change is a move at all.
//!
//! Only what this VTEP knows counts. A MAC that appears where nobody stood for it any more is a cold move if
//! its last owner is remembered and was another; after a restart of the daemon, or when the table of last
//! owners has forgotten it, it is a new MAC.

use super::moves::{Opening, Tell};
use super::past::{Gone, Unbound};
use super::view::{MoveKind, Place};
use super::{Node, Segment};
use crate::hosts::{Binding, Local, Owner};
use crate::mobility::Claim;
use crate::types::{Mac, Seq, Span, Time, Vni};
use crate::wire::RouteKey;
use std::net::IpAddr;

/// A MAC that its VTEP has not heard for so long is silent: when it is lost then, the move was a warm one.
/// Less than the bridge's ageing time, after which it would have been withdrawn.
const SILENT: Span = Span::secs(60);
/// An address that joins a MAC so soon after its move belongs to the move.
const NEW_IP: Span = Span::secs(10);

impl Node {
    /// Owner of a MAC with its sequence, as a place.
    fn owner_of(&self, seg: &Segment, mac: Mac) -> (Place, Seq) {
        match seg.hosts.macs.get(&mac).map(|e| e.owner) {
            Some(Owner::Local(l)) => (Place::Port(self.dev_name(l.port)), l.seq),
            Some(Owner::Remote(r)) => (Place::Vtep(r.claim.vtep), r.claim.seq),
            None => (Place::None, Seq::ZERO),
        }
    }

    /// A MAC is ours now. `remote`: whom we took it from.
    pub(super) fn record_arrival(
        &mut self,
        vni: Vni,
        mac: Mac,
        remote: Option<Claim>,
        ips: Vec<IpAddr>,
        seen: (Time, &'static str),
        at: Time,
    ) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        let (to, seq) = self.owner_of(seg, mac);
        let last = self.moves.past.macs.get((vni, mac)).filter(|g| self.is_recent(g.at, at));
        let (kind, from, seq_before) = match (remote, last) {
            (Some(r), _) if !r.stale => (MoveKind::Hot, Place::Vtep(r.vtep), r.seq),
            (Some(r), _) => (MoveKind::Cold, Place::Vtep(r.vtep), r.seq),
            (None, Some(g)) if g.place != to => (MoveKind::Cold, g.place.clone(), g.seq),
            (None, _) => {
                self.moves.past.macs.remove((vni, mac));
                return false;
            }
        };
        let kernel = seg.mac_key(mac).is_some_and(|k| self.want.is_dirty(&k));
        // An activation is decided on once the kernel has the row.
        let acked = self.activation_sign(vni, mac).map(|_| at);
        let tell = routes_to_tell(seg, mac, &ips);
        let opening = Opening {
            kind,
            vni,
            mac,
            mac_before: None,
            ips,
            role: "arrived",
            cause: seen.1,
            from,
            to,
            seq_before,
            seq,
            silent: None,
            seen: seen.0,
            kernel,
            acked,
            tell,
            hosts: false,
        };
        self.moves.past.macs.remove((vni, mac));
        self.moves.open(opening, at, &mut self.journal);
        true
    }

    /// A MAC of ours went to a VTEP. `was`: our side of it, and when it was heard last.
    pub(super) fn record_loss(
        &mut self,
        vni: Vni,
        mac: Mac,
        (was, heard): (Local, Time),
        ips: Vec<IpAddr>,
        best: &Claim,
        at: Time,
    ) {
        let silent = self.news_at.since(heard);
        let ready = self.segments.get(&vni).is_some_and(|s| s.ready && s.bridge.is_some());
        let advertised = self.segments.get(&vni).is_some_and(|s| s.advertised);
        let opening = Opening {
            kind: if silent >= SILENT { MoveKind::Warm } else { MoveKind::Hot },
            vni,
            mac,
            mac_before: None,
            ips,
            role: "left",
            cause: "bgp",
            from: Place::Port(self.dev_name(was.port)),
            to: Place::Vtep(best.vtep),
            seq_before: was.seq,
            seq: best.seq,
            silent: Some(silent),
            seen: self.news_at,
            kernel: ready,
            acked: None,
            tell: if advertised { Tell::Later } else { Tell::Nothing },
            hosts: false,
        };
        self.moves.open(opening, at, &mut self.journal);
    }

    /// A MAC is behind another VTEP than before (`old`), or appeared behind one.
    pub(super) fn record_remote(&mut self, vni: Vni, mac: Mac, old: Option<Claim>, new: &Claim, at: Time) {
        let to = Place::Vtep(new.vtep);
        let last = self.moves.past.macs.remove((vni, mac));
        let (kind, from, seq_before) = match (old, last) {
            (Some(o), _) if !o.stale => (MoveKind::Hot, Place::Vtep(o.vtep), o.seq),
            (Some(o), _) => (MoveKind::Cold, Place::Vtep(o.vtep), o.seq),
            (None, Some(g)) if g.place != to && self.is_recent(g.at, at) => (MoveKind::Cold, g.place, g.seq),
            (None, _) => return,
        };
        let Some(seg) = self.segments.get(&vni) else { return };
        let opening = Opening {
            kind,
            vni,
            mac,
            mac_before: None,
            ips: seg.hosts.ips_of(mac),
            role: if matches!(from, Place::Port(_)) { "left" } else { "remote" },
            cause: "bgp",
            from,
            to,
            seq_before,
            seq: new.seq,
            silent: None,
            seen: self.news_at,
            kernel: seg.mac_key(mac).is_some_and(|k| self.want.is_dirty(&k)),
            acked: None,
            tell: Tell::Nothing,
            hosts: false,
        };
        self.moves.open(opening, at, &mut self.journal);
    }

    /// Nobody has this MAC any more; this was its last owner.
    pub(super) fn note_gone(&mut self, vni: Vni, mac: Mac, place: Place, seq: Seq, at: Time) {
        self.moves.past.macs.insert((vni, mac), Gone { place, seq, at });
    }

    /// These addresses have lost their binding to a MAC that was there.
    pub(super) fn note_unbound(
        &mut self,
        vni: Vni,
        mac: Mac,
        ips: &[IpAddr],
        place: &Place,
        seq: Seq,
        at: Time,
    ) {
        for ip in ips {
            let u = Unbound { mac, place: place.clone(), seq, at };
            self.moves.past.unbound(vni, *ip, u);
        }
    }

    /// The owner of a MAC as it is now, or its last one, for [`Self::note_unbound`].
    pub(super) fn place_and_seq(&self, vni: Vni, mac: Mac) -> (Place, Seq) {
        let now = self.segments.get(&vni).map(|s| self.owner_of(s, mac)).filter(|(p, _)| *p != Place::None);
        let last = || self.moves.past.macs.get((vni, mac)).map(|g| (g.place.clone(), g.seq));
        now.or_else(last).unwrap_or((Place::None, Seq::ZERO))
    }

    /// An address was bound to a MAC: did it change its MAC, or did a MAC that just moved take a new one?
    /// `old` is its binding just before, `old_owner` the owner of that MAC.
    pub(super) fn record_binding(
        &mut self,
        vni: Vni,
        mac: Mac,
        ip: IpAddr,
        old: Option<(Binding, (Place, Seq))>,
        at: Time,
    ) {
        let heard = self.overheard_before(vni, ip, mac).filter(|(_, then)| self.is_recent(*then, at));
        if let Some((before, _)) = heard {
            self.tell_changed(vni, ip, mac, before, at);
        }
        let last = self.moves.past.ips.remove((vni, ip)).filter(|u| self.is_recent(u.at, at));
        let before = match old {
            Some((b, _)) if b.mac == mac => return,
            Some((b, (place, seq))) => Some(Unbound { mac: b.mac, place, seq, at }),
            None => last,
        };
        let Some(seg) = self.segments.get(&vni) else { return };
        let (to, seq) = self.owner_of(seg, mac);
        let (kind, mac_before, from, seq_before) = match before {
            Some(u) if u.mac == mac => return self.tell_resumed(vni, ip, mac, at),
            Some(u) => (MoveKind::ChangedMac, Some(u.mac), u.place, u.seq),
            None => match self.moves.past.moved.get((vni, mac)) {
                Some(m) if at.since(m.at) < NEW_IP && has_another(seg, mac, ip) => {
                    (MoveKind::NewIp, None, m.from.clone(), m.seq_before)
                }
                Some(_) | None => return,
            },
        };
        let arrived = matches!(to, Place::Port(_));
        let left = !arrived && matches!(from, Place::Port(_));
        let told_of: Option<RouteKey> = match (arrived, left, mac_before) {
            (true, ..) => Some(seg.type2_key(mac, Some(ip))),
            (false, true, Some(before)) => Some(seg.type2_key(before, Some(ip))),
            (false, ..) => None,
        };
        let tell = told_of.filter(|_| seg.advertised).map_or(Tell::Nothing, |k| Tell::Now(vec![k]));
        let kernel = seg.neigh_key(ip).is_some_and(|k| self.want.is_dirty(&k));
        let hosts = mac_before.is_some_and(|before| self.tell_changed(vni, ip, mac, before, at));
        let opening = Opening {
            kind,
            vni,
            mac,
            mac_before,
            ips: vec![ip],
            role: if arrived {
                "arrived"
            } else if left {
                "left"
            } else {
                "remote"
            },
            cause: if arrived { "frame" } else { "bgp" },
            from,
            to,
            seq_before,
            seq,
            silent: None,
            seen: if arrived { at } else { self.news_at },
            kernel,
            acked: None,
            tell,
            hosts,
        };
        self.moves.open(opening, at, &mut self.journal);
    }

    /// Owners of longer ago than sequences are remembered are nobody's last owner any more.
    fn is_recent(&self, then: Time, at: Time) -> bool {
        at.since(then) < self.config.mobility.memory_time
    }
}

/// Keys of our routes for a MAC and these addresses, when the VNI is advertised at all.
fn routes_to_tell(seg: &Segment, mac: Mac, ips: &[IpAddr]) -> Tell {
    if !seg.advertised {
        return Tell::Nothing;
    }
    let keys = std::iter::once(None).chain(ips.iter().copied().map(Some));
    Tell::Now(keys.map(|ip| seg.type2_key(mac, ip)).collect())
}

/// The MAC is known with another address of the same family.
fn has_another(seg: &Segment, mac: Mac, ip: IpAddr) -> bool {
    seg.hosts.ips_of(mac).iter().any(|i| *i != ip && i.is_ipv4() == ip.is_ipv4())
}
