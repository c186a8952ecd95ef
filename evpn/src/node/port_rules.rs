//! What comes in at a port before the bridge sees it: no tagged frames (PIT-10), no questions that its kernel would answer and
//! should not (PROXY-REPLY-08), and only so many frames a second of the kinds that everybody has to look at.
//!
//! The node says which rules a device has, the driver's filter keeps them and tells what it drops. On the VXLAN device the
//! rule about tags is the same (VXLAN-05); limits are for access ports alone, because behind a VTEP are many of them.

use super::config::{Flooding, VniConfig};
use super::view::PortDropsView;
use super::{Event, Node, Output, Unknown, UnknownOptions};
use crate::types::{IfIndex, Time, Vni};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most frames a second from one access port, and as many at once; 0: no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Storm {
    /// ARP and RARP.
    pub arp: u32,
    /// Neighbour discovery: ICMPv6 133 to 137.
    pub nd: u32,
    /// Other broadcast.
    pub broadcast: u32,
    /// Other multicast, but not IGMP and MLD: who is cut off from those loses its groups.
    pub multicast: u32,
}

/// What does not go out of a device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outward {
    /// Everything does.
    #[default]
    All,
    /// ARP requests and NS for all: who may have the answer is asked by unicast, or nobody (PROXY-FLOOD-01).
    NoQuestions,
    /// Broadcast and multicast: nothing is replicated (PIT-19).
    NoGroups,
}

/// Questions that the kernel would answer in an owner's place, and that do not come to it (PROXY-REPLY-08).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unasked {
    /// Nothing is answered in anybody's place, or all of it may be.
    #[default]
    None,
    /// What is no question on this link: ARP for other hardware than Ethernet's (RFC 826; types 1 and 6), solicitations with a hop
    /// limit other than 255 (RFC 4861 §7.1.1). The kernel looks at neither.
    Odd,
    /// And solicitations to all with options that it does not know
    /// ([`has_unknown_options`](crate::wire::frame::has_unknown_options)).
    OddAndOptions,
}

/// What is dropped at a device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortRules {
    /// Frames with an 802.1Q or 802.1ad tag, priority tags among them.
    pub tagged: bool,
    /// What is beyond these rates.
    pub storm: Storm,
    /// Questions that are not the kernel's to answer.
    pub unasked: Unasked,
    /// And on its way out.
    pub outward: Outward,
}

impl PortRules {
    /// Nothing is dropped.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Frames that were dropped, by the rule that did it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct PortDrops {
    /// With a tag.
    pub tagged: u64,
    /// ARP and RARP.
    pub arp: u64,
    /// Neighbour discovery.
    pub nd: u64,
    /// Other broadcast.
    pub broadcast: u64,
    /// Other multicast.
    pub multicast: u64,
    /// Questions in ARP or ND that are none on this link.
    pub odd: u64,
    /// Solicitations with options that the kernel does not know; the node hears them.
    pub options: u64,
    /// On its way out to the overlay: for all, where nothing is replicated, or questions that nobody is asked.
    pub flooded: u64,
}

impl PortDrops {
    /// Each with the name that it has in `show` and in the metrics.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        let Self { tagged, arp, nd, broadcast, multicast, odd, options, flooded } = *self;
        [
            ("tagged", tagged),
            ("arp", arp),
            ("nd", nd),
            ("broadcast", broadcast),
            ("multicast", multicast),
            ("odd", odd),
            ("options", options),
            ("flooded", flooded),
        ]
    }

    fn plus(&self, o: &Self) -> Self {
        Self {
            tagged: self.tagged.saturating_add(o.tagged),
            arp: self.arp.saturating_add(o.arp),
            nd: self.nd.saturating_add(o.nd),
            broadcast: self.broadcast.saturating_add(o.broadcast),
            multicast: self.multicast.saturating_add(o.multicast),
            odd: self.odd.saturating_add(o.odd),
            options: self.options.saturating_add(o.options),
            flooded: self.flooded.saturating_add(o.flooded),
        }
    }
}

/// Counters of `show status`, in the order of [`PortDrops::named`].
const COUNTERS: [&str; 8] = [
    "frames_dropped_tagged",
    "frames_dropped_arp",
    "frames_dropped_nd",
    "frames_dropped_broadcast",
    "frames_dropped_multicast",
    "frames_dropped_odd",
    "frames_dropped_options",
    "frames_dropped_flooded",
];

/// What became of an [`Output::PortRules`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PortNews {
    /// The kernel has the rules; what they drop is counted from 0.
    On,
    /// The kernel would not have them: why, and the way out.
    Refused(String),
    /// Frames dropped since; when there are more than last told, at most once a second.
    Dropped(PortDrops),
}

