//! MAC table and IP table of a VNI. Split, because one IP may change its MAC and one MAC may have many IPs
//! (RFC 9721 §5).

use crate::mobility::{Claim, Losses};
use crate::types::{IfIndex, Mac, Seq, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A local MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Local {
    /// Port it is behind.
    pub port: IfIndex,
    /// Sequence that we advertise.
    pub seq: Seq,
}

/// A remote MAC, by its best route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RemoteMac {
    /// The claim that won.
    pub claim: Claim,
}

/// Who owns a MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// Behind a port of ours.
    Local(Local),
    /// Behind another VTEP.
    Remote(RemoteMac),
}

/// A MAC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MacEntry {
    /// Owner.
    pub owner: Owner,
    /// Since when the owner has it.
    pub since: Time,
    /// Moves seen.
    pub moves: u32,
    /// Local: the last sign of life, as far as one is seen (forwarding table, ARP, RARP, ND).
    pub heard: Time,
    /// The ports that lost it.
    pub lost: Losses,
    /// Remote, but the kernel still shows it on this port: our row has not been written (again) yet.
    pub shadow: Option<IfIndex>,
}

impl MacEntry {
    /// The local side, if it is local.
    pub fn local(&self) -> Option<&Local> {
        match &self.owner {
            Owner::Local(l) => Some(l),
            Owner::Remote(_) => None,
        }
    }
    /// The remote side, if it is remote.
    pub fn remote(&self) -> Option<&RemoteMac> {
        match &self.owner {
            Owner::Remote(r) => Some(r),
            Owner::Local(_) => None,
        }
    }
}

/// How an IP binding is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BindingOrigin {
    /// ARP on a local port (PROXY-LEARN-01).
    Arp,
    /// Neighbour advertisement on a local port (PROXY-LEARN-02).
    Nd,
    /// Came with its MAC when that moved here, unconfirmed (PIT-22).
    Moved,
    /// Type 2 with IP.
    Bgp,
}

impl BindingOrigin {
    /// Word for views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Nd => "nd",
            Self::Moved => "moved",
            Self::Bgp => "bgp",
        }
    }
}

/// An IP and the MAC behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Binding {
    /// MAC.
    pub mac: Mac,
    /// How we know. [`BindingOrigin::Bgp`]: remote; all else: local, advertised by us.
    pub origin: BindingOrigin,
    /// R flag of ND (RFC 9047).
    pub router: bool,
    /// Since when this MAC has the address.
    pub since: Time,
    /// Last confirmation.
    pub confirmed: Time,
    /// What that was.
    pub by: Evidence,
    /// Probes sent since.
    pub probes: u8,
}

/// What has taught or confirmed a binding last, beyond its [`BindingOrigin`]; for people only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// What its origin says.
    Plain,
    /// The host has answered a question of ours.
    Answer,
    /// A hypervisor has named the address.
    Named,
    /// An operator has bound it, and the MAC is there.
    Configured,
}

impl Binding {
    /// One that begins now.
    pub fn new(mac: Mac, origin: BindingOrigin, router: bool, at: Time) -> Self {
        Self { mac, origin, router, since: at, confirmed: at, by: Evidence::Plain, probes: 0 }
    }
    /// How it is known, in a word for views.
    pub fn known_by(&self) -> &'static str {
        match (self.by, self.origin) {
            (Evidence::Answer, BindingOrigin::Arp | BindingOrigin::Nd) => "answer",
            (Evidence::Named, BindingOrigin::Moved) => "prepared",
            (Evidence::Configured, BindingOrigin::Moved) => "static",
            (Evidence::Plain | Evidence::Answer | Evidence::Named | Evidence::Configured, origin) => {
                origin.as_str()
            }
        }
    }
    /// Advertised by us.
    pub fn is_local(&self) -> bool {
        self.origin != BindingOrigin::Bgp
    }
}

/// Both tables of a VNI. The binding index by MAC is kept in step by the methods.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// MACs with an owner.
    pub macs: BTreeMap<Mac, MacEntry>,
    ips: BTreeMap<IpAddr, Binding>,
    by_mac: BTreeSet<(Mac, IpAddr)>,
    locals: usize,
    /// Local MACs per port.
    ports: BTreeMap<IfIndex, usize>,
    /// Remote MACs per VTEP.
    vteps: BTreeMap<IpAddr, usize>,
    vteps_changed: bool,
    /// Addresses whose local binding is another one, or none, with the MAC before or now.
    locals_changed: BTreeMap<IpAddr, Mac>,
    /// MACs that became known, or were remote and are forgotten, while somebody wants to know.
    changed: Option<BTreeSet<Mac>>,
}

impl Hosts {
    /// Most IPs of one MAC that a prepared move names.
    pub const IPS_PER_MAC: usize = 64;

