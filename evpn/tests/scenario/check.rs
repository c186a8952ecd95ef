//! Expectations. Each says what was seen instead when it fails.

use super::run::{Stage, index, name};
use super::{Fact, Place};
use crate::world::VXLAN;
use evpn::fabric::Row;
use evpn::node::view;
use evpn::types::{IfIndex, Mac, Seq};
use evpn::wire::frame::{self, Body};
use std::net::IpAddr;

/// Whether a fact holds now.
pub(super) fn check(s: &mut Stage, i: usize, fact: &Fact) -> Result<(), String> {
    match fact {
        Fact::Advertises { mac, ip, seq, sticky } => {
            let (held, _) = s.observer.held(&s.w, i, s.mark)?;
            let want = (seq.is_some() || *sticky).then(|| (seq.unwrap_or_default(), *sticky));
            match held.get(&(*mac, *ip)) {
                Some(c) if *c == want => Ok(()),
                other => Err(format!(
                    "it advertises {} with {}, not {}",
                    route(*mac, *ip),
                    community(other),
                    community(Some(&want))
                )),
            }
        }
        Fact::Withholds { mac, ip } => {
            let (held, _) = s.observer.held(&s.w, i, s.mark)?;
            match held.get(&(*mac, *ip)) {
                None => Ok(()),
                other => Err(format!("it advertises {} with {}", route(*mac, *ip), community(other))),
            }
        }
        Fact::Sends { updates } => {
            let (_, n) = s.observer.held(&s.w, i, s.mark)?;
            if n == *updates {
                Ok(())
            } else {
                Err(format!("it has sent {n} UPDATEs with routes since the mark, not {updates}"))
            }
        }
        Fact::Has { mac, place, seq, sticky } => has(s, i, *mac, *place, *seq, *sticky),
        Fact::Forwards { mac, place } => forwards(s, i, *mac, *place),
        Fact::Answers { ip, mac } => {
            let seen = match s.w.neigh_row(i, *ip) {
                Some(Row::Neigh { mac, .. }) => Some(mac),
                _ => None,
            };
            if seen == *mac { Ok(()) } else { Err(format!("it answers for {ip} with {}", or_nothing(seen))) }
        }
        Fact::Tells { event, mac, times } => tells(s, i, event, *mac, *times),
        Fact::Probes { mac, ip, port, times } => probes(s, i, *mac, *ip, port.map(index), *times),
        Fact::Records { mac, kind, from, to } => {
            let last = s.w.moves(i).into_iter().rfind(|m| m.mac == *mac);
            let Some(m) = last else { return Err(format!("it has no record of {mac}")) };
            let seen = (m.kind.as_str(), m.from.to_string(), m.to.to_string());
            if seen == (&**kind, place_text(*from), place_text(*to)) {
                Ok(())
            } else {
                Err(format!(
                    "its last record of {mac} is {} from {} to {}",
                    seen.0,
                    s.named_text(&seen.1),
                    s.named_text(&seen.2)
                ))
            }
        }
    }
}

fn has(
    s: &mut Stage,
    i: usize,
    mac: Mac,
    place: Option<Place>,
    seq: Option<Seq>,
    sticky: bool,
) -> Result<(), String> {
    let seen = s.w.macs(i).into_iter().find(|m| m.mac == mac);
    let ok = match (&seen, place) {
        (None, None) => true,
        (Some(m), Some(p)) => {
            let at = match (&m.place, p) {
                (view::Place::Port(n), Place::Port(p)) => n == name(p),
                (view::Place::Vtep(v), Place::Vtep(w)) => *v == w,
                _ => false,
            };
            at && m.seq == seq.unwrap_or_default() && m.sticky == sticky
        }
        _ => false,
    };
    if ok {
        return Ok(());
    }
    Err(match seen {
        None => format!("it does not know {mac}"),
        Some(m) => {
            let sticky = if m.sticky { " sticky" } else { "" };
            format!("it has {mac} at {} seq {}{sticky}", s.named_text(&m.place.to_string()), m.seq)
        }
    })
}

