//! Frames of a duplicate MAC are dropped at the port of the one that does not have it (EVPN-MOB-16).
//!
//! A table of our own in the bridge family, with one set of (port, source MAC) and one rule. A row that no frame can
//! take keeps the bridge from learning, but it does not keep the host from talking: that needs a filter. Like the
//! source filter the table is owned by its socket and goes with the daemon.

use super::nft::{
    Attrs, DELSETELEM, F_CREATE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, Nft, TABLE, drop_it,
    expression,
};
use evpn::types::{IfIndex, Mac};
use std::collections::BTreeSet;
use std::io;

const CHAIN: &[u8] = b"duplicates\0";
const SET: &[u8] = b"blocked\0";
const BRIDGE: u8 = 7;
const PRIORITY: i32 = -300;
/// Registers of four octets: the port, then the MAC in two.
const PORT_REGISTER: u32 = 8;
const MAC_REGISTER: u32 = 9;
const KEY: u32 = 12;

/// The filter. Dropping it removes it from the kernel.
#[derive(Debug)]
pub struct PortFilter {
    nft: Nft,
    blocked: BTreeSet<(IfIndex, Mac)>,
}

impl PortFilter {
    /// Installs the filter; nothing is dropped yet.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel has no nftables for bridges; `EEXIST`/`EBUSY`: another daemon has its filter in
    /// this namespace; `EPERM`: `CAP_NET_ADMIN` is missing.
    pub fn install() -> io::Result<Self> {
        let mut nft = Nft::open(BRIDGE)?;
        let mut table = Attrs::default();
        table.bytes(1, TABLE).be32(2, 2);
        let mut set = Attrs::default();
        set.bytes(1, TABLE).bytes(2, SET).be32(3, 0).be32(4, 0).be32(5, KEY).be32(10, 1);
        let mut chain = Attrs::default();
        chain.bytes(1, TABLE).bytes(3, CHAIN);
        chain.nest(4, |h| {
            h.be32(1, 0).be32(2, PRIORITY as u32);
        });
        chain.bytes(7, b"filter\0");
        let mut rule = Attrs::default();
        rule.bytes(1, TABLE).bytes(2, CHAIN);
        rule.nest(4, |list| {
            expression(list, b"meta\0", |e| {
                e.be32(1, PORT_REGISTER).be32(2, 4);
            });
            expression(list, b"payload\0", |e| {
                e.be32(1, MAC_REGISTER).be32(2, 0).be32(3, 6).be32(4, 6);
            });
            expression(list, b"lookup\0", |e| {
                e.bytes(1, SET).be32(2, PORT_REGISTER).be32(4, 1);
            });
            drop_it(list);
        });
        nft.batch(&[
            (NEWTABLE, F_CREATE, table),
            (NEWSET, F_CREATE, set),
            (NEWCHAIN, F_CREATE, chain),
            (NEWRULE, F_CREATE | 0x800, rule),
        ])?;
        Ok(Self { nft, blocked: BTreeSet::new() })
    }

    /// Drops frames from these ports with these source addresses, and no others; only the difference is written.
    ///
    /// # Errors
    /// As the kernel gives them; the filter is then as it was.
    pub fn block(&mut self, blocked: &BTreeSet<(IfIndex, Mac)>) -> io::Result<()> {
        let add = elements(blocked.difference(&self.blocked));
        let del = elements(self.blocked.difference(blocked));
        let mut messages = Vec::new();
        messages.extend(add.map(|a| (NEWSETELEM, F_CREATE, a)));
        messages.extend(del.map(|a| (DELSETELEM, 0, a)));
        if messages.is_empty() {
            return Ok(());
        }
        self.nft.batch(&messages)?;
        self.blocked.clone_from(blocked);
        Ok(())
    }

    /// Frames dropped so far.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn dropped(&mut self) -> io::Result<u64> {
        self.nft.counted(CHAIN)
    }
}

fn elements<'a>(keys: impl Iterator<Item = &'a (IfIndex, Mac)>) -> Option<Attrs> {
    let mut keys = keys.peekable();
    keys.peek()?;
    let mut a = Attrs::default();
    a.bytes(1, TABLE).bytes(2, SET);
    a.nest(3, |list| {
        for (port, mac) in keys {
            let key = [&port.0.to_ne_bytes()[..], &mac.0, &[0, 0]].concat();
            list.nest(1, |e| {
                e.nest(1, |k| {
                    k.bytes(1, &key);
                });
            });
        }
    });
    Some(a)
}
