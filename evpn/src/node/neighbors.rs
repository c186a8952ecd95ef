//! What an operator does to a neighbour: shut it down, start it, reset it, ask for or send everything again; and look
//! at it closely.

use super::event::Event;
use super::output::{NeighborReply, Reply};
use super::view::{EventView, FaultyView, Happened, MessageView, NeighborDetail, OpenView};
use super::{NeighborAction, NeighborRequest, Node};
use crate::session::{self, State};
use crate::types::{PeerId, Time};
use crate::wire::{Capability, Family, Notification, Open, cease};
use bytes::Bytes;
use std::net::IpAddr;

/// Most octets of a text for the other side (BGP-SHUT-03).
const MAX_TEXT: usize = 128;

/// Why nothing is tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum HeldDown {
    /// By an operator, here or in the configuration; with the text for the other side.
    Operator(String),
    /// It has sent too many routes; when it is tried again.
    Prefixes { limit: u32, until: Option<Time> },
}

impl HeldDown {
    fn text(&self) -> String {
        match self {
            Self::Operator(t) if t.is_empty() => "shut down by an operator".to_owned(),
            Self::Operator(t) => format!("shut down by an operator: {t:?}"),
            Self::Prefixes { limit, until: None } => format!("down: it sent more than {limit} routes"),
            Self::Prefixes { limit, until: Some(_) } => {
                format!("down for a while: it sent more than {limit} routes")
            }
        }
    }
}

/// Data of a Cease 2 or 4: nothing when there is nothing to say (BGP-SHUT-01).
fn communication(subcode: u8, text: &str) -> Bytes {
    if text.is_empty() { Bytes::new() } else { Notification::shutdown(subcode, text).data }
}

impl Node {
    /// Answers `Command::Neighbor`.
    pub(super) fn handle_neighbor(&mut self, request: &NeighborRequest, at: Time) -> Reply {
        let i = match self.find_neighbor(&request.name) {
            Ok(i) => i,
            Err(why) => return Reply::NeighborRefused { unknown: true, text: why },
        };
        let done = match &request.action {
            NeighborAction::Show => {
                return Reply::Neighbor(NeighborReply::Detail(Box::new(self.neighbor_detail(i, at))));
            }
            NeighborAction::Shutdown { message } => {
                message_fits(message).map(|()| self.shut_down(i, message, at))
            }
            NeighborAction::Start => Ok(self.start_neighbor(i, at)),
            NeighborAction::Reset { message } => {
                message_fits(message).and_then(|()| self.reset_neighbor(i, message, at))
            }
            NeighborAction::Refresh { inbound, outbound } => {
                self.refresh_neighbor(i, *inbound, *outbound, at)
            }
        };
        match done {
            Ok(did) => {
                let address = self.peers[i].config.address;
                let state = format!("{:?}", self.peers[i].session.state());
                Reply::Neighbor(NeighborReply::Done { address, state, did })
            }
            Err(text) => Reply::NeighborRefused { unknown: false, text },
        }
    }

