//! Text to steps. Every error names its line.

use super::words::{Parsed, Words};
use super::{Fact, Failure, Frame, FrameKind, HostAct, PeerAct, Place, Port, Route, Scenario, Setting, Step};
use crate::world;
use evpn::types::Time;
use std::net::{IpAddr, Ipv4Addr};

/// Reads a scenario; all names are known and time goes forward.
pub fn parse(text: &str) -> Result<Scenario, Failure> {
    let mut s = Scenario::default();
    let mut now = Time(0);
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut w = Words { all: line.split_whitespace().collect(), next: 0 };
        let before = s.steps.len();
        if !w.all.is_empty() {
            s.line(&mut w, &mut now)
                .and_then(|steps| w.end().map(|()| steps))
                .map(|steps| s.steps.extend(steps.into_iter().map(|st| (i + 1, st))))
                .map_err(|what| Failure { line: i + 1, what })?;
        }
        debug_assert!(s.steps.len() >= before);
    }
    let last = text.lines().count();
    if s.vteps.is_empty() {
        return Err(Failure { line: 1, what: "no `vteps` line".into() });
    }
    if !s.steps.iter().any(|(_, st)| matches!(st, Step::Expect { .. })) {
        return Err(Failure { line: last, what: "nothing is expected".into() });
    }
    Ok(s)
}

impl Scenario {
    fn vtep(&self, name: &str) -> Option<usize> {
        self.vteps.iter().position(|v| v == name)
    }

    fn speaker(&self, name: &str) -> Option<usize> {
        self.speakers.iter().position(|(n, _)| n == name)
    }

    fn address(&self, name: &str) -> Option<IpAddr> {
        let speaker = || self.speaker(name).map(|i| self.speakers[i].1);
        self.vtep(name).map(world::vtep).or_else(speaker)
    }

    fn known(&self) -> String {
        self.vteps.iter().chain(self.speakers.iter().map(|(n, _)| n)).cloned().collect::<Vec<_>>().join(", ")
    }

