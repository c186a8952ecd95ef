//! Deleting what the kernel answers ARP and ND from, when nobody keeps it true any more (PIT-20).

use super::Writer;
use super::dump::Reader;
use super::monitor::Interest;
use crate::op::{Kernel as _, Op};
use evpn::fabric::{KernelEvent, Link, LinkKind};
use evpn::types::IfIndex;
use std::collections::BTreeSet;
use std::io;

/// A table that changes while it is read may be read short; so often it is looked at again.
const ROUNDS: usize = 4;

/// Deletes the neighbour rows of ours, known by their `NDA_PROTOCOL` (PIT-27), on the bridges of these names; returns how many.
/// Forwarding rows and everybody else's neighbours stay.
///
/// # Errors
/// The kernel's tables cannot be had. Rows that it does not delete are tried again and then left.
pub fn delete_answers(bridges: &BTreeSet<String>) -> io::Result<usize> {
    let mut reader = Reader::open()?;
    let mut writer = Writer::open()?;
    let mut deleted = 0;
    for _ in 0..ROUNDS {
        let ops = ours(&mut reader, bridges)?;
        if ops.is_empty() {
            break;
        }
        let mut results = Vec::with_capacity(ops.len());
        writer.apply(&ops, &mut results);
        deleted += results.iter().filter(|r| r.is_ok()).count();
    }
    Ok(deleted)
}

fn ours(reader: &mut Reader, bridges: &BTreeSet<String>) -> io::Result<Vec<Op>> {
    let failed = |e: crate::op::OpError| io::Error::from_raw_os_error(e.errno);
    let named = |l: &Link| matches!(l.kind, LinkKind::Bridge(_)) && bridges.contains(&l.name);
    let devices: BTreeSet<IfIndex> =
        reader.links().map_err(failed)?.iter().filter(|l| named(l)).map(|l| l.index).collect();
    let mut ops = Vec::new();
    let whole = reader.neigh(&Interest::everything(), &mut |events| {
        for e in events {
            if let KernelEvent::Neigh(row) = e
                && row.is_ours()
                && devices.contains(&row.dev)
            {
                ops.push(Op::DelNeigh { dev: row.dev, ip: row.ip });
            }
        }
    });
    whole.map_err(failed)?;
    Ok(ops)
}
