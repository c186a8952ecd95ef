//! Tagged frames and storms are dropped where they come in (PIT-10, VXLAN-05).
//!
//! A table of our own in the netdev family, beside that of [`FloodGuard`](super::FloodGuard) and after it: one chain per
//! device on its ingress hook, and one named counter for each of its rules, so that `nft list counters` shows them, too.
//! The table is owned by its socket and goes with the daemon.
//!
//! ```text
//! tagged frame                  → count, drop
//! ARP, RARP beyond the rate     → count, drop;  within it → accept
//! ND beyond the rate            → count, drop;  within it → accept
//! broadcast beyond the rate     → count, drop;  within it → accept
//! IGMP, MLD                     → accept
//! multicast beyond the rate     → count, drop
//! ```
//!
//! What does not go out has a chain on the egress hook of its device: of the VXLAN device, so that access ports are served as ever.
//!
//! A rule that nobody asked for is not there, and accepting is left out where no later rule could drop.

use super::nft::{
    Attrs, DELCHAIN, DELOBJ, F_CREATE, NEWCHAIN, NEWOBJ, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, Nft,
    expression,
};
use evpn::node::{Outward, PortDrops, PortRules, Storm, Unasked};
use evpn::types::IfIndex;
use std::collections::BTreeMap;
use std::io;

const TABLE: &[u8] = b"vtepd-ports\0";
const NETDEV: u8 = 5;
const INGRESS: u32 = 0;
/// Linux 5.16.
const EGRESS: u32 = 1;
/// After the guard of made-up MACs: what that drops uses nothing up.
const PRIORITY: i32 = -490;
/// `NFT_OBJECT_COUNTER`.
const COUNTER: u32 = 1;
/// Type of set elements, for people only.
const INTEGER: u32 = 4;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;

/// Bases of `payload`.
const LINK: u32 = 0;
const NETWORK: u32 = 1;

/// Comparisons.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;