    fn new_name(&self, w: &str) -> Parsed<String> {
        if !w.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Err(format!("`{w}` is no name of a node: they begin with a capital letter"));
        }
        if self.address(w).is_some() {
            return Err(format!("`{w}` is named twice"));
        }
        Ok(w.to_owned())
    }

    fn line(&mut self, w: &mut Words<'_>, now: &mut Time) -> Parsed<Vec<Step>> {
        let mut steps = Vec::new();
        match w.peek() {
            Some("vteps" | "speakers" | "set") if !self.steps.is_empty() => {
                return Err("the fabric is described before anything happens".into());
            }
            Some("vteps") => {
                w.next += 1;
                while let Some(name) = w.peek() {
                    let name = self.new_name(name)?;
                    self.vteps.push(name);
                    w.next += 1;
                }
                return Ok(steps);
            }
            Some("speakers") => {
                w.next += 1;
                while let Some(name) = w.peek() {
                    let name = self.new_name(name)?;
                    w.next += 1;
                    let n = self.vteps.len() + self.speakers.len() + 1;
                    let default = IpAddr::V4(Ipv4Addr::new(10, 255, 0, n as u8));
                    let ip = w.maybe_ip().unwrap_or(default);
                    self.speakers.push((name, ip));
                }
                return Ok(steps);
            }
            Some("set") => {
                w.next += 1;
                self.setting(w)?;
                return Ok(steps);
            }
            Some("at") => {
                w.next += 1;
                let t = Time(0) + w.span()?;
                if t < *now {
                    return Err(format!("time goes backwards: it is {:?} already", now.since(Time(0))));
                }
                *now = t;
                steps.push(Step::At(t));
            }
            Some("after") => {
                w.next += 1;
                *now = *now + w.span()?;
                steps.push(Step::At(*now));
            }
            _ => {}
        }
        if w.peek().is_some() {
            steps.push(self.step(w)?);
        }
        Ok(steps)
    }

    fn setting(&mut self, w: &mut Words<'_>) -> Parsed<()> {
        match w.take("a setting")? {
            "delay" => self.delay = Some(w.span()?),
            "guard-time" => self.settings.push(Setting::GuardTime(w.span()?)),
            "move-ips-with-mac" => {
                let on = w.skip("on");
                if !on {
                    w.must("off")?;
                }
                self.settings.push(Setting::MoveIpsWithMac(on));
            }
            name => {
                let vtep = self.vtep(name).ok_or_else(|| {
                    format!("`{name}` is neither a setting (delay, guard-time, move-ips-with-mac) nor a VTEP")
                })?;
                if w.skip("sticky") {
                    let mac = w.mac()?;
                    w.must("on")?;
                    let port = match w.port()? {
                        Port::P1 => "p1",
                        Port::P2 => "p2",
                    };
                    self.settings.push(Setting::Sticky { vtep, mac, port: port.into() });
                } else {
                    w.must("gateway-mac")?;
                    self.settings.push(Setting::GatewayMac { vtep, mac: w.mac()? });
                }
            }
        }
        Ok(())
    }

    fn step(&self, w: &mut Words<'_>) -> Parsed<Step> {
        let first = w.take("a node")?;
        match first {
            "mark" => return Ok(Step::Mark),
            "cut" => {
                let mut node = || {
                    let name = w.take("a VTEP")?;
                    self.vtep(name).ok_or_else(|| format!("`{name}` is no VTEP of this scenario"))
                };
                return Ok(Step::Cut(node()?, node()?));
            }
            "expect" => {
                let name = w.take("a VTEP")?;
                let vtep = self.vtep(name).ok_or_else(|| {
                    format!(
                        "`{name}` is no VTEP of this scenario; expectations are about {}",
                        self.vteps.join(", ")
                    )
                })?;
                return Ok(Step::Expect { vtep, fact: self.fact(w)? });
            }
            _ => {}
        }
        if let Some(vtep) = self.vtep(first) {
            return Ok(Step::Host { vtep, act: host_act(w)? });
        }
        let speaker = self
            .speaker(first)
            .ok_or_else(|| format!("`{first}` is no node of this scenario, which has {}", self.known()))?;
        Ok(Step::Peer { speaker, act: peer_act(w)? })
    }

    fn place(&self, w: &mut Words<'_>) -> Parsed<Place> {
        if let Some(ip) = w.peek().and_then(|n| self.address(n)) {
            w.next += 1;
            return Ok(Place::Vtep(ip));
        }
        match w.peek() {
            Some("p1" | "p2") => w.port().map(Place::Port),
            _ => Err(w.unexpected(&format!("a place (p1, p2, {})", self.known()))),
        }
    }

    fn fact(&self, w: &mut Words<'_>) -> Parsed<Fact> {
        match w.take("what is expected")? {
            "advertises" => {
                let none = w.skip("no");
                let (mac, ip) = (w.mac()?, w.maybe_ip());
                if none {
                    return Ok(Fact::Withholds { mac, ip });
                }
                Ok(Fact::Advertises { mac, ip, seq: w.seq()?, sticky: w.skip("sticky") })
            }
            "sends" => {
                if w.skip("nothing") {
                    return Ok(Fact::Sends { updates: 0 });
                }
                let n = w.take("a number, or `nothing`")?;
                let updates = n.parse().map_err(|_| format!("`{n}` is no number"))?;
                if !w.skip("update") {
                    w.must("updates")?;
                }
                Ok(Fact::Sends { updates })
            }
            "has" => {
                if w.skip("no") {
                    return Ok(Fact::Has { mac: w.mac()?, place: None, seq: None, sticky: false });
                }
                let mac = w.mac()?;
                if !w.skip("on") {
                    w.must("behind")?;
                }
                let place = Some(self.place(w)?);
                Ok(Fact::Has { mac, place, seq: w.seq()?, sticky: w.skip("sticky") })
            }
            "forwards" => {
                let mac = w.mac()?;
                if w.skip("nowhere") {
                    return Ok(Fact::Forwards { mac, place: None });
                }
                w.must("to")?;
                Ok(Fact::Forwards { mac, place: Some(self.place(w)?) })
            }
            "answers" => {
                if w.skip("not") {
                    w.must("for")?;
                    return Ok(Fact::Answers { ip: w.ip()?, mac: None });
                }
                w.must("for")?;
                let ip = w.ip()?;
                w.must("with")?;
                Ok(Fact::Answers { ip, mac: Some(w.mac()?) })
            }
            "tells" => {
                let none = w.skip("no");
                let event = w.take("the name of an event")?.to_owned();
                if !EVENTS.contains(&&*event) {
                    return Err(format!("`{event}` is no event about a MAC: {}", EVENTS.join(", ")));
                }
                w.must("about")?;
                let mac = w.mac()?;
                let times = if none { Some(0) } else { w.times()? };
                Ok(Fact::Tells { event, mac, times })
            }
            "probes" => {
                let none = w.skip("no");
                let (mac, ip) = (w.mac()?, w.maybe_ip());
                let port = if w.skip("on") { Some(w.port()?) } else { None };
                let times = if none { Some(0) } else { w.times()? };
                Ok(Fact::Probes { mac, ip, port, times })
            }
            "records" => {
                let kind = w.take("a kind of move")?.to_owned();
                if !evpn::node::view::MoveKind::ALL.iter().any(|k| k.as_str() == kind) {
                    return Err(format!("`{kind}` is no kind of move"));
                }
                let mac = w.mac()?;
                w.must("from")?;
                let from = self.place(w)?;
                w.must("to")?;
                Ok(Fact::Records { mac, kind, from, to: self.place(w)? })
            }
            other => Err(format!(
                "`{other}` can not be expected: advertises, sends, has, forwards, answers, tells, probes, records"
            )),
        }
    }
}

