//! The source filter of PIT-12: VXLAN is accepted from known VTEPs only.
//!
//! A table of our own in nftables, written over netfilter netlink, with one set of addresses and one rule.
//! The table is *owned* by the socket (`NFT_TABLE_F_OWNER`): the kernel removes it when the daemon ends,
//! however it ends, so a dead daemon never blocks a VTEP that it could not learn of.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

const SUBSYS: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const NEWTABLE: u16 = 0;
pub(super) const NEWCHAIN: u16 = 3;
pub(super) const DELCHAIN: u16 = 5;
pub(super) const NEWRULE: u16 = 6;
pub(super) const NEWSET: u16 = 9;
pub(super) const DELSET: u16 = 11;
pub(super) const NEWSETELEM: u16 = 12;
pub(super) const DELSETELEM: u16 = 14;
pub(super) const NEWOBJ: u16 = 18;
const GETOBJ: u16 = 19;
pub(super) const DELOBJ: u16 = 20;
const GETRULE: u16 = 7;

const F_REQUEST: u16 = 1;
const F_ACK: u16 = 4;
pub(super) const F_CREATE: u16 = 0x400;
const F_DUMP: u16 = 0x300;

pub(super) const TABLE: &[u8] = b"vtepd\0";
const CHAIN: &[u8] = b"vxlan-in\0";
const SET: &[u8] = b"vteps\0";
/// Before connection tracking, as early as an IP packet is seen.
const PRIORITY: i32 = -300;

/// The filter. Dropping it removes it from the kernel.
#[derive(Debug)]
pub struct VxlanFilter {
    nft: Nft,
    allowed: BTreeSet<IpAddr>,
}

impl VxlanFilter {
    /// Installs the filter for VXLAN to `local` on UDP port `port`; nobody is allowed yet.
    ///
    /// # Errors
    /// `EOPNOTSUPP` or `EPROTONOSUPPORT`: the kernel has no nftables; `EEXIST`/`EBUSY`: another daemon has its
    /// filter in this namespace; `EPERM`: `CAP_NET_ADMIN` is missing.
    pub fn install(local: IpAddr, port: u16) -> io::Result<Self> {
        let family = if local.is_ipv4() { 2 } else { 10 };
        let mut filter = Self { nft: Nft::open(family)?, allowed: BTreeSet::new() };
        filter.create(local, port)?;
        Ok(filter)
    }

    fn create(&mut self, local: IpAddr, port: u16) -> io::Result<()> {
        let octets = octets(local);
        let (src, dst) = if local.is_ipv4() { (12u32, 16u32) } else { (8, 24) };
        let len = octets.len() as u32;
        let mut table = Attrs::default();
        table.bytes(1, TABLE).be32(2, 2);
        let mut set = Attrs::default();
        set.bytes(1, TABLE)
            .bytes(2, SET)
            .be32(3, 0)
            .be32(4, if len == 4 { 7 } else { 8 })
            .be32(5, len)
            .be32(10, 1);
        let mut chain = Attrs::default();
        chain.bytes(1, TABLE).bytes(3, CHAIN);
        chain.nest(4, |h| {
            h.be32(1, 0).be32(2, PRIORITY as u32);
        });
        chain.bytes(7, b"filter\0");
        let mut rule = Attrs::default();
        rule.bytes(1, TABLE).bytes(2, CHAIN);
        rule.nest(4, |list| {
            // Our address, UDP, the VXLAN port, and a source that is not in the set: count and drop.
            payload(list, 1, dst, len);
            compare(list, &octets);
            expression(list, b"meta\0", |e| {
                e.be32(1, 1).be32(2, 16);
            });
            compare(list, &[17]);
            payload(list, 2, 2, 2);
            compare(list, &port.to_be_bytes());
            payload(list, 1, src, len);
            expression(list, b"lookup\0", |e| {
                e.bytes(1, SET).be32(2, 1).be32(4, 1).be32(5, 1);
            });
            drop_it(list);
        });
        self.nft.batch(&[
            (NEWTABLE, F_CREATE, table),
            (NEWSET, F_CREATE, set),
            (NEWCHAIN, F_CREATE, chain),
            (NEWRULE, F_CREATE | 0x800, rule),
        ])
    }