/// Goes on only if the frame is of a kind.
type Pattern = fn(&mut Attrs);
/// Name, number in the table, elements.
type Constants = (&'static [u8], u32, &'static [&'static [u8]]);

/// Sets of constants that all chains look into.
const TAGS: Constants = (b"tags\0", 1, &[&[0x81, 0x00], &[0x88, 0xa8], &[0x91, 0x00]]);
const ARP: Constants = (b"arp\0", 2, &[&[0x08, 0x06], &[0x80, 0x35]]);
/// Queries, both reports, done.
const MLD: Constants = (b"mld\0", 3, &[&[130], &[131], &[132], &[143]]);

/// The rules of all devices. Dropping it removes them from the kernel.
#[derive(Debug)]
pub struct IngressRules {
    nft: Nft,
    next: u64,
    /// Number in the names of a device's chain and counters, and its rules.
    ports: BTreeMap<IfIndex, (u64, PortRules)>,
}

impl IngressRules {
    /// No device has rules yet.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel has no nftables for devices; `EEXIST`/`EBUSY`: another daemon has its rules in this
    /// namespace; `EPERM`: `CAP_NET_ADMIN` is missing.
    pub fn install() -> io::Result<Self> {
        let mut nft = Nft::open(NETDEV)?;
        let mut table = Attrs::default();
        table.bytes(1, TABLE).be32(2, 2);
        let mut messages = vec![(NEWTABLE, F_CREATE, table)];
        for (name, id, values) in [TAGS, ARP, MLD] {
            let len = values.first().map_or(0, |v| v.len()) as u32;
            let mut set = Attrs::default();
            // NFT_SET_CONSTANT
            set.bytes(1, TABLE).bytes(2, name).be32(3, 2).be32(4, INTEGER).be32(5, len).be32(10, id);
            messages.push((NEWSET, F_CREATE, set));
            let mut elements = Attrs::default();
            elements.bytes(1, TABLE).bytes(2, name);
            elements.nest(3, |list| {
                for v in values {
                    list.nest(1, |e| {
                        e.nest(1, |k| {
                            k.bytes(1, v);
                        });
                    });
                }
            });
            // The set is not there yet when this is read: it is meant by its number.
            elements.be32(4, id);
            messages.push((NEWSETELEM, F_CREATE, elements));
        }
        nft.batch(&messages)?;
        Ok(Self { nft, next: 0, ports: BTreeMap::new() })
    }

    /// Gives devices their rules, all of them at once: a change costs the kernel milliseconds, however much there is in it.
    /// Earlier rules of a device go first, and its counters begin at 0. Returns how it ended for each.
    pub fn set(&mut self, wants: &[(IfIndex, String, PortRules)]) -> Vec<(IfIndex, io::Result<()>)> {
        for (port, ..) in wants {
            self.clear(*port);
        }
        let new: Vec<(IfIndex, u64, &str, PortRules)> = wants
            .iter()
            .filter(|(.., rules)| !rules.is_empty())
            .map(|(port, device, rules)| {
                self.next += 1;
                (*port, self.next, device.as_str(), *rules)
            })
            .collect();
        let all: Vec<_> = new.iter().flat_map(|(_, n, device, rules)| messages(*n, device, rules)).collect();
        let together = if all.is_empty() { Ok(()) } else { self.nft.batch(&all) };
        let mut ended = Vec::new();
        for (port, n, device, rules) in new {
            // One that is not there (any more) is no reason why the others have none.
            let done = if together.is_ok() { Ok(()) } else { self.nft.batch(&messages(n, device, &rules)) };
            if done.is_ok() {
                self.ports.insert(port, (n, rules));
            }
            ended.push((port, done));
        }
        ended
    }

    fn clear(&mut self, port: IfIndex) {
        let Some((n, rules)) = self.ports.remove(&port) else { return };
        // One after the other: the chain may have gone with its device.
        for which in [None, Some("out")] {
            let mut chain = Attrs::default();
            chain.bytes(1, TABLE).bytes(3, &name(n, which));
            let _ = self.nft.batch(&[(DELCHAIN, 0, chain)]);
        }
        let counters = counted(&rules).map(|c| {
            let mut a = Attrs::default();
            a.bytes(1, TABLE).bytes(2, &name(n, Some(c))).be32(3, COUNTER);
            (DELOBJ, 0, a)
        });
        let _ = self.nft.batch(&counters.collect::<Vec<_>>());
    }

    /// Whether no device has rules.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Frames dropped at each device since it has its rules.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn drops(&mut self) -> io::Result<BTreeMap<IfIndex, PortDrops>> {
        let counters = self.nft.counters(TABLE)?;
        let of = |n: u64, what: &str| counters.get(&name(n, Some(what))).copied().unwrap_or(0);
        let each = self.ports.iter().map(|(port, (n, _))| {
            let drops = PortDrops {
                tagged: of(*n, "tagged"),
                arp: of(*n, "arp"),
                nd: of(*n, "nd"),
                broadcast: of(*n, "broadcast"),
                multicast: of(*n, "multicast"),
                odd: of(*n, "odd"),
                options: of(*n, "options"),
                flooded: of(*n, "flooded"),
            };
            (*port, drops)
        });
        Ok(each.collect())
    }
}

/// Name of a chain, or of a counter of it.
fn name(number: u64, counter: Option<&str>) -> Vec<u8> {
    match counter {
        None => format!("port-{number}\0"),
        Some(c) => format!("port-{number}-{c}\0"),
    }
    .into_bytes()
}

/// Counters that a device with these rules has.
fn counted(rules: &PortRules) -> impl Iterator<Item = &'static str> + use<> {
    let s = rules.storm;
    [
        ("tagged", rules.tagged),
        ("arp", s.arp > 0),
        ("nd", s.nd > 0),
        ("broadcast", s.broadcast > 0),
        ("multicast", s.multicast > 0),
        ("odd", rules.unasked != Unasked::None),
        ("options", rules.unasked == Unasked::OddAndOptions),
        ("flooded", rules.outward != Outward::All),
    ]
    .into_iter()
    .filter_map(|(c, there)| there.then_some(c))
}

fn chain(n: u64, which: Option<&str>, hook: u32, device: &str) -> (u16, u16, Attrs) {
    let mut chain = Attrs::default();
    chain.bytes(1, TABLE).bytes(3, &name(n, which));
    let device = [device.as_bytes(), &[0]].concat();
    chain.nest(4, |h| {
        h.be32(1, hook).be32(2, PRIORITY as u32).bytes(3, &device);
    });
    chain.bytes(7, b"filter\0");
    (NEWCHAIN, F_CREATE, chain)
}

