//! What octets and messages from the peer cause (RFC 4271 §6, §8.2.2; RFC 6608).

use super::conn::{Phase, Running};
use super::event::FsmEvent;
use super::fsm::{End, Next, Turn};
use super::{Output, Session, State, graceful, kind, negotiate, ring};
use crate::types::ConnId;
use crate::wire::{
    self, EncodeCtx, Family, Message, MessageError, Notification, Open, Refresh, RefreshKind, cease,
};
use bytes::Bytes;

impl Session {
    pub(super) fn on_bytes(&mut self, id: ConnId, octets: &[u8], t: &mut Turn<'_>) {
        let Some(i) = self.index(id) else { return };
        self.stats.octets_received += octets.len() as u64;
        // Taken out, so that messages can be handled in place while the session changes.
        let mut framer = core::mem::take(&mut self.conns[i].framer);
        let mut rest = octets;
        while let Some(max_len) = self.index(id).map(|i| self.conns[i].max_len()) {
            match framer.cut(&mut rest, max_len) {
                Ok(Some(message)) => self.on_message(id, message, t),
                Ok(None) => break,
                Err(e) => {
                    let at_fault = if framer.held().is_empty() { rest } else { framer.held() };
                    self.ring.fault(t.at, format!("header: {e}"), at_fault);
                    self.on_bad_header(id, e, t);
                    break;
                }
            }
        }
        if let Some(i) = self.index(id) {
            self.conns[i].framer = framer;
        }
    }

    fn on_message(&mut self, id: ConnId, octets: &[u8], t: &mut Turn<'_>) {
        let Some(i) = self.index(id) else { return };
        let (state, kind) = (self.conns[i].state(), octets.get(kind::HEADER - 1).copied().unwrap_or(0));
        self.stats.received.count(kind);
        if kind != kind::KEEPALIVE || state != State::Established {
            self.ring.push(t.at, false, octets);
        }
        let decoded = match wire::decode(octets, &self.conns[i].decode) {
            Ok(d) => d,
            Err(e) => {
                self.ring.fault(t.at, format!("{}: {e}", ring::name(kind)), octets);
                return self.on_bad_message(id, state, kind, e, t);
            }
        };
        match (decoded.message, state) {
            (Message::Notification(n), _) => self.on_notification(id, state, n, t),
            (Message::Open(open), State::OpenSent) => self.on_open(id, open, t),
            (Message::Keepalive, State::OpenConfirm) => self.on_confirmed(i, t),
            (Message::Keepalive, State::Established) => self.rearm_hold(i, t.at),
            (Message::Update(update), State::Established) => {
                self.rearm_hold(i, t.at);
                self.stats.faults += decoded.faults.len() as u64;
                let raw = if let Some(f) = decoded.faults.first() {
                    self.ring.fault(t.at, format!("UPDATE: {} at byte {}", f.what, f.offset), octets);
                    Bytes::copy_from_slice(octets)
                } else {
                    Bytes::new()
                };
                t.out.push(Output::Update {
                    update: Box::new(update),
                    treatment: decoded.treatment,
                    faults: decoded.faults,
                    raw,
                });
            }
            (Message::Refresh(refresh), State::Established) => self.on_refresh(i, refresh, t),
            (Message::Open(_) | Message::Keepalive | Message::Update(_) | Message::Refresh(_), _) => {
                self.on_unexpected(id, state, kind, t);
            }
        }
    }

    /// Event 21 (BGP-HDR-*).
    fn on_bad_header(&mut self, id: ConnId, e: MessageError, t: &mut Turn<'_>) {
        let why = format!("message header: {e}");
        self.end(id, End { send: e.notification, ..End::new(FsmEvent::BgpHeaderErr, why) }, t);
    }

    /// Events 21, 22, 28, or a message that should not be there at all.
    fn on_bad_message(&mut self, id: ConnId, state: State, kind: u8, e: MessageError, t: &mut Turn<'_>) {
        if e.notification.as_ref().is_some_and(|n| n.code == 1) {
            return self.on_bad_header(id, e, t);
        }
        let event = match (kind, state) {
            // An error in a NOTIFICATION is never answered by one (BGP-NOTIF-01, -02).
            (kind::NOTIFICATION, _) => {
                let why = format!("NOTIFICATION: {e}");
                return self.end(id, End::new(FsmEvent::NotifMsg, why), t);
            }
            (kind::OPEN, State::OpenSent) => FsmEvent::BgpOpenMsgErr,
            (kind::UPDATE | kind::REFRESH, State::Established) => FsmEvent::UpdateMsgErr,
            _ => return self.on_unexpected(id, state, kind, t),
        };
        let why = format!("{}: {e}", ring::name(kind));
        self.end(id, End { send: e.notification, ..End::new(event, why) }, t);
    }