fn forwards(s: &Stage, i: usize, mac: Mac, place: Option<Place>) -> Result<(), String> {
    let seen = match s.w.hosts[i].fdb.get(&mac) {
        None => None,
        Some(&VXLAN) => match s.w.mac_row(i, mac) {
            Some(Row::Remote { vtep, .. }) => Some(place_text(Place::Vtep(vtep))),
            other => return Err(format!("its bridge has {mac} on the VXLAN port, but the row is {other:?}")),
        },
        Some(p) => Some(if *p == index(super::Port::P1) { "p1".to_owned() } else { "p2".to_owned() }),
    };
    if seen == place.map(place_text) {
        return Ok(());
    }
    Err(match seen {
        None => format!("it forwards {mac} nowhere"),
        Some(p) => format!("it forwards {mac} to {}", s.named_text(&p)),
    })
}

fn tells(s: &Stage, i: usize, event: &str, mac: Mac, times: Option<usize>) -> Result<(), String> {
    let mut n = 0;
    let mut others = Vec::new();
    for (at, e) in s.w.hosts[i].events.iter().filter(|(at, _)| *at >= s.mark) {
        let v = serde_json::to_value(e).map_err(|e| e.to_string())?;
        if v.get("mac").and_then(|m| m.as_str()) != Some(&*mac.to_string()) {
            continue;
        }
        if v["event"] == event {
            n += 1;
        } else {
            others.push(format!("{} after {}", v["event"], at.since(s.mark)));
        }
    }
    counted(n, times).map_err(|n| {
        let others = if others.is_empty() { "nothing else".to_owned() } else { others.join(", ") };
        format!("{event} about {mac} was told {n} times, and {others}")
    })
}

fn probes(
    s: &Stage,
    i: usize,
    mac: Mac,
    ip: Option<IpAddr>,
    port: Option<IfIndex>,
    times: Option<usize>,
) -> Result<(), String> {
    let mut all = Vec::new();
    for (p, octets) in s.w.hosts[i].emitted.iter().skip(s.emitted[i]) {
        let f = frame::parse(octets).map_err(|e| format!("it emits an unreadable frame: {e:?}"))?;
        let target = match &f.body {
            Body::Arp(a) if !a.reply => Some(IpAddr::V4(a.target_ip)),
            Body::NeighborSolicitation(ns) => Some(IpAddr::V6(ns.target)),
            _ => None,
        };
        all.push((*p, f.dst, target));
    }
    let hit = |(p, m, t): &&(IfIndex, Mac, Option<IpAddr>)| {
        *m == mac && t.is_some() && ip.is_none_or(|ip| *t == Some(ip)) && port.is_none_or(|q| *p == q)
    };
    let n = all.iter().filter(hit).count();
    counted(n, times).map_err(|n| format!("that was probed {n} times; all frames since the mark: {all:?}"))
}

fn counted(n: usize, times: Option<usize>) -> Result<(), usize> {
    if times.map_or(n > 0, |t| t == n) { Ok(()) } else { Err(n) }
}

fn route(mac: Mac, ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| mac.to_string(), |ip| format!("{mac} {ip}"))
}

/// No route, a route without the community, a route with it.
fn community(c: Option<&Option<(Seq, bool)>>) -> String {
    match c {
        None => "no route at all".into(),
        Some(None) => "no mobility community".into(),
        Some(Some((seq, sticky))) => format!("seq {seq}{}", if *sticky { " sticky" } else { "" }),
    }
}

fn or_nothing(mac: Option<Mac>) -> String {
    mac.map_or_else(|| "nothing".to_owned(), |m| m.to_string())
}

fn place_text(p: Place) -> String {
    match p {
        Place::Port(p) => name(p).to_owned(),
        Place::Vtep(v) => v.to_string(),
    }
}

impl Stage {
    /// With the name of the node, if the text is an address of one.
    fn named_text(&self, text: &str) -> String {
        match self.names.iter().find(|(a, _)| a.to_string() == text) {
            Some((_, name)) => format!("{name} ({text})"),
            None => text.to_owned(),
        }
    }
}
