//! A port that makes MACs up: frames from sources that nobody knows are dropped before the bridge sees them.
//!
//! A table of our own in the netdev family: one chain per guarded port on its ingress hook, and one set of MACs that come
//! in. Earlier than the bridge's own hooks and than learning, so that a made-up MAC costs one look into a hash table, and
//! no other port pays for it. Taps hear the frames all the same. Like the other filters the table is owned by its
//! socket and goes with the daemon.

use super::nft::{
    Attrs, DELCHAIN, DELSET, DELSETELEM, F_CREATE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, Nft,
    TABLE, drop_it, expression,
};
use evpn::node::MOST_ALLOWED;
use evpn::types::{IfIndex, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

const NETDEV: u8 = 5;
const INGRESS: u32 = 0;
/// Before whatever somebody else has there.
const PRIORITY: i32 = -500;
const ETHER_ADDR: u32 = 9;
/// Addresses in one message: an attribute holds 64 KiB.
const CHUNK: usize = 2000;
/// Messages in one batch: a netlink socket takes some 200 KB at once.
const CHUNKS: usize = 3;

#[derive(Debug)]
struct Port {
    /// Number in the names of chain and set: no two are ever alike, whatever became of the ones before.
    number: u64,
    allowed: BTreeSet<Mac>,
}

/// The filters of all guarded ports. Dropping it removes them from the kernel.
#[derive(Debug)]
pub struct FloodGuard {
    nft: Nft,
    next: u64,
    ports: BTreeMap<IfIndex, Port>,
}

impl FloodGuard {
    /// No port is guarded yet.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel has no nftables for devices; `EEXIST`/`EBUSY`: another daemon has its filter in
    /// this namespace; `EPERM`: `CAP_NET_ADMIN` is missing.
    pub fn install() -> io::Result<Self> {
        let mut nft = Nft::open(NETDEV)?;
        let mut table = Attrs::default();
        table.bytes(1, TABLE).be32(2, 2);
        nft.batch(&[(NEWTABLE, F_CREATE, table)])?;
        Ok(Self { nft, next: 0, ports: BTreeMap::new() })
    }

    /// From now on a port lets in frames with these source addresses and no others; as many as
    /// [`MOST_ALLOWED`].
    ///
    /// # Errors
    /// As the kernel gives them; the port is then open.
    pub fn guard(&mut self, port: IfIndex, device: &str, allowed: &[Mac]) -> io::Result<()> {
        self.open(port);
        self.next += 1;
        let new = Port { number: self.next, allowed: allowed.iter().take(MOST_ALLOWED).copied().collect() };
        let done = self.create(&new, device);
        if done.is_ok() {
            self.ports.insert(port, new);
        } else {
            self.remove(new.number);
        }
        done
    }

    fn create(&mut self, new: &Port, device: &str) -> io::Result<()> {
        let name = name(new.number);
        let mut set = Attrs::default();
        set.bytes(1, TABLE)
            .bytes(2, &name)
            .be32(3, 0)
            .be32(4, ETHER_ADDR)
            .be32(5, 6)
            .be32(10, new.number as u32);
        self.nft.batch(&[(NEWSET, F_CREATE, set)])?;
        // Filled before the rule looks into it: who is known is not interrupted.
        self.change(new.number, NEWSETELEM, F_CREATE, &new.allowed)?;
        let mut chain = Attrs::default();
        chain.bytes(1, TABLE).bytes(3, &name);
        let device = [device.as_bytes(), &[0]].concat();
        chain.nest(4, |h| {
            h.be32(1, INGRESS).be32(2, PRIORITY as u32).bytes(3, &device);
        });
        chain.bytes(7, b"filter\0");
        let mut rule = Attrs::default();
        rule.bytes(1, TABLE).bytes(2, &name);
        rule.nest(4, |list| {
            expression(list, b"payload\0", |e| {
                e.be32(1, 1).be32(2, 0).be32(3, 6).be32(4, 6);
            });
            // Goes on if it is not in the set.
            expression(list, b"lookup\0", |e| {
                e.bytes(1, &name).be32(2, 1).be32(4, 1).be32(5, 1);
            });
            drop_it(list);
        });
        self.nft.batch(&[(NEWCHAIN, F_CREATE, chain), (NEWRULE, F_CREATE | 0x800, rule)])
    }

    /// Lets these in, too, and those not any more. A port that is not guarded is left alone.
    ///
    /// # Errors
    /// As the kernel gives them; some may have been changed.
    pub fn allow(&mut self, port: IfIndex, add: &[Mac], remove: &[Mac]) -> io::Result<()> {
        let Some(p) = self.ports.get(&port) else { return Ok(()) };
        let number = p.number;
        let gone: BTreeSet<Mac> = remove.iter().filter(|m| p.allowed.contains(m)).copied().collect();
        let room = MOST_ALLOWED - (p.allowed.len() - gone.len()).min(MOST_ALLOWED);
        let new: BTreeSet<Mac> = add.iter().filter(|m| !p.allowed.contains(m)).take(room).copied().collect();
        self.change(number, DELSETELEM, 0, &gone)?;
        if let Some(p) = self.ports.get_mut(&port) {
            p.allowed.retain(|m| !gone.contains(m));
        }
        self.change(number, NEWSETELEM, F_CREATE, &new)?;
        if let Some(p) = self.ports.get_mut(&port) {
            p.allowed.extend(new);
        }
        Ok(())
    }

    fn change(&mut self, number: u64, kind: u16, flags: u16, macs: &BTreeSet<Mac>) -> io::Result<()> {
        let macs: Vec<Mac> = macs.iter().copied().collect();
        for batch in macs.chunks(CHUNK * CHUNKS) {
            let messages: Vec<_> =
                batch.chunks(CHUNK).map(|c| (kind, flags, elements(&name(number), c))).collect();
            self.nft.batch(&messages)?;
        }
        Ok(())
    }

    /// Everything comes in at this port again.
    pub fn open(&mut self, port: IfIndex) {
        if let Some(p) = self.ports.remove(&port) {
            self.remove(p.number);
        }
    }

    fn remove(&mut self, number: u64) {
        let of = |at: u16| {
            let mut a = Attrs::default();
            a.bytes(1, TABLE).bytes(at, &name(number));
            a
        };
        // One after the other: the chain may have gone with its device, or never have been there.
        let _ = self.nft.batch(&[(DELCHAIN, 0, of(3))]);
        let _ = self.nft.batch(&[(DELSET, 0, of(2))]);
    }

    /// Ports that are guarded.
    pub fn ports(&self) -> impl Iterator<Item = IfIndex> {
        self.ports.keys().copied()
    }

    /// Frames dropped at a port since it is guarded.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn dropped(&mut self, port: IfIndex) -> io::Result<u64> {
        match self.ports.get(&port) {
            Some(p) => self.nft.counted(&name(p.number)),
            None => Ok(0),
        }
    }
}

fn name(number: u64) -> Vec<u8> {
    format!("port-{number}\0").into_bytes()
}

fn elements(set: &[u8], macs: &[Mac]) -> Attrs {
    let mut a = Attrs::default();
    a.bytes(1, TABLE).bytes(2, set);
    a.nest(3, |list| {
        for mac in macs {
            list.nest(1, |e| {
                e.nest(1, |k| {
                    k.bytes(1, &mac.0);
                });
            });
        }
    });
    a
}