fn messages(n: u64, device: &str, rules: &PortRules) -> Vec<(u16, u16, Attrs)> {
    let mut out = Vec::new();
    for c in counted(rules) {
        let mut a = Attrs::default();
        a.bytes(1, TABLE).bytes(2, &name(n, Some(c))).be32(3, COUNTER).nest(4, |d| {
            d.be64(1, 0).be64(2, 0);
        });
        out.push((NEWOBJ, F_CREATE, a));
    }
    let s = rules.storm;
    if rules.outward != Outward::All {
        out.push(chain(n, Some("out"), EGRESS, device));
        let kinds: &[Pattern] = match rules.outward {
            Outward::NoQuestions => &[is_arp_request, is_solicitation],
            Outward::NoGroups | Outward::All => &[is_group],
        };
        for kind in kinds {
            let mut a = Attrs::default();
            a.bytes(1, TABLE).bytes(2, &name(n, Some("out"))).nest(4, |l| {
                is_group(l);
                kind(l);
                count(l, n, "flooded");
                verdict(l, DROP);
            });
            out.push((NEWRULE, F_CREATE | 0x800, a));
        }
    }
    if !rules.tagged && s == Storm::default() && rules.unasked == Unasked::None {
        return out;
    }
    out.push(chain(n, None, INGRESS, device));
    let mut rule = |fill: &dyn Fn(&mut Attrs)| {
        let mut a = Attrs::default();
        a.bytes(1, TABLE).bytes(2, &name(n, None)).nest(4, |list| fill(list));
        // Appended.
        out.push((NEWRULE, F_CREATE | 0x800, a));
    };
    if rules.tagged {
        rule(&|l| {
            is_tagged(l);
            count(l, n, "tagged");
            verdict(l, DROP);
        });
    }
    let odd: &[Pattern] = &[is_arp_for_other_hardware, is_solicitation_from_afar];
    let options: &[Pattern] = &[has_long_options, has_an_unknown_option];
    let unasked: &[(&str, &[Pattern])] = match rules.unasked {
        Unasked::None => &[],
        Unasked::Odd => &[("odd", odd)],
        Unasked::OddAndOptions => &[("odd", odd), ("options", options)],
    };
    for (what, kinds) in unasked {
        for kind in *kinds {
            rule(&|l| {
                kind(l);
                count(l, n, what);
                verdict(l, DROP);
            });
        }
    }
    let group = s.broadcast > 0 || s.multicast > 0;
    let kinds: [(&str, u32, Pattern, bool); 4] = [
        ("arp", s.arp, is_arp, group),
        ("nd", s.nd, is_nd, s.multicast > 0),
        ("broadcast", s.broadcast, is_broadcast, s.multicast > 0),
        ("multicast", s.multicast, is_group, false),
    ];
    for (kind, rate, matches, goes_on) in kinds {
        if kind == "multicast" && rate > 0 {
            for spared in [is_igmp, is_mld] {
                rule(&|l| {
                    spared(l);
                    verdict(l, ACCEPT);
                });
            }
        }
        if rate > 0 {
            rule(&|l| {
                matches(l);
                beyond(l, rate);
                count(l, n, kind);
                verdict(l, DROP);
            });
        }
        if goes_on {
            rule(&|l| {
                matches(l);
                verdict(l, ACCEPT);
            });
        }
    }
    out
}

/// Loads octets into register 1.
fn load(list: &mut Attrs, base: u32, offset: u32, len: u32) {
    expression(list, b"payload\0", |e| {
        e.be32(1, 1).be32(2, base).be32(3, offset).be32(4, len);
    });
}

/// Goes on only if register 1 compares so with `value`.
fn compare(list: &mut Attrs, how: u32, value: &[u8]) {
    expression(list, b"cmp\0", |e| {
        e.be32(1, 1).be32(2, how).nest(3, |d| {
            d.bytes(1, value);
        });
    });
}

/// Goes on only if register 1 is in the set.
fn among(list: &mut Attrs, (name, ..): Constants) {
    expression(list, b"lookup\0", |e| {
        e.bytes(1, name).be32(2, 1);
    });
}

fn is_tagged(list: &mut Attrs) {
    // A tag that the device or the kernel has stripped is put back for this.
    load(list, LINK, 12, 2);
    among(list, TAGS);
}

fn is_arp(list: &mut Attrs) {
    load(list, LINK, 12, 2);
    among(list, ARP);
}

fn ether_type(list: &mut Attrs, value: [u8; 2]) {
    load(list, LINK, 12, 2);
    compare(list, EQUAL, &value);
}

