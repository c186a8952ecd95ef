//! What `vtepd why ip` says of ARP and ND: who answers and why, which questions are open, what hosts were told.

use crate::node::Node;
use crate::node::segment::Segment;
use crate::node::tell::Told;
use crate::node::view::{HostSideView, QuestionView, ToldView, WhyView};
use crate::types::{Time, Vni};
use std::net::IpAddr;

/// Questions told.
const QUESTIONS: usize = 16;
/// Holders named.
const NAMED: usize = 4;

impl Node {
    pub(super) fn host_side(&self, vni: Vni, ip: IpAddr, at: Time) -> HostSideView {
        let questions = self.questions.about(vni, ip).take(QUESTIONS);
        let questions = questions.map(|(mac, port, asked, next, suspect)| QuestionView {
            mac,
            port: self.dev_name(port),
            asked,
            next: next.since(at),
            suspect,
        });
        let told = self.tell.told.get((vni, ip)).map(|t| ToldView {
            mac: t.mac,
            ago: at.since(t.at),
            rounds: t.rounds as u8,
            of: Told::ROUNDS as u8,
            broadcasts: t.broadcasts as u64,
            unicasts: t.unicasts as u64,
            vteps: t.vteps as u64,
        });
        HostSideView {
            questions: questions.collect(),
            next_question: self.confirmations.when((vni, ip)).map(|(t, _)| t.since(at)),
            holders: self.tell.holders.of((vni, ip)).to_vec(),
            told,
        }
    }

    /// Nobody is bound to it, and the kernel may answer all the same.
    pub(super) fn adopted_note(&self, seg: &Segment, ip: IpAddr) -> Option<String> {
        let mac = self.adopted_mac(&seg.neigh_key(ip)?)?;
        Some(format!(
            "This VTEP's kernel answers ARP and ND for it with {mac}: the row was found at the start, and no peer has \
             confirmed it yet (PIT-27)."
        ))
    }
}

pub(super) fn origin_text(origin: &str) -> &str {
    match origin {
        "arp" => "seen in ARP",
        "nd" => "seen in ND",
        "answer" => "answered when asked",
        "moved" => "came with its MAC",
        "prepared" => "named by its hypervisor",
        "static" => "configured, and its MAC is here",
        "bgp" => "told by BGP",
        other => other,
    }
}

pub(super) fn said(v: &WhyView) -> Vec<String> {
    let Some(h) = &v.host_side else { return Vec::new() };
    let mut out = Vec::new();
    for q in &h.questions {
        let asked = match q.asked {
            0 => "is to be asked for it".to_owned(),
            1 => "has been asked for it once".into(),
            n => format!("has been asked for it {n} times"),
        };
        let end = if q.suspect { "; without an answer it is withdrawn" } else { "" };
        out.push(format!("{} {asked} on port {}, next in {}{end}.", q.mac, q.port, q.next));
    }
    if let Some(next) = h.next_question {
        out.push(format!("Unless it speaks, it is asked to confirm the address in {next} (PROXY-MAINT-02)."));
    }
    if let Some(t) = &h.told {
        let mut to = vec![plural(t.broadcasts, "broadcast"), plural(t.unicasts, "unicast")];
        to.push(plural(t.vteps, "frame to VTEPs that tell nobody"));
        let to: Vec<String> = to.into_iter().flatten().collect();
        let to = if to.is_empty() { "nobody was there to hear it".to_owned() } else { to.join(", ") };
        out.push(format!(
            "Hosts were told of {} {} ago, {} of {} rounds: {to} (PROXY-LEARN-05).",
            t.mac, t.ago, t.rounds, t.of
        ));
    }
    if !h.holders.is_empty() {
        let mut names: Vec<String> = h.holders.iter().rev().take(NAMED).map(ToString::to_string).collect();
        if h.holders.len() > NAMED {
            names.push(format!("{} more", h.holders.len() - NAMED));
        }
        out.push(format!("Known to hold it here: {}.", names.join(", ")));
    }
    out
}

fn plural(n: u64, what: &str) -> Option<String> {
    match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(
            what.split_once(' ')
                .map_or_else(|| format!("{n} {what}s"), |(head, rest)| format!("{n} {head}s {rest}")),
        ),
    }
}