    /// FSM error (RFC 6608, BGP-FSME-01, -02, -03).
    fn on_unexpected(&mut self, id: ConnId, state: State, kind: u8, t: &mut Turn<'_>) {
        let subcode = match state {
            State::OpenSent => 1,
            State::OpenConfirm => 2,
            State::Established => 3,
            State::Idle | State::Connect | State::Active => 0,
        };
        let event = match kind {
            kind::OPEN => FsmEvent::BgpOpen,
            kind::KEEPALIVE => FsmEvent::KeepAliveMsg,
            _ => FsmEvent::UpdateMsg,
        };
        let why = format!("unexpected {} in {state:?}", ring::name(kind));
        self.end(id, End::new(event, why).sending(Notification::unexpected_message(subcode, kind)), t);
    }

    /// Events 24 and 25. Never answered: RFC 4271 §8.2.2 would send an FSM error in OpenSent, but the peer
    /// has closed by then, and §6.4 forbids errors about errors.
    fn on_notification(&mut self, id: ConnId, state: State, n: Notification, t: &mut Turn<'_>) {
        self.stats.last_received = Some((t.at, n.clone()));
        let version = (n.code, n.subcode) == (2, 1);
        let event = if version { FsmEvent::NotifMsgVerErr } else { FsmEvent::NotifMsg };
        // Not counted while opening (BGP-FSM-11).
        let count = !(version && state != State::Established);
        let why = format!("received {n}");
        let mut next = Next::Damp;
        if (n.code, n.subcode) == (2, 4)
            && state != State::Established
            && self.conns.iter().any(|c| c.id == id && !c.plain)
        {
            // The peer is from before RFC 5492 (BGP-CAP-10).
            self.plain_next = true;
            next = Next::Again;
        }
        if (n.code, n.subcode) == (6, cease::COLLISION) && state != State::Established {
            next = Next::Again;
        }
        self.end(id, End { received: Some(n), count, next, ..End::new(event, why) }, t);
    }

    /// Event 19 in OpenSent, or 22.
    fn on_open(&mut self, id: ConnId, open: Open, t: &mut Turn<'_>) {
        let c = &self.config;
        if let Err(e) = open.check(c.peer_as, c.local_as, c.router_id) {
            return self.on_bad_message(id, State::OpenSent, kind::OPEN, e, t);
        }
        if let Err(e) = open.check_hold_time(c.min_hold_time) {
            return self.on_bad_message(id, State::OpenSent, kind::OPEN, e, t);
        }
        if let Err(e) = open.require(&c.required) {
            return self.on_lacking(id, e, t);
        }
        if !self.survives_collision(id, &open, t) {
            return;
        }
        let Some(i) = self.index(id) else { return };
        let agreed = negotiate::agree(&self.config, self.conns[i].plain, &open);
        if agreed.families.is_empty() {
            t.out.push(Output::Note("no address family in common with the peer".to_owned()));
        }
        self.conns[i].decode = agreed.decode.clone();
        self.conns[i].phase = Phase::OpenConfirm(Box::new(Running {
            agreed,
            open,
            hold: None,
            keepalive: None,
            send_hold: None,
        }));
        self.send(id, kind::KEEPALIVE, wire::keepalive(), t);
        self.rearm_keepalive(i, t.at);
        self.rearm_hold(i, t.at);
        self.record(FsmEvent::BgpOpen, State::OpenSent, State::OpenConfirm, Some(id), t.at);
    }

    /// The peer lacks what we insist on: it is told what, and there is no next attempt until somebody starts the
    /// session again (BGP-CAP-05).
    fn on_lacking(&mut self, id: ConnId, e: MessageError, t: &mut Turn<'_>) {
        let why = format!("OPEN: {e}; stopped until it is started again");
        self.abandon_dial(t);
        let end = End { next: Next::Stop, ..End::new(FsmEvent::BgpOpenMsgErr, why) };
        self.end(id, End { send: e.notification, ..end }, t);
        self.stand_still();
    }