    /// Binding of an address.
    pub fn binding(&self, ip: IpAddr) -> Option<&Binding> {
        self.ips.get(&ip)
    }
    /// All bindings in order.
    pub fn bindings(&self) -> impl Iterator<Item = (&IpAddr, &Binding)> {
        self.ips.iter()
    }
    /// Bindings after an address.
    pub fn bindings_after(&self, ip: Option<IpAddr>) -> impl Iterator<Item = (&IpAddr, &Binding)> {
        use std::ops::Bound;
        let from = ip.map_or(Bound::Unbounded, Bound::Excluded);
        self.ips.range((from, Bound::Unbounded))
    }
    /// Number of bindings.
    pub fn bindings_len(&self) -> usize {
        self.ips.len()
    }
    /// Addresses bound to a MAC.
    pub fn ips_of(&self, mac: Mac) -> Vec<IpAddr> {
        let low = (mac, IpAddr::from([0, 0, 0, 0]));
        self.by_mac.range(low..).take_while(|(m, _)| *m == mac).map(|(_, ip)| *ip).collect()
    }
    /// Whether any address is bound to a MAC.
    pub fn has_ips(&self, mac: Mac) -> bool {
        let low = (mac, IpAddr::from([0, 0, 0, 0]));
        self.by_mac.range(low..).next().is_some_and(|(m, _)| *m == mac)
    }
    /// Sets a binding, returns the one before. If that had the same MAC, it is as old as that one.
    pub fn bind(&mut self, ip: IpAddr, mut b: Binding) -> Option<Binding> {
        if let Some(same) = self.ips.get(&ip).filter(|o| o.mac == b.mac) {
            b.since = same.since;
        }
        let old = self.ips.insert(ip, b);
        self.note_local(ip, old, Some(b));
        if let Some(o) = old.filter(|o| o.mac != b.mac) {
            self.by_mac.remove(&(o.mac, ip));
        }
        self.by_mac.insert((b.mac, ip));
        old
    }
    /// Changes a binding in place, without its MAC.
    pub fn touch(&mut self, ip: IpAddr, f: impl FnOnce(&mut Binding)) {
        if let Some(b) = self.ips.get_mut(&ip) {
            let before = *b;
            f(b);
            b.mac = before.mac;
            let now = *b;
            self.note_local(ip, Some(before), Some(now));
        }
    }
    /// Removes a binding.
    pub fn unbind(&mut self, ip: IpAddr) -> Option<Binding> {
        let old = self.ips.remove(&ip)?;
        self.by_mac.remove(&(old.mac, ip));
        self.note_local(ip, Some(old), None);
        Some(old)
    }
    fn note_local(&mut self, ip: IpAddr, before: Option<Binding>, now: Option<Binding>) {
        let local = |b: Option<Binding>| b.filter(Binding::is_local).map(|b| b.mac);
        let (before, now) = (local(before), local(now));
        if before != now
            && let Some(mac) = now.or(before)
        {
            self.locals_changed.insert(ip, mac);
        }
    }
    /// Addresses whose local binding is another one, or none, since the last call, each with a MAC that has or had it.
    pub fn take_locals_changed(&mut self) -> BTreeMap<IpAddr, Mac> {
        std::mem::take(&mut self.locals_changed)
    }
    /// Sets a MAC's owner, keeping its history. Returns the owner before.
    pub fn own(&mut self, mac: Mac, owner: Owner, at: Time) -> Option<Owner> {
        let is_local = matches!(owner, Owner::Local(_));
        if let Some(e) = self.macs.get_mut(&mac) {
            let old = e.owner;
            self.locals = self.locals + usize::from(is_local) - usize::from(matches!(old, Owner::Local(_)));
            e.owner = owner;
            e.since = at;
            if is_local {
                e.heard = at;
            }
            self.count_owners(Some(old), Some(owner));
            Some(old)
        } else {
            self.locals += usize::from(is_local);
            self.note_change(mac);
            self.macs.insert(
                mac,
                MacEntry { owner, since: at, moves: 0, heard: at, lost: Losses::default(), shadow: None },
            );
            self.count_owners(None, Some(owner));
            None
        }
    }
    /// Forgets a MAC.
    pub fn disown(&mut self, mac: Mac) -> Option<MacEntry> {
        let e = self.macs.remove(&mac)?;
        if e.local().is_none() {
            self.note_change(mac);
        }
        self.locals -= usize::from(e.local().is_some());
        self.count_owners(Some(e.owner), None);
        Some(e)
    }
    fn count_owners(&mut self, old: Option<Owner>, new: Option<Owner>) {
        let vtep = |o: Option<Owner>| match o {
            Some(Owner::Remote(r)) => Some(r.claim.vtep),
            Some(Owner::Local(_)) | None => None,
        };
        let port = |o: Option<Owner>| match o {
            Some(Owner::Local(l)) => Some(l.port),
            Some(Owner::Remote(_)) | None => None,
        };
        let (left, joined) = (port(old), port(new));
        if left != joined {
            if let Some(p) = joined {
                *self.ports.entry(p).or_default() += 1;
            }
            if let Some(p) = left
                && let Some(n) = self.ports.get_mut(&p)
            {
                *n -= 1;
                if *n == 0 {
                    self.ports.remove(&p);
                }
            }
        }
        let (old, new) = (vtep(old), vtep(new));
        if old == new {
            return;
        }
        if let Some(v) = new {
            let n = self.vteps.entry(v).or_default();
            *n += 1;
            self.vteps_changed |= *n == 1;
        }
        if let Some(v) = old
            && let Some(n) = self.vteps.get_mut(&v)
        {
            *n -= 1;
            if *n == 0 {
                self.vteps.remove(&v);
                self.vteps_changed = true;
            }
        }
    }
    /// From now on [`Hosts::take_changed`] tells which MACs became known, or were remote and are forgotten; or it
    /// does not any more.
    pub fn watch(&mut self, on: bool) {
        self.changed = on.then(|| self.changed.take().unwrap_or_default());
    }
    /// Those since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Mac> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }
    fn note_change(&mut self, mac: Mac) {
        if let Some(c) = &mut self.changed {
            c.insert(mac);
        }
    }
    /// VTEPs that own a MAC.
    pub fn vteps(&self) -> impl Iterator<Item = IpAddr> {
        self.vteps.keys().copied()
    }
    /// Whether that set changed since the last call.
    pub fn take_vteps_changed(&mut self) -> bool {
        std::mem::take(&mut self.vteps_changed)
    }
    /// Number of local MACs on a port.
    pub fn on_port(&self, port: IfIndex) -> usize {
        self.ports.get(&port).copied().unwrap_or(0)
    }
    /// Number of local MACs.
    pub fn locals(&self) -> usize {
        self.locals
    }
    /// Number of remote MACs.
    pub fn remotes(&self) -> usize {
        self.macs.len() - self.locals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn b(mac: Mac) -> Binding {
        Binding::new(mac, BindingOrigin::Arp, false, Time(0))
    }

    #[test]
    fn the_index_follows_a_binding_that_changes_its_mac() {
        let mut h = Hosts::default();
        let (a, v6) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
        h.bind(a, b(M1));
        h.bind(v6, b(M1));
        assert_eq!(h.ips_of(M1), [a, v6]);
        h.bind(a, b(M2));
        assert_eq!(h.ips_of(M1), [v6]);
        assert_eq!(h.ips_of(M2), [a]);
        h.unbind(v6);
        assert!(!h.has_ips(M1));
        assert!(h.has_ips(M2));
    }

    #[test]
    fn a_binding_is_as_old_as_its_mac_and_says_how_it_is_known() {
        let mut h = Hosts::default();
        let a = IpAddr::from([10, 0, 0, 1]);
        let of = |mac, origin, at| Binding::new(mac, origin, false, Time(at));
        h.bind(a, of(M1, BindingOrigin::Bgp, 5));
        h.bind(a, of(M1, BindingOrigin::Arp, 9));
        assert_eq!(h.binding(a).map(|b| (b.since, b.confirmed)), Some((Time(5), Time(9))));
        h.bind(a, of(M2, BindingOrigin::Moved, 11));
        assert_eq!(h.binding(a).map(|b| b.since), Some(Time(11)));
        let by = |origin, by| Binding { by, ..of(M1, origin, 0) }.known_by();
        assert_eq!(by(BindingOrigin::Nd, Evidence::Plain), "nd");
        assert_eq!(by(BindingOrigin::Nd, Evidence::Answer), "answer");
        assert_eq!(by(BindingOrigin::Moved, Evidence::Named), "prepared");
        assert_eq!(by(BindingOrigin::Moved, Evidence::Answer), "moved");
    }

    #[test]
    fn locals_and_remotes_are_counted_through_every_change() {
        let mut h = Hosts::default();
        let local = Owner::Local(Local { port: IfIndex(1), seq: Seq(0) });
        let remote = Owner::Remote(RemoteMac {
            claim: Claim {
                seq: Seq(0),
                sticky: false,
                gateway: false,
                stale: false,
                vtep: IpAddr::from([10, 0, 0, 9]),
            },
        });
        h.own(M1, local, Time(0));
        h.own(M2, remote, Time(0));
        assert_eq!((h.locals(), h.remotes()), (1, 1));
        assert_eq!((h.on_port(IfIndex(1)), h.on_port(IfIndex(2))), (1, 0));
        h.own(M1, Owner::Local(Local { port: IfIndex(2), seq: Seq(0) }), Time(0));
        assert_eq!((h.on_port(IfIndex(1)), h.on_port(IfIndex(2))), (0, 1));
        h.own(M1, remote, Time(1));
        assert_eq!((h.locals(), h.remotes()), (0, 2));
        assert_eq!(h.vteps().count(), 1);
        assert!(h.take_vteps_changed());
        h.own(M2, local, Time(2));
        h.disown(M1);
        assert_eq!((h.locals(), h.remotes()), (1, 0));
        h.disown(M2);
        assert_eq!((h.on_port(IfIndex(1)), h.on_port(IfIndex(2))), (0, 0));
        assert_eq!((h.locals(), h.remotes()), (0, 0));
        assert_eq!(h.vteps().count(), 0);
    }
}