    /// The stop that holds a neighbour down, with what those hear who come all the same.
    pub(super) fn stop_of(&self, i: usize) -> Option<session::Input<'static>> {
        let (subcode, data) = match self.peers[i].held_down.as_ref()? {
            HeldDown::Operator(text) => (cease::SHUTDOWN, communication(cease::SHUTDOWN, text)),
            HeldDown::Prefixes { limit, .. } => (cease::MAX_PREFIXES, super::prefixes::cease_data(*limit)),
        };
        Some(session::Input::Stop { subcode, data })
    }

    /// By address, or by a description that only one neighbour has.
    fn find_neighbor(&self, name: &str) -> Result<usize, String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            let found = self.peers.iter().position(|p| p.exists() && p.config.address == address);
            return found
                .ok_or_else(|| format!("no neighbour {address} is configured; see `vtepd show neighbors`"));
        }
        let named = |(_, p): &(usize, &super::peers::Peer)| {
            p.exists() && p.config.description.as_deref() == Some(name)
        };
        let mut found = self.peers.iter().enumerate().filter(named);
        match (found.next(), found.next()) {
            (Some((i, _)), None) => Ok(i),
            (Some(_), Some(_)) => {
                Err(format!("several neighbours are described as `{name}`; name one by its address"))
            }
            (None, _) => Err(format!(
                "`{name}` is neither a neighbour's address nor its description; see `vtepd show neighbors`"
            )),
        }
    }

    fn told(&mut self, i: usize, text: String, at: Time) {
        let address = self.peers[i].config.address;
        self.revision += 1;
        self.journal.event(Event::NeighborAdmin { address, text }, at);
    }

    fn shut_down(&mut self, i: usize, message: &str, at: Time) -> String {
        let before = self.peers[i].held_down.replace(HeldDown::Operator(message.to_owned()));
        if before == self.peers[i].held_down {
            return "was shut down already; nothing was changed".to_owned();
        }
        let told = self.peers[i].session.state() >= State::OpenSent;
        if let Some(stop) = self.stop_of(i) {
            self.drive(i, stop, at);
        }
        let held = self.peers[i].held_down.as_ref().map(HeldDown::text).unwrap_or_default();
        self.told(i, held, at);
        match (before.is_some(), told) {
            (true, _) => "was down already; the reason is a new one".to_owned(),
            (false, true) => "shut down; the neighbour was told".to_owned(),
            (false, false) => "shut down; there was no session".to_owned(),
        }
    }

    fn start_neighbor(&mut self, i: usize, at: Time) -> String {
        let Some(held) = self.peers[i].held_down.take() else {
            // A hold after failures ends: that is what somebody who types this wants.
            let held = self.peers[i].session.state() == State::Idle;
            self.drive(i, session::Input::Start, at);
            let what = if held {
                "was to be tried again later; it is tried now"
            } else {
                "runs already; nothing was changed"
            };
            return what.to_owned();
        };
        self.told(i, format!("started; it was {}", held.text()), at);
        self.drive(i, session::Input::Start, at);
        "started".to_owned()
    }

    fn reset_neighbor(&mut self, i: usize, message: &str, at: Time) -> Result<String, String> {
        if let Some(held) = &self.peers[i].held_down {
            return Err(format!("it is {}; `start` it", held.text()));
        }
        let told = self.peers[i].session.state() >= State::OpenSent;
        let data = communication(cease::RESET, message);
        self.drive(i, session::Input::Stop { subcode: cease::RESET, data }, at);
        let text = if message.is_empty() { String::new() } else { format!(": {message:?}") };
        self.told(i, format!("reset by an operator{text}"), at);
        self.drive(i, session::Input::Start, at);
        let did =
            if told { "reset; the neighbour was told" } else { "there was no session; it is tried anew" };
        Ok(did.to_owned())
    }

    fn refresh_neighbor(
        &mut self,
        i: usize,
        inbound: bool,
        outbound: bool,
        at: Time,
    ) -> Result<String, String> {
        let Some((_, agreed)) = &self.peers[i].up else {
            return Err("the session is not established; there is nothing to refresh".into());
        };
        if !agreed.families.contains(&Family::EVPN) {
            return Err("L2VPN EVPN is not in use on the session; there is nothing to refresh".into());
        }
        if inbound && !agreed.refresh {
            return Err("the neighbour does not understand ROUTE-REFRESH (capability 2); `reset` brings its routes anew".into());
        }
        let mut did = Vec::new();
        if inbound {
            self.drive(i, session::Input::Refresh(Family::EVPN), at);
            did.push("the neighbour is asked for all its routes");
        }
        if outbound {
            self.rib.refresh(PeerId(i as u32));
            did.push("it is sent all of ours");
        }
        let did = did.join("; ");
        self.told(i, format!("refreshed: {did}"), at);
        Ok(did)
    }

    fn neighbor_detail(&self, i: usize, at: Time) -> NeighborDetail {
        let p = &self.peers[i];
        let (s, id) = (p.session.stats(), PeerId(i as u32));
        let counters = self.rib.counters(id);
        let routes = self.rib.peer_routes(id);
        let up = p.session.state() == State::Established;
        let happened = |t: Time, text: String| Happened { ago: at.since(t), text };
        let note = |n: &Option<(Time, Notification)>| n.as_ref().map(|(t, n)| happened(*t, n.to_string()));
        let state = |s: State| format!("{s:?}");
        NeighborDetail {
            summary: self.neighbor(i, at),
            held_down: p.held_down.as_ref().map(HeldDown::text),
            established_for: s.established_at.filter(|_| up).map(|t| at.since(t)),
            lost_ago: s.lost_at.map(|t| at.since(t)),
            local: open_view(&p.session.our_open()),
            remote: p.session.peer_open().map(open_view),
            agreed: p.up.as_ref().map(|(_, a)| agreed_words(a)).unwrap_or_default(),
            received: s.received,
            sent: s.sent,
            octets_received: s.octets_received,
            routes_best: routes.best,
            routes_filtered: routes.filtered.into_iter().map(|(why, n)| (why.to_string(), n)).collect(),
            routes_oversize: counters.oversize,
            max_prefixes: p.config.rules.max_prefixes.map(|m| m.limit),
            faults_by: p.faults_by.counts(),
            attempts_failed: s.connect_retry_counter,
            connections_refused: s.refused,
            last_down: s.last_down.as_ref().map(|(t, w)| happened(*t, w.clone())),
            notification_sent: note(&s.last_sent),
            notification_received: note(&s.last_received),
            events: p
                .session
                .history()
                .map(|r| EventView {
                    ago: at.since(r.at),
                    number: r.event.number(),
                    name: format!("{:?}", r.event),
                    from: state(r.from),
                    to: state(r.to),
                })
                .collect(),
            messages: p
                .session
                .messages()
                .into_iter()
                .map(|m| MessageView { ago: at.since(m.at), sent: m.sent, octets: m.octets, text: m.text })
                .collect(),
            faulty: p
                .session
                .faulty_messages()
                .into_iter()
                .map(|f| FaultyView { ago: at.since(f.at), octets: f.octets, what: f.what, hex: f.hex })
                .collect(),
        }
    }
}