    /// Makes `vteps` the allowed sources; only the difference is written.
    ///
    /// # Errors
    /// As the kernel gives them; the filter is then as it was.
    pub fn allow(&mut self, vteps: &BTreeSet<IpAddr>) -> io::Result<()> {
        let v4 = self.nft.family == 2;
        let ours = |a: &&IpAddr| a.is_ipv4() == v4;
        let add: Vec<IpAddr> = vteps.difference(&self.allowed).filter(ours).copied().collect();
        let del: Vec<IpAddr> = self.allowed.difference(vteps).copied().collect();
        let mut messages = Vec::new();
        if !add.is_empty() {
            messages.push((NEWSETELEM, F_CREATE, elements(&add)));
        }
        if !del.is_empty() {
            messages.push((DELSETELEM, 0, elements(&del)));
        }
        if messages.is_empty() {
            return Ok(());
        }
        self.nft.batch(&messages)?;
        self.allowed = vteps.iter().filter(ours).copied().collect();
        Ok(())
    }

    /// Packets dropped so far.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn dropped(&mut self) -> io::Result<u64> {
        self.nft.counted(CHAIN)
    }
}

/// A netlink socket that owns one table of its family.
#[derive(Debug)]
pub(super) struct Nft {
    socket: Socket,
    family: u8,
    seq: u32,
}

impl Nft {
    pub(super) fn open(family: u8) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, family, seq: 0 })
    }

    /// Packets counted by the rules of a chain.
    pub(super) fn counted(&mut self, chain: &[u8]) -> io::Result<u64> {
        let mut a = Attrs::default();
        a.bytes(1, TABLE).bytes(2, chain);
        let mut total = 0;
        self.dump(GETRULE, &a, |rule| total += counted(rule))?;
        Ok(total)
    }

    /// Packets of the named counters of a table. Names end with a zero.
    pub(super) fn counters(&mut self, table: &[u8]) -> io::Result<BTreeMap<Vec<u8>, u64>> {
        let mut a = Attrs::default();
        a.bytes(1, table);
        let mut all = BTreeMap::new();
        self.dump(GETOBJ, &a, |object| {
            let part = |kind| attrs(object).find(|(k, _)| *k == kind).map(|(_, v)| v);
            if part(1) == Some(table)
                && let (Some(name), Some(data)) = (part(2), part(4))
                && let Some((_, n)) = attrs(data).find(|(k, _)| *k == 2)
                && let Ok(n) = n.try_into().map(u64::from_be_bytes)
            {
                all.insert(name.to_vec(), n);
            }
        })?;
        Ok(all)
    }

    /// Reads all of a kind; each one's attributes go to `take`.
    fn dump(&mut self, kind: u16, filter: &Attrs, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut out = Vec::new();
        self.seq += 1;
        message(&mut out, (SUBSYS << 8) | kind, F_REQUEST | F_DUMP, self.seq, self.family, 0, &filter.0);
        self.socket.send(&out, 0)?;
        loop {
            let buf = receive(&self.socket)?;
            let mut rest = buf.as_slice();
            while let Some((kind, _, body, tail)) = split(rest) {
                match kind {
                    3 => return Ok(()),
                    2 => return Err(error_of(body)),
                    _ => take(body.get(4..).unwrap_or_default()),
                }
                rest = tail;
            }
        }
    }

    /// Applies all of them or none.
    pub(super) fn batch(&mut self, messages: &[(u16, u16, Attrs)]) -> io::Result<()> {
        let mut out = Vec::with_capacity(1024);
        let first = self.seq + 1;
        message(&mut out, BATCH_BEGIN, F_REQUEST, first, 0, SUBSYS, &[]);
        let mut seq = first;
        for (kind, flags, attrs) in messages {
            seq += 1;
            message(&mut out, (SUBSYS << 8) | kind, F_REQUEST | F_ACK | flags, seq, self.family, 0, &attrs.0);
        }
        message(&mut out, BATCH_END, F_REQUEST, seq + 1, 0, SUBSYS, &[]);
        self.seq = seq + 1;
        self.socket.send(&out, 0)?;
        let mut acks = 0;
        let mut failure = None;
        while acks < messages.len() {
            let buf = receive(&self.socket)?;
            let mut rest = buf.as_slice();
            while let Some((kind, at, body, tail)) = split(rest) {
                if kind == 2 && at >= first && at <= self.seq {
                    acks += 1;
                    let code =
                        i32::from_ne_bytes(body.get(..4).and_then(|b| b.try_into().ok()).unwrap_or_default());
                    if code != 0 {
                        failure.get_or_insert_with(|| io::Error::from_raw_os_error(-code));
                        // A failed batch is answered once per faulty message only.
                        return failure.map_or(Ok(()), Err);
                    }
                }
                rest = tail;
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn elements(ips: &[IpAddr]) -> Attrs {
    let mut a = Attrs::default();
    a.bytes(1, TABLE).bytes(2, SET);
    a.nest(3, |list| {
        for ip in ips {
            list.nest(1, |e| {
                e.nest(1, |k| {
                    k.bytes(1, &octets(*ip));
                });
            });
        }
    });
    a
}

pub(super) fn expression(list: &mut Attrs, name: &[u8], fill: impl FnOnce(&mut Attrs)) {
    list.nest(1, |e| {
        e.bytes(1, name).nest(2, fill);
    });
}

/// Loads `len` octets at `offset` of the network (1) or transport (2) header into register 1.
fn payload(list: &mut Attrs, base: u32, offset: u32, len: u32) {
    expression(list, b"payload\0", |e| {
        e.be32(1, 1).be32(2, base).be32(3, offset).be32(4, len);
    });
}

/// Drops what has come so far.
pub(super) fn drop_it(list: &mut Attrs) {
    expression(list, b"counter\0", |_| {});
    expression(list, b"immediate\0", |e| {
        e.be32(1, 0).nest(2, |d| {
            d.nest(2, |v| {
                v.be32(1, 0);
            });
        });
    });
}

/// Goes on only if register 1 equals `value`.
fn compare(list: &mut Attrs, value: &[u8]) {
    expression(list, b"cmp\0", |e| {
        e.be32(1, 1).be32(2, 0).nest(3, |d| {
            d.bytes(1, value);
        });
    });
}

/// Netlink attributes in the making.
#[derive(Debug, Default)]
pub(super) struct Attrs(pub(super) Vec<u8>);

impl Attrs {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
    pub(super) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }
    pub(super) fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | 0x8000, &inner.0)
    }
}