fn is_nd(list: &mut Attrs) {
    ether_type(list, [0x86, 0xdd]);
    load(list, NETWORK, 6, 1);
    compare(list, EQUAL, &[58]);
    load(list, NETWORK, 40, 1);
    compare(list, AT_LEAST, &[133]);
    compare(list, AT_MOST, &[137]);
}

fn is_arp_request(list: &mut Attrs) {
    ether_type(list, [0x08, 0x06]);
    load(list, NETWORK, 6, 2);
    compare(list, EQUAL, &[0, 1]);
}

fn is_solicitation(list: &mut Attrs) {
    ether_type(list, [0x86, 0xdd]);
    load(list, NETWORK, 6, 1);
    compare(list, EQUAL, &[58]);
    load(list, NETWORK, 40, 1);
    compare(list, EQUAL, &[135]);
}

/// PROXY-REPLY-08: neither Ethernet's type nor that of IEEE 802 networks.
fn is_arp_for_other_hardware(list: &mut Attrs) {
    ether_type(list, [0x08, 0x06]);
    load(list, NETWORK, 0, 2);
    compare(list, NOT_EQUAL, &[0, 1]);
    compare(list, NOT_EQUAL, &[0, 6]);
}

/// It has been routed (RFC 4861 §7.1.1).
fn is_solicitation_from_afar(list: &mut Attrs) {
    is_solicitation(list);
    load(list, NETWORK, 7, 1);
    compare(list, NOT_EQUAL, &[255]);
}

/// To all, by a host that has an address: a duplicate check is nobody's to answer.
fn is_question(list: &mut Attrs) {
    is_group(list);
    is_solicitation(list);
    load(list, NETWORK, 8, 16);
    compare(list, NOT_EQUAL, &[0; 16]);
}

/// Longer than with the one option that RFC 4861 §4.3 has for it (PROXY-REPLY-08).
fn has_long_options(list: &mut Attrs) {
    is_question(list);
    load(list, NETWORK, 4, 2);
    compare(list, AT_LEAST, &[0, 33]);
}

/// As long, and another one.
fn has_an_unknown_option(list: &mut Attrs) {
    is_question(list);
    load(list, NETWORK, 4, 2);
    compare(list, AT_LEAST, &[0, 25]);
    load(list, NETWORK, 64, 1);
    compare(list, NOT_EQUAL, &[1]);
}

fn is_igmp(list: &mut Attrs) {
    ether_type(list, [0x08, 0x00]);
    load(list, NETWORK, 9, 1);
    compare(list, EQUAL, &[2]);
}

fn is_mld(list: &mut Attrs) {
    // Behind a hop-by-hop header with the router alert, always of 8 octets (RFC 2710 §3, RFC 3810 §5).
    ether_type(list, [0x86, 0xdd]);
    load(list, NETWORK, 6, 1);
    compare(list, EQUAL, &[0]);
    load(list, NETWORK, 40, 2);
    compare(list, EQUAL, &[58, 0]);
    load(list, NETWORK, 48, 1);
    among(list, MLD);
}

fn is_broadcast(list: &mut Attrs) {
    load(list, LINK, 0, 6);
    compare(list, EQUAL, &[0xff; 6]);
}

fn is_group(list: &mut Attrs) {
    load(list, LINK, 0, 1);
    expression(list, b"bitwise\0", |e| {
        e.be32(1, 1).be32(2, 1).be32(3, 1);
        for (at, value) in [(4, 1u8), (5, 0)] {
            e.nest(at, |d| {
                d.bytes(1, &[value]);
            });
        }
    });
    compare(list, EQUAL, &[1]);
}

/// Goes on only beyond so many a second, and as many at once.
fn beyond(list: &mut Attrs, rate: u32) {
    expression(list, b"limit\0", |e| {
        e.be64(1, rate.into()).be64(2, 1).be32(3, rate).be32(4, 0).be32(5, 1);
    });
}

fn count(list: &mut Attrs, n: u64, counter: &str) {
    expression(list, b"objref\0", |e| {
        e.be32(1, COUNTER).bytes(2, &name(n, Some(counter)));
    });
}

fn verdict(list: &mut Attrs, code: u32) {
    expression(list, b"immediate\0", |e| {
        e.be32(1, 0).nest(2, |d| {
            d.nest(2, |v| {
                v.be32(1, code);
            });
        });
    });
}