    /// Connection collision (RFC 4271 §6.8): closes the loser with Cease/7 (BGP-COLL-05) and tells whether
    /// `id`, on which a valid OPEN came, goes on.
    fn survives_collision(&mut self, id: ConnId, open: &Open, t: &mut Turn<'_>) -> bool {
        let Some(new) = self.index(id) else { return false };
        // A rival in OpenSent is left until its own OPEN (BGP-COLL-01: its identifier is not known yet).
        let Some(rival) = self.conns.iter().position(|c| c.id != id && c.state() != State::OpenSent) else {
            return true;
        };
        let (new_out, old) = (self.conns[new].outgoing, &self.conns[rival]);
        let rival_id = old.id;
        if graceful::replaces(old, &self.conns[new]) {
            let end =
                End::new(FsmEvent::TcpConnectionFails, "the peer has opened a new connection".to_owned());
            self.end(rival_id, End { count: false, next: Next::Again, ..end }, t);
            return true;
        }
        let survives = if old.state() == State::Established {
            // BGP-COLL-03
            false
        } else if old.outgoing == new_out {
            // Both from the same side: it has given up on the older one, whatever the identifiers say.
            true
        } else {
            negotiate::ours_survives(&self.config, open) == new_out
        };
        let loser = if survives { rival_id } else { id };
        let end = End::new(FsmEvent::OpenCollisionDump, "lost the connection collision".to_owned());
        self.end(loser, End { next: Next::Again, ..end }.sending(Notification::cease(cease::COLLISION)), t);
        survives
    }

    /// Event 26 in OpenConfirm, → Established (BGP-FSM-06).
    fn on_confirmed(&mut self, i: usize, t: &mut Turn<'_>) {
        self.rearm_hold(i, t.at);
        let conn = &mut self.conns[i];
        let id = conn.id;
        let phase = core::mem::replace(&mut conn.phase, Phase::OpenSent { hold: t.at });
        let Phase::OpenConfirm(running) = phase else {
            conn.phase = phase;
            return;
        };
        t.out.push(Output::Up(id, Box::new(running.agreed.clone())));
        conn.phase = Phase::Established { running, since: t.at };
        self.rearm_send_hold(i, t.at);
        // From here on the kernel has what this peer tells, whatever becomes of the session (BGP-GR-02).
        self.graceful.kept = true;
        // A dial that is still under way could only collide. A second connection is tracked until its OPEN.
        self.abandon_dial(t);
        self.stats.established += 1;
        self.stats.established_at = Some(t.at);
        self.record(FsmEvent::KeepAliveMsg, State::OpenConfirm, State::Established, Some(id), t.at);
    }

    /// A request for all routes of a family; only to a peer that understands it (RFC 2918 §4).
    pub(super) fn ask_again(&mut self, family: Family, t: &mut Turn<'_>) {
        let able = |a: &super::Agreed| a.refresh && a.families.contains(&family);
        let Some(id) = self.established().filter(|(_, a)| able(a)).map(|(id, _)| id) else { return };
        let refresh = Message::Refresh(Refresh { family, kind: RefreshKind::Request });
        self.send(id, kind::REFRESH, refresh.encode(&EncodeCtx::default()), t);
    }

    fn on_refresh(&mut self, i: usize, refresh: Refresh, t: &mut Turn<'_>) {
        let agreed = self.conns[i].running().is_some_and(|r| r.agreed.families.contains(&refresh.family));
        let (afi, safi) = (refresh.family.afi, refresh.family.safi);
        let note = match refresh.kind {
            // BGP-REFR-02
            _ if !agreed => format!("ROUTE-REFRESH ignored: family {afi}/{safi} is not in use"),
            // BGP-REFR-05
            RefreshKind::Unknown(n) => format!("ROUTE-REFRESH ignored: unknown subtype {n}"),
            // Not offered (capability 70), so the peer has no reason to send them.
            RefreshKind::Begin | RefreshKind::End => {
                "ROUTE-REFRESH ignored: enhanced route refresh is not in use".to_owned()
            }
            RefreshKind::Request => return t.out.push(Output::Refresh(refresh)),
        };
        t.out.push(Output::Note(note));
    }
}
