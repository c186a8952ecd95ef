//! What an FRR-like VTEP knows and how it decides: bgpd's two tables (by MAC and by IP) above zebra's MACs and
//! neighbours. No clock and no wire; independent of `evpn::node` and `evpn::mobility`.
//!
//! bgpd prefers the higher sequence, then the lower next hop, and nothing of its own for being its own. zebra counts:
//! a MAC that comes here gets the remote sequence + 1, a new one 0.

use evpn::types::{IfIndex, Mac};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A Type-2 route without the peer that told it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    /// Route distinguisher.
    pub(super) rd: [u8; 8],
    pub(super) mac: Mac,
    pub(super) ip: Option<IpAddr>,
}

/// Where a route points, and how well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Path {
    pub(super) seq: u32,
    pub(super) vtep: IpAddr,
}

impl Path {
    fn rank(self) -> (u32, Reverse<IpAddr>) {
        (self.seq, Reverse(self.vtep))
    }
}

/// bgpd to zebra: the best remote path, or that there is none any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Learned {
    Mac(Mac, Option<Path>),
    Ip(IpAddr, Option<(Mac, Path)>),
}

/// zebra to the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Write {
    Remote(Mac, IpAddr),
    NoRemote(Mac, IpAddr),
    Neigh(IpAddr, Mac),
    NoNeigh(IpAddr),
}

/// A route of its own: MAC alone, or with an address.
pub(super) type Own = (Mac, Option<IpAddr>);

/// What comes of a run of bgpd's work queue.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) learned: Vec<Learned>,
    /// MAC-only before MAC+IP.
    pub(super) announce: Vec<(Own, u32)>,
    pub(super) withdraw: Vec<Own>,
}

/// Where zebra has a MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    /// Nowhere: it is only remembered ("auto").
    Nowhere,
    Port(IfIndex),
    Vtep(IpAddr),
}

/// zebra's MAC: its own sequence and the last remote one.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: At,
    own: u32,
    remote: u32,
}