/// A device with rules.
#[derive(Debug)]
struct Ruled {
    vni: Vni,
    device: String,
    drops: PortDrops,
    /// What was dropped before the rules were last made.
    before: PortDrops,
    refused: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Rules {
    ports: BTreeMap<IfIndex, Ruled>,
}

/// What does not go out of the VXLAN device of a VNI.
fn outward(c: &VniConfig) -> Outward {
    match (c.flooding, c.hosts.unknown) {
        (Flooding::None, _) => Outward::NoGroups,
        (Flooding::Replicate, Unknown::Replicate) => Outward::All,
        (Flooding::Replicate, Unknown::Unicast | Unknown::Drop) => Outward::NoQuestions,
    }
}

/// What the kernel is not to answer.
fn unasked(c: &VniConfig) -> Unasked {
    match (c.arp_suppression, c.hosts.unknown_options) {
        (false, _) => Unasked::None,
        (true, UnknownOptions::Reply) => Unasked::Odd,
        (true, UnknownOptions::Replicate | UnknownOptions::Unicast | UnknownOptions::Drop) => {
            Unasked::OddAndOptions
        }
    }
}

impl Node {
    /// The devices of a VNI have changed: each access port has its rules, and the VXLAN device.
    pub(super) fn review_port_rules(&mut self) {
        let mut want: BTreeMap<IfIndex, (Vni, PortRules)> = BTreeMap::new();
        for (vni, seg) in &self.segments {
            let tagged = !seg.config.hosts.tagged;
            let enslaved =
                |i: &IfIndex| self.links.get(i).is_some_and(|l| l.master.is_some() && l.master == seg.bridge);
            if let Some(vxlan) = seg.vxlan.filter(enslaved) {
                want.insert(
                    vxlan,
                    (*vni, PortRules { tagged, outward: outward(&seg.config), ..PortRules::default() }),
                );
            }
            let (storm, unasked) = (seg.config.hosts.storm, unasked(&seg.config));
            let rules = PortRules { tagged, storm, unasked, outward: Outward::All };
            let ports = self.taps.iter().filter(|(i, v)| **v == *vni && seg.vxlan != Some(**i));
            want.extend(ports.map(|(i, _)| (*i, (*vni, rules))));
        }
        want.retain(|_, (_, rules)| !rules.is_empty());
        let gone: Vec<IfIndex> = self
            .rules
            .ports
            .iter()
            .filter(|(i, r)| want.get(i).is_none_or(|w| w.0 != r.vni))
            .map(|(i, _)| *i)
            .collect();
        for port in gone {
            self.rules.ports.remove(&port);
            self.journal.push(Output::PortRules { port, device: String::new(), rules: PortRules::default() });
        }
        for (port, (vni, rules)) in want {
            if self.rules.ports.contains_key(&port) {
                continue;
            }
            let device = self.dev_name(port);
            let (drops, before) = (PortDrops::default(), PortDrops::default());
            self.rules
                .ports
                .insert(port, Ruled { vni, device: device.clone(), drops, before, refused: None });
            self.journal.push(Output::PortRules { port, device, rules });
        }
    }

    /// From the filter.
    pub(super) fn port_news(&mut self, port: IfIndex, news: PortNews, at: Time) {
        let Some(r) = self.rules.ports.get_mut(&port) else { return };
        self.revision += 1;
        match news {
            PortNews::On => {
                r.refused = None;
                r.before = r.drops;
            }
            PortNews::Refused(why) => {
                r.refused = Some(why.clone());
                let problem = format!("its rules for tagged frames and storms are not in force: {why}");
                let event = Event::DeviceProblem { device: r.device.clone(), problem, index: Some(port) };
                self.journal.event(event, at);
            }
            PortNews::Dropped(n) => {
                let was = std::mem::replace(&mut r.drops, r.before.plus(&n));
                for (name, (now, was)) in COUNTERS.iter().zip(r.drops.named().iter().zip(was.named())) {
                    self.journal.add(name, now.1.saturating_sub(was.1));
                }
            }
        }
    }

    /// What `show vnis` says of ports whose rules the kernel refuses.
    pub(super) fn rules_refused(&self, vni: Vni) -> impl Iterator<Item = String> {
        let of = self.rules.ports.values().filter(move |r| r.vni == vni);
        of.filter_map(|r| {
            let why = r.refused.as_ref()?;
            Some(format!("tagged frames and storms are not dropped at port {}: {why}", r.device))
        })
    }

    /// What was dropped at each port where anything was.
    pub(super) fn port_drops(&self) -> Vec<PortDropsView> {
        let of = self.rules.ports.values().filter(|r| r.drops != PortDrops::default());
        of.map(|r| PortDropsView { vni: r.vni, port: r.device.clone(), drops: r.drops }).collect()
    }
}