/// Events that carry a MAC.
const EVENTS: [&str; 13] = [
    "mac-local",
    "mac-gone",
    "late-frame",
    "sticky-conflict",
    "sticky-twice",
    "sticky-claimed",
    "sticky-misplaced",
    "gateway-seen",
    "address-refused",
    "own-address",
    "sequence-near-wrap",
    "binding-refused",
    "withdraw-forced",
];

fn host_act(w: &mut Words<'_>) -> Parsed<HostAct> {
    Ok(match w.take("what happens")? {
        "sees" => {
            let mac = w.mac()?;
            w.must("on")?;
            HostAct::Sees { mac, port: w.port()? }
        }
        "hears" => {
            let filtered = w.skip("filtered");
            let frame = frame(w)?;
            w.must("on")?;
            HostAct::Hears { frame, port: w.port()?, filtered }
        }
        "ages" => HostAct::Ages(w.mac()?),
        "prepares" => {
            let mac = w.mac()?;
            w.must("on")?;
            HostAct::Prepares { mac, port: w.port()?, at_stop: w.skip("at-stop") }
        }
        "releases" => HostAct::Releases { mac: w.mac()?, at_stop: w.skip("at-stop") },
        "aborts" => HostAct::Aborts(w.mac()?),
        "port" => {
            let port = w.port()?;
            match w.take("`down`, `up` or `gone`")? {
                "down" => HostAct::PortDown(port),
                "up" => HostAct::PortUp(port),
                "gone" => HostAct::PortGone(port),
                other => return Err(format!("a port goes `down`, `up` or `gone`, not `{other}`")),
            }
        }
        "kernel" => match w.take("`stops` or `resumes`")? {
            "stops" => HostAct::KernelStops,
            "resumes" => HostAct::KernelResumes,
            other => return Err(format!("a kernel `stops` or `resumes`, not `{other}`")),
        },
        other => {
            return Err(format!(
                "a VTEP does not `{other}`: sees, hears, ages, prepares, releases, aborts, port, kernel (or `expect` it)"
            ));
        }
    })
}

fn frame(w: &mut Words<'_>) -> Parsed<Frame> {
    let kind = match w.take("a frame")? {
        "rarp" => FrameKind::Rarp,
        "garp" | "na" => FrameKind::Announce,
        "arp" => FrameKind::Arp,
        "answer" => FrameKind::Answer,
        other => return Err(format!("`{other}` is no frame: rarp, garp, na, arp, answer")),
    };
    let word = w.all[w.next - 1];
    let mac = w.mac()?;
    let ip = if kind == FrameKind::Rarp { None } else { Some(w.ip()?) };
    match (word, ip) {
        ("garp" | "arp", Some(IpAddr::V6(ip))) => {
            return Err(format!("{ip} does not fit into ARP: use `na`"));
        }
        ("na", Some(IpAddr::V4(ip))) => return Err(format!("{ip} is no IPv6 address: use `garp`")),
        _ => {}
    }
    Ok(Frame { kind, mac, ip })
}

fn peer_act(w: &mut Words<'_>) -> Parsed<PeerAct> {
    Ok(match w.take("what happens")? {
        "announces" => {
            let (mac, ip, seq) = (w.mac()?, w.maybe_ip(), w.seq()?);
            let mut r = Route { mac, ip, seq, sticky: false, gateway: false, stale: false, going: false };
            while let Some(word) = w.peek() {
                match word {
                    "sticky" => r.sticky = true,
                    "gateway" => r.gateway = true,
                    "stale" => r.stale = true,
                    "going" => r.going = true,
                    _ => break,
                }
                w.next += 1;
            }
            PeerAct::Announces(r)
        }
        "withdraws" => PeerAct::Withdraws { mac: w.mac()?, ip: w.maybe_ip() },
        "leaves" => PeerAct::Leaves,
        "returns" => PeerAct::Returns,
        other => {
            return Err(format!("a speaker does not `{other}`: announces, withdraws, leaves, returns"));
        }
    })
}