fn message(out: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, family: u8, res_id: u16, body: &[u8]) {
    let len = 20 + body.len() as u32;
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&res_id.to_be_bytes());
    out.extend_from_slice(body);
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut buf = Vec::with_capacity(16 * 1024);
    socket.recv(&mut buf, 0)?;
    Ok(buf)
}

/// Next message: type, sequence, body, and what follows.
fn split(b: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let head: &[u8; 16] = b.get(..16)?.try_into().ok()?;
    let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *head;
    let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
    let body = b.get(16..len)?;
    let tail = b.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([k0, k1]), u32::from_ne_bytes([s0, s1, s2, s3]), body, tail))
}

fn error_of(body: &[u8]) -> io::Error {
    let code = i32::from_ne_bytes(body.get(..4).and_then(|b| b.try_into().ok()).unwrap_or_default());
    io::Error::from_raw_os_error(-code)
}

fn attrs(mut b: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *b.first_chunk::<4>()?;
        let len = u16::from_ne_bytes([l0, l1]) as usize;
        let value = b.get(4..len)?;
        b = b.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

/// Packets of the counter expression of a rule.
fn counted(rule: &[u8]) -> u64 {
    attrs(rule)
        .filter(|(k, _)| *k == 4)
        .flat_map(|(_, list)| attrs(list))
        .filter(|(_, e)| attrs(e).any(|(k, v)| k == 1 && v == b"counter\0"))
        .flat_map(|(_, e)| attrs(e))
        .filter(|(k, _)| *k == 2)
        .flat_map(|(_, data)| attrs(data))
        .filter(|(k, _)| *k == 2)
        .filter_map(|(_, v)| v.try_into().ok().map(u64::from_be_bytes))
        .sum()
}