/// BGP-SHUT-02, -03: what does not fit is refused here, rather than cut where nobody sees it.
fn message_fits(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT {
        return Err(format!(
            "the message has {} octets; at most {MAX_TEXT} are understood by every neighbour (RFC 9003)",
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("the message has control characters; write one line of plain text".into());
    }
    Ok(())
}

fn family(f: Family) -> String {
    match f {
        Family::EVPN => "L2VPN EVPN".to_owned(),
        Family::IPV4 => "IPv4 unicast".to_owned(),
        Family::IPV6 => "IPv6 unicast".to_owned(),
        Family::RTC => "route targets".to_owned(),
        Family { afi, safi } => format!("family {afi}/{safi}"),
    }
}

fn open_view(o: &Open) -> OpenView {
    OpenView {
        asn: o.asn(),
        router_id: IpAddr::V4(o.id),
        hold_time: o.hold_time,
        capabilities: o.capabilities.iter().map(capability).collect(),
    }
}

fn capability(c: &Capability) -> String {
    let list = |l: Vec<String>| l.join(", ");
    match c {
        Capability::Multiprotocol(f) => family(*f),
        Capability::RouteRefresh => "route refresh".into(),
        Capability::ExtendedNextHop(l) => {
            list(l.iter().map(|(f, afi)| format!("{} with next hops of AFI {afi}", family(*f))).collect())
        }
        Capability::ExtendedMessage => "extended messages".into(),
        Capability::GracefulRestart { restarting, notification, time, families } => {
            let mut t = format!("graceful restart, {time} s");
            for (on, word) in [(*restarting, ", restarting"), (*notification, ", notification")] {
                if on {
                    t.push_str(word);
                }
            }
            for f in families {
                let kept = if f.forwarding { " (forwarding kept)" } else { "" };
                t = t + ", " + &family(f.family) + kept;
            }
            t
        }
        Capability::As4(n) => format!("four-octet AS {n}"),
        Capability::AddPath(l) => {
            let one = |(f, m): &(Family, crate::wire::AddPathMode)| format!("ADD-PATH {} {m:?}", family(*f));
            list(l.iter().map(one).collect())
        }
        Capability::EnhancedRefresh => "enhanced route refresh".into(),
        Capability::Llgr(l) => list(
            l.iter()
                .map(|f| format!("long-lived graceful restart {} {} s", family(f.family), f.time))
                .collect(),
        ),
        Capability::Unknown { code, value } => format!("code {code}, {} octets", value.len()),
    }
}

fn agreed_words(a: &session::Agreed) -> Vec<String> {
    let mut out: Vec<String> = a.families.iter().map(|f| family(*f)).collect();
    let all = [
        (a.as4, "four-octet AS".to_owned()),
        (a.refresh, "route refresh".to_owned()),
        (a.enhanced_refresh, "enhanced route refresh".to_owned()),
        (true, format!("messages up to {} octets", a.max_send)),
        (true, format!("hold time {} s", a.hold_time)),
    ];
    out.extend(all.into_iter().filter_map(|(on, text)| on.then_some(text)));
    out
}