/// zebra's neighbour.
#[derive(Clone, Copy, Debug)]
struct Neigh {
    mac: Mac,
    remote: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tables {
    vtep: IpAddr,
    /// As 8.4 does: sequences outlive withdrawals, and lower ones are refused (#10468). Since 8.5 they are forgotten
    /// with the MAC.
    remembers: bool,
    rib: BTreeMap<(Key, usize), Path>,
    /// What zebra has asked bgpd to advertise.
    own: BTreeMap<Own, u32>,
    /// What peers have been told.
    told: BTreeMap<Own, u32>,
    due_macs: BTreeSet<Mac>,
    due_ips: BTreeSet<IpAddr>,
    /// What bgpd has told zebra.
    installed: BTreeMap<Mac, Path>,
    installed_ips: BTreeMap<IpAddr, (Mac, Path)>,
    macs: BTreeMap<Mac, Entry>,
    neighs: BTreeMap<IpAddr, Neigh>,
    /// MACs whose best route zebra has refused.
    refused: BTreeSet<Mac>,
}

impl Tables {
    pub(super) fn new(vtep: IpAddr, remembers: bool) -> Self {
        Self {
            vtep,
            remembers,
            rib: BTreeMap::new(),
            own: BTreeMap::new(),
            told: BTreeMap::new(),
            due_macs: BTreeSet::new(),
            due_ips: BTreeSet::new(),
            installed: BTreeMap::new(),
            installed_ips: BTreeMap::new(),
            macs: BTreeMap::new(),
            neighs: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Its address.
    pub(super) fn vtep(&self) -> IpAddr {
        self.vtep
    }

    /// #10468: bgpd has a best route that zebra does not take.
    pub(super) fn refuses(&self, mac: Mac) -> bool {
        self.remembers && self.refused.contains(&mac)
    }

    // ---- bgpd --------------------------------------------------------------------------------------------

    fn due(&mut self, mac: Mac, ip: Option<IpAddr>) {
        self.due_macs.insert(mac);
        self.due_ips.extend(ip);
    }

    /// bgpd's work queue has something to do.
    pub(super) fn is_due(&self) -> bool {
        !self.due_macs.is_empty() || !self.due_ips.is_empty()
    }

    /// A peer's route, or its withdrawal.
    pub(super) fn update(&mut self, from: usize, key: Key, path: Option<Path>) {
        match path {
            Some(p) => self.rib.insert((key, from), p),
            None => self.rib.remove(&(key, from)),
        };
        self.due(key.mac, key.ip);
    }

    /// A session is gone, and what it has told with it.
    pub(super) fn lost(&mut self, from: usize) {
        let keys: Vec<Key> = self.rib.keys().filter(|(_, f)| *f == from).map(|(k, _)| *k).collect();
        for k in keys {
            self.update(from, k, None);
        }
    }

    /// Everything that peers have to know, for one that is new.
    pub(super) fn all(&self) -> Vec<(Own, u32)> {
        self.told.iter().map(|(k, s)| (*k, *s)).collect()
    }

    /// The work queue's pause is over.
    pub(super) fn run(&mut self) -> Work {
        let mut work = Work::default();
        for mac in std::mem::take(&mut self.due_macs) {
            let paths = self.rib.iter().filter(|((k, _), _)| k.mac == mac).map(|(_, p)| *p);
            let best = paths.max_by_key(|p| p.rank());
            let own = self.own.get(&(mac, None)).map(|seq| Path { seq: *seq, vtep: self.vtep });
            let beaten = best.is_some_and(|b| own.is_some_and(|o| b.rank() > o.rank()));
            if beaten {
                // Measured: MAC and MAC+IP are withdrawn in one UPDATE.
                self.disown(mac);
            }
            let best = best.filter(|_| beaten || own.is_none());
            if self.installed.get(&mac).copied() != best {
                match best {
                    Some(b) => self.installed.insert(mac, b),
                    None => self.installed.remove(&mac),
                };
                work.learned.push(Learned::Mac(mac, best));
            }
        }
        for ip in std::mem::take(&mut self.due_ips) {
            self.run_ip(ip, &mut work);
        }
        for (k, seq) in &self.own {
            if self.told.get(k) != Some(seq) {
                work.announce.push((*k, *seq));
            }
        }
        work.withdraw.extend(self.told.keys().filter(|k| !self.own.contains_key(*k)));
        self.told = self.own.clone();
        work
    }

    /// One IP with several MACs is one contest.
    fn run_ip(&mut self, ip: IpAddr, work: &mut Work) {
        let paths = self.rib.iter().filter(|((k, _), _)| k.ip == Some(ip)).map(|((k, _), p)| (k.mac, *p));
        let best = paths.max_by_key(|(_, p)| p.rank());
        let own = self.own.iter().filter(|((_, i), _)| *i == Some(ip)).map(|(_, seq)| *seq).max();
        let own = own.map(|seq| Path { seq, vtep: self.vtep });
        let beaten = best.is_some_and(|(_, b)| own.is_some_and(|o| b.rank() > o.rank()));
        if beaten {
            self.own.retain(|(_, i), _| *i != Some(ip));
        }
        let best = best.filter(|_| beaten || own.is_none());
        if self.installed_ips.get(&ip).copied() != best {
            match best {
                Some(b) => self.installed_ips.insert(ip, b),
                None => self.installed_ips.remove(&ip),
            };
            work.learned.push(Learned::Ip(ip, best));
        }
    }

    /// No route of its own for this MAC any more, with or without address.
    fn disown(&mut self, mac: Mac) {
        let keys: Vec<Own> = self.own.keys().filter(|(m, _)| *m == mac).copied().collect();
        for k in keys {
            self.own.remove(&k);
            self.due(mac, k.1);
        }
    }

    // ---- zebra -------------------------------------------------------------------------------------------

    /// The kernel has learned a MAC on a port.
    pub(super) fn seen(&mut self, mac: Mac, port: IfIndex) {
        let e = self.macs.entry(mac).or_insert(Entry { at: At::Nowhere, own: 0, remote: 0 });
        match e.at {
            // Another port of the same VTEP changes nothing.
            At::Port(_) => {
                e.at = At::Port(port);
                return;
            }
            At::Vtep(_) => e.own = e.own.max(e.remote + 1),
            At::Nowhere => e.own = e.own.max(e.remote),
        }
        e.at = At::Port(port);
        self.installed.remove(&mac);
        self.advertise(mac);
    }

    /// MAC, and the neighbours of its own that it has: they become active with it, seen or not (D.2-2).
    fn advertise(&mut self, mac: Mac) {
        let Some(e) = self.macs.get(&mac).copied().filter(|e| matches!(e.at, At::Port(_))) else { return };
        self.own.insert((mac, None), e.own);
        let ips: Vec<IpAddr> =
            self.neighs.iter().filter(|(_, n)| n.mac == mac && !n.remote).map(|(ip, _)| *ip).collect();
        for ip in ips {
            self.own.insert((mac, Some(ip)), e.own);
            self.due(mac, Some(ip));
        }
        self.due(mac, None);
    }

    /// The kernel has dropped a MAC from a port. Its neighbours stay, inactive.
    pub(super) fn gone(&mut self, mac: Mac, port: IfIndex) {
        let Some(e) = self.macs.get_mut(&mac).filter(|e| e.at == At::Port(port)) else { return };
        e.at = At::Nowhere;
        if !self.remembers {
            self.macs.remove(&mac);
        }
        self.disown(mac);
        self.due(mac, None);
    }

    /// The kernel has a neighbour of its own: somebody behind a port has this address.
    pub(super) fn heard(&mut self, ip: IpAddr, mac: Mac) {
        let old = self.neighs.insert(ip, Neigh { mac, remote: false });
        let before = old.filter(|o| o.mac != mac).and_then(|o| self.macs.get(&o.mac)).map(|e| match e.at {
            At::Vtep(_) => e.remote,
            At::Nowhere | At::Port(_) => e.own,
        });
        if let Some(o) = old.filter(|o| o.mac != mac)
            && self.own.remove(&(o.mac, Some(ip))).is_some()
        {
            self.due(o.mac, Some(ip));
        }
        // Inactive until the MAC is here too (B.4).
        let Some(e) = self.macs.get_mut(&mac).filter(|e| matches!(e.at, At::Port(_))) else { return };
        if let Some(before) = before {
            // RFC 9721: above the sequence of the MAC that had the address.
            e.own = e.own.max(before + 1);
        }
        self.advertise(mac);
    }

    /// zebra hears from bgpd.
    pub(super) fn install(&mut self, what: Learned, out: &mut Vec<Write>) {
        match what {
            Learned::Mac(mac, Some(path)) => self.install_mac(mac, path, out),
            Learned::Mac(mac, None) => {
                let Some(e) = self.macs.get_mut(&mac) else { return };
                if let At::Vtep(vtep) = e.at {
                    out.push(Write::NoRemote(mac, vtep));
                    e.at = At::Nowhere;
                    if !self.remembers {
                        self.macs.remove(&mac);
                    }
                }
            }
            Learned::Ip(ip, Some((mac, path))) => {
                if self.neighs.get(&ip).is_some_and(|n| !n.remote && self.holds(n.mac, path.seq)) {
                    return;
                }
                self.neighs.insert(ip, Neigh { mac, remote: true });
                if self.own.keys().any(|(_, i)| *i == Some(ip)) {
                    self.own.retain(|(_, i), _| *i != Some(ip));
                    self.due_ips.insert(ip);
                }
                out.push(Write::Neigh(ip, mac));
            }
            Learned::Ip(ip, None) => {
                if self.neighs.get(&ip).is_some_and(|n| n.remote) {
                    self.neighs.remove(&ip);
                    out.push(Write::NoNeigh(ip));
                }
            }
        }
    }

    /// A MAC is here with a higher sequence than this.
    fn holds(&self, mac: Mac, seq: u32) -> bool {
        self.macs.get(&mac).is_some_and(|e| matches!(e.at, At::Port(_)) && seq < e.own)
    }

    fn install_mac(&mut self, mac: Mac, path: Path, out: &mut Vec<Write>) {
        let e = self.macs.entry(mac).or_insert(Entry { at: At::Nowhere, own: 0, remote: 0 });
        let refused = match e.at {
            At::Port(_) => path.seq < e.own,
            // #10468: nothing is programmed, and nobody is told.
            At::Nowhere | At::Vtep(_) => self.remembers && path.seq < e.own.max(e.remote),
        };
        if refused {
            self.refused.insert(mac);
            return;
        }
        self.refused.remove(&mac);
        let here = matches!(e.at, At::Port(_));
        (e.at, e.remote) = (At::Vtep(path.vtep), path.seq);
        if here {
            self.disown(mac);
        }
        out.push(Write::Remote(mac, path.vtep));
    }
}
