//! What `vtepd why` adds to the rule that decided: what was refused and why, duplicates, what a hypervisor has said, how
//! a port of ours lost it, limits.

use super::who;
use crate::node::Node;
use crate::node::input::{About, WhyRequest};
use crate::node::prepare::Stage;
use crate::node::segment::Segment;
use crate::node::view::{MoveView, Place, WhyView};
use crate::types::{Mac, Span, Time, Vni};
use core::fmt::Write as _;
use std::net::IpAddr;

impl Node {
    /// It, or the MAC of an IP, is known as a duplicate: where it has been, and what is done about it (EVPN-MOB-15).
    pub(super) fn duplicate_note(&self, vni: Vni, mac: Mac, ip: Option<IpAddr>, at: Time) -> Option<String> {
        let of = |about: About| self.duplicated.found.get(&(vni, about)).map(|f| (about, f));
        let (about, f) = ip.and_then(|ip| of(About::Ip(ip))).or_else(|| of(About::Mac(mac)))?;
        let kind = if matches!(about, About::Mac(_)) { "mac" } else { "ip" };
        Some(format!(
            "{about} is a duplicate ({}), {} here for {}; `vtepd clear duplicate --vni {vni} --{kind} {about}` lets it go (EVPN-MOB-15).",
            f.owners.join(" and "),
            f.state(),
            at.since(f.since)
        ))
    }

    /// Somebody else has claimed it and may not have it.
    pub(super) fn refused_note(&self, vni: Vni, mac: Mac, at: Time) -> Option<String> {
        let (to, why, again) = self.moderation.refusal(vni, mac)?;
        let again = again.map_or_else(
            || "it stays so as long as whoever has it claims it".to_owned(),
            |t| format!("it is tried again in {}", t.since(at)),
        );
        Some(format!("{} claims it and is refused: {why}; {again}.", capital(&who(to))))
    }

    /// Why a MAC that is nowhere may be one that is not learned.
    pub(super) fn no_place(&self, seg: &Segment) -> Option<String> {
        let vni = seg.config.vni;
        let mut all = Vec::new();
        let (ports, whole) = self.full_of(vni);
        if whole {
            let limit = seg.config.mobility.mac_limit;
            all.push(format!("VNI {vni} takes no new local MAC (`mac-limit` {limit} is reached)"));
        }
        for port in ports {
            let (name, limit) = (self.dev_name(port), seg.config.mobility.port_mac_limit);
            all.push(format!("port {name} takes no new MAC (`port-mac-limit` {limit} is reached)"));
        }
        all.extend(self.guards_of(vni));
        (!all.is_empty()).then(|| format!("What is not learned now: {}.", all.join("; ")))
    }

    pub(super) fn nothing_known(&self, seg: &Segment, q: &WhyRequest) -> String {
        let (about, vni) = (q.about, q.vni);
        let (mut text, limits) = match about {
            About::Mac(_) => (
                format!(
                    "nothing is known of {about} in VNI {vni}: it is behind no port, no peer has a route for it, no \
                     sequence is remembered, and no move is on record"
                ),
                self.no_place(seg),
            ),
            About::Ip(_) => (
                format!(
                    "nothing is known of {about} in VNI {vni}: no host here uses it, no peer has a route for it, and \
                     no move is on record"
                ),
                None,
            ),
        };
        if let Some(limits) = limits {
            let _ = write!(text, ". {}", limits.trim_end_matches('.'));
        }
        text
    }

    /// What a hypervisor has said about a MAC (PIT-04, PIT-06).
    pub(super) fn prepared(&self, vni: Vni, mac: Mac, at: Time) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(p) = self.prepare.get((vni, mac)) {
            let (by, port, left) = (p.by.as_str(), &p.name, p.deadline.since(at));
            out.push(match p.stage {
                Stage::Prepared => format!("Its move to port {port} is prepared ({by}), for another {left}."),
                Stage::Writing { .. } => {
                    format!("Its move to port {port} is being activated ({by}): the kernel has not answered yet.")
                }
                Stage::Active if p.heard => format!("It was activated on port {port} ({by}) and has been heard."),
                Stage::Active => format!(
                    "It was activated on port {port} ({by}) and has not been heard; it is held there for another {left}."
                ),
            });
        }
        if let Some((port, left)) = self.release_of((vni, mac), at) {
            let port = port.map_or_else(|| "any port".to_owned(), |p| format!("port {}", self.dev_name(p)));
            out.push(format!(
                "Its hypervisor has released it here: for another {left} frames from {port} are no claim (PIT-04)."
            ));
        }
        out
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// By which rule a port of ours lost it (EVPN-MOB-06, EVPN-MOB-08).
fn by_which(m: &MoveView) -> String {
    if m.seq == m.seq_before {
        format!("whose VTEP address is the lower one at equal sequence numbers {} (EVPN-MOB-08)", m.seq)
    } else if m.seq.newer_than(m.seq_before) {
        format!("which has the higher sequence number, {} against {} (EVPN-MOB-06)", m.seq, m.seq_before)
    } else {
        format!("which is sticky or a gateway there (its sequence {}, ours {})", m.seq, m.seq_before)
    }
}

pub(super) fn late(v: &WhyView) -> Option<String> {
    let l = v.lost.as_ref()?;
    let mut text = format!("Port {} here lost it {} ago", l.port, l.ago);
    let here = Place::Port(l.port.clone());
    if let Some(m) = v.history.iter().rev().find(|m| m.role == "left" && m.from == here) {
        let _ = write!(text, " to {}, {}", who(&m.to), by_which(m));
    }
    if l.late_frames > 0 {
        let _ = write!(
            text,
            "; {} late frames from there did not win it back (late-frame rule, PIT-04)",
            l.late_frames
        );
    }
    if l.guarded > Span::ZERO {
        let _ = write!(text, "; frames from there are no claim by themselves for another {}", l.guarded);
    }
    Some(text + ".")
}

pub(super) fn remembered(v: &WhyView) -> Option<String> {
    let m = v.memory.as_ref()?;
    let whose = if m.ours { "ours" } else { "another VTEP's" };
    Some(format!("The highest sequence remembered is {}, {whose} (EVPN-MOB-12).", m.seq))
}
