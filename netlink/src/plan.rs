//! The difference between what is wanted and what the kernel holds. Pure.
//!
//! Ownership (PIT-27): forwarding rows with `NTF_EXT_LEARNED` on a VXLAN device that we manage, and neighbour
//! rows with our `NDA_PROTOCOL` on a bridge that we manage. A row that the kernel learned by itself may be
//! replaced; a static or permanent row of somebody else is left alone, and a wish that collides with one is
//! refused by name.

use crate::mirror::{BridgeEntry, Mirror};
use crate::op::Op;
use evpn::fabric::{NeighState, Row, RowKey, Want};
use evpn::types::{IfIndex, Mac};
use std::net::IpAddr;

/// Why a wanted row cannot be had without touching what is not ours.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// `EEXIST` for a row in the way, `ENODEV` for a device that is not ours or not there.
    pub errno: i32,
    /// For people: what is in the way and the way out.
    pub text: String,
}

/// Everything that differs, in an order that is safe to apply: what is to go first, then what is to come.
/// Rows that would collide with foreign ones are left out.
pub fn plan(want: &Want, mirror: &Mirror) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut after = None;
    loop {
        let keys = mirror.own_keys(after, 1024);
        let Some(last) = keys.last() else { break };
        after = Some(*last);
        for k in keys.iter().filter(|k| want.get(k).is_none()) {
            let _ = plan_key(want, mirror, *k, &mut ops);
        }
    }
    for (k, _) in want.iter() {
        let _ = plan_key(want, mirror, *k, &mut ops);
    }
    ops
}

/// What differs for one key. Appends nothing if all is well there.
pub fn plan_key(want: &Want, mirror: &Mirror, key: RowKey, ops: &mut Vec<Op>) -> Result<(), Refused> {
    plan_row(want.get(&key), mirror, key, ops)
}

/// As [`plan_key`], for a wish that is not (or no longer) in a [`Want`]. `None`: no row of ours there.
pub fn plan_row(row: Option<&Row>, mirror: &Mirror, key: RowKey, ops: &mut Vec<Op>) -> Result<(), Refused> {
    match key {
        RowKey::Mac { bridge, mac } => match row {
            None => {
                no_mac(mirror, bridge, mac, ops);
                Ok(())
            }
            Some(Row::Remote { vxlan, vtep, sticky }) => {
                remote(mirror, Place { bridge, mac, vxlan: *vxlan }, *vtep, *sticky, ops)
            }
            Some(Row::Local { vxlan, port }) => {
                local(mirror, Place { bridge, mac, vxlan: *vxlan }, *port, ops)
            }
            Some(Row::Relayed { vxlan, vtep, port }) => {
                relayed(mirror, Place { bridge, mac, vxlan: *vxlan }, *vtep, *port, ops)
            }
            Some(Row::Cleared { port }) => {
                no_mac(mirror, bridge, mac, ops);
                let row = mirror.bridge_row(bridge, mac);
                if row.is_some_and(|r| r.port == *port && !foreign(mirror, r, mac)) {
                    ops.push(Op::DelMaster { port: *port, mac });
                }
                Ok(())
            }
            Some(Row::Own) => own(mirror, bridge, mac, ops),
            Some(Row::Flood | Row::Neigh { .. }) => Err(misfit(key)),
        },
        RowKey::Flood { vxlan, vtep } => match (row, mirror.flood_row(vxlan, vtep)) {
            // A row of somebody else with the same destination does the same work.
            (Some(Row::Flood), Some(_)) | (None, None | Some(false)) => Ok(()),
            (Some(Row::Flood), None) => {
                managed_vxlan(mirror, vxlan)?;
                ops.push(Op::AddFlood { vxlan, vtep });
                Ok(())
            }
            (None, Some(true)) => {
                if mirror.manages_vxlan(vxlan) {
                    ops.push(Op::DelFlood { vxlan, vtep });
                }
                Ok(())
            }
            (Some(_), _) => Err(misfit(key)),
        },
        RowKey::Neigh { dev, ip } => match row {
            None => {
                if mirror.neigh_row(dev, ip).is_some_and(evpn::fabric::NeighRow::is_ours)
                    && mirror.manages_bridge(dev)
                {
                    ops.push(Op::DelNeigh { dev, ip });
                }
                Ok(())
            }
            Some(Row::Neigh { mac, router }) => neigh(mirror, dev, ip, *mac, *router, ops),
            Some(
                Row::Remote { .. }
                | Row::Local { .. }
                | Row::Relayed { .. }
                | Row::Cleared { .. }
                | Row::Own
                | Row::Flood,
            ) => Err(misfit(key)),
        },
    }
}

#[derive(Clone, Copy)]
struct Place {
    bridge: IfIndex,
    mac: Mac,
    vxlan: IfIndex,
}

fn misfit(key: RowKey) -> Refused {
    Refused { errno: libc::EINVAL, text: format!("the wanted row does not fit its key {key:?}") }
}

fn managed_vxlan(mirror: &Mirror, vxlan: IfIndex) -> Result<(), Refused> {
    if mirror.manages_vxlan(vxlan) {
        return Ok(());
    }
    let text = format!("{} is not there, or not a VXLAN device with the configured VNI", mirror.name(vxlan));
    Err(Refused { errno: libc::ENODEV, text })
}

/// A bridge row that neither we nor learning made. (A marked row on an access port is learning too, by a
/// switch chip or whoever else tells the bridge.)
fn foreign(mirror: &Mirror, row: BridgeEntry, mac: Mac) -> bool {
    !mirror.owns_bridge_row(row, mac) && (row.is_static() || row.permanent())
}

fn in_the_way(mirror: &Mirror, row: BridgeEntry, mac: Mac) -> Refused {
    let port = mirror.name(row.port);
    let text = if row.permanent() {
        format!("foreign row: {mac} is an address of {port} itself")
    } else {
        format!("foreign row: {mac} is static on {port}; `bridge fdb del {mac} dev {port} master` frees it")
    };
    Refused { errno: libc::EEXIST, text }
}

/// No row of ours: neither in the bridge nor in any of its VXLAN devices.
fn no_mac(mirror: &Mirror, bridge: IfIndex, mac: Mac, ops: &mut Vec<Op>) {
    let row = mirror.bridge_row(bridge, mac).filter(|r| mirror.owns_bridge_row(*r, mac));
    if row.is_some_and(|r| r.port == bridge) {
        ops.push(Op::DelOwn { bridge, mac });
    }
    for vxlan in mirror.vxlans_of(bridge) {
        let here = row.is_some_and(|r| r.port == vxlan);
        let own = mirror.self_row(vxlan, mac).filter(|s| s.ext_learned()).and_then(|s| s.vtep);
        match (here, own) {
            (true, Some(vtep)) => ops.push(Op::DelRemote { vxlan, mac, vtep }),
            (true, None) => ops.push(Op::DelMaster { port: vxlan, mac }),
            (false, Some(vtep)) => ops.push(Op::DelSelf { vxlan, mac, vtep }),
            (false, None) => {}
        }
    }
}

/// What stands where a row to a VTEP is to be.
struct WayOut {
    /// The `self` row is right already.
    self_ok: bool,
    /// The bridge's row.
    row: Option<BridgeEntry>,
}

/// Nobody else's row is in the way of one to a VTEP; what other VXLAN devices of the bridge had of ours goes.
fn way_out(mirror: &Mirror, at: Place, vtep: IpAddr, ops: &mut Vec<Op>) -> Result<WayOut, Refused> {
    let Place { bridge, mac, vxlan } = at;
    managed_vxlan(mirror, vxlan)?;
    if mirror.master_of(vxlan) != Some(bridge) {
        let text = format!("{} is not a port of {}", mirror.name(vxlan), mirror.name(bridge));
        return Err(Refused { errno: libc::ENODEV, text });
    }
    let row = mirror.bridge_row(bridge, mac);
    let own = mirror.self_row(vxlan, mac);
    if let Some(r) = row.filter(|r| foreign(mirror, *r, mac)) {
        return Err(in_the_way(mirror, r, mac));
    }
    if own.is_some_and(|s| !s.ext_learned() && s.permanent()) {
        let dev = mirror.name(vxlan);
        let text = format!(
            "foreign row: {mac} is permanent on {dev}; `bridge fdb del {mac} dev {dev} self` frees it"
        );
        return Err(Refused { errno: libc::EEXIST, text });
    }
    // It was an address of this bridge before: a write would leave it one.
    let row = if row.is_some_and(|r| r.port == bridge) {
        ops.push(Op::DelOwn { bridge, mac });
        None
    } else {
        row
    };
    for other in mirror.vxlans_of(bridge).filter(|v| *v != vxlan) {
        if let Some(old) = mirror.self_row(other, mac).filter(|s| s.ext_learned()).and_then(|s| s.vtep) {
            ops.push(Op::DelSelf { vxlan: other, mac, vtep: old });
        }
    }
    Ok(WayOut { self_ok: own.is_some_and(|s| s.ext_learned() && s.vtep == Some(vtep)), row })
}

fn remote(mirror: &Mirror, at: Place, vtep: IpAddr, sticky: bool, ops: &mut Vec<Op>) -> Result<(), Refused> {
    let Place { mac, vxlan, .. } = at;
    let WayOut { self_ok, row } = way_out(mirror, at, vtep, ops)?;
    if sticky {
        let row_ok = row.is_some_and(|r| r.port == vxlan && r.sticky() && r.is_static() && !r.ext_learned());
        if !self_ok {
            ops.push(Op::SetSelf { vxlan, mac, vtep });
        }
        if !row_ok {
            // Over a marked row the mark would stay, and take the stickiness with it at the next write.
            if let Some(r) = row.filter(|r| r.ext_learned()) {
                ops.push(Op::DelMaster { port: r.port, mac });
            }
            ops.push(Op::SetSticky { vxlan, mac });
        }
        return Ok(());
    }
    let fixed = |r: &BridgeEntry| r.sticky() || r.is_static() || r.permanent();
    let row_ok = row.is_some_and(|r| r.port == vxlan && r.ext_learned() && !fixed(&r));
    if row_ok && self_ok {
        return Ok(());
    }
    // Static, sticky and permanent survive a write with the mark: such a row of ours goes first.
    if let Some(r) = row.filter(fixed) {
        ops.push(Op::DelMaster { port: r.port, mac });
    }
    ops.push(Op::SetRemote { vxlan, mac, vtep });
    Ok(())
}

fn local(mirror: &Mirror, at: Place, port: IfIndex, ops: &mut Vec<Op>) -> Result<(), Refused> {
    let Place { bridge, mac, vxlan } = at;
    let row = mirror.bridge_row(bridge, mac);
    // Marked, it is what is left of a remote row whose deletion was refused: it would outlive its guest, carrier or no.
    let marked = |r: BridgeEntry| r.ext_learned() && !r.is_static() && !r.permanent();
    if row.is_some_and(|r| r.port == port && !marked(r)) {
        if let Some(vtep) = mirror.self_row(vxlan, mac).filter(|s| s.ext_learned()).and_then(|s| s.vtep) {
            ops.push(Op::DelSelf { vxlan, mac, vtep });
        }
        return Ok(());
    }
    if let Some(r) = row.filter(|r| foreign(mirror, *r, mac)) {
        return Err(in_the_way(mirror, r, mac));
    }
    if mirror.master_of(port) != Some(bridge) {
        let text = format!("{} is not a port of {}", mirror.name(port), mirror.name(bridge));
        return Err(Refused { errno: libc::ENODEV, text });
    }
    // A plain write over a marked row would leave the mark, and a marked row never ages.
    no_mac(mirror, bridge, mac, ops);
    if let Some(r) = row.filter(|r| r.ext_learned() && r.port != bridge && !mirror.manages_vxlan(r.port)) {
        ops.push(Op::DelMaster { port: r.port, mac });
    }
    ops.push(Op::SetLocal { port, mac });
    Ok(())
}

/// An address of the bridge itself. A permanent row there satisfies it, whoever made it.
fn own(mirror: &Mirror, bridge: IfIndex, mac: Mac, ops: &mut Vec<Op>) -> Result<(), Refused> {
    if !mirror.manages_bridge(bridge) {
        let text = format!("{} is not there, or not a bridge of ours", mirror.name(bridge));
        return Err(Refused { errno: libc::ENODEV, text });
    }
    let row = mirror.bridge_row(bridge, mac);
    let there = row.is_some_and(|r| r.port == bridge && r.permanent());
    if let Some(r) = row.filter(|r| !there && foreign(mirror, *r, mac)) {
        return Err(in_the_way(mirror, r, mac));
    }
    if there {
        for vxlan in mirror.vxlans_of(bridge) {
            if let Some(vtep) = mirror.self_row(vxlan, mac).filter(|s| s.ext_learned()).and_then(|s| s.vtep) {
                ops.push(Op::DelSelf { vxlan, mac, vtep });
            }
        }
        return Ok(());
    }
    no_mac(mirror, bridge, mac, ops);
    // Somebody speaks with it already. A write over that row would leave its flags.
    if let Some(r) = row.filter(|r| !mirror.owns_bridge_row(*r, mac)) {
        ops.push(Op::DelMaster { port: r.port, mac });
    }
    ops.push(Op::SetOwn { bridge, mac });
    Ok(())
}

fn relayed(
    mirror: &Mirror,
    at: Place,
    vtep: IpAddr,
    port: IfIndex,
    ops: &mut Vec<Op>,
) -> Result<(), Refused> {
    let Place { bridge, mac, vxlan } = at;
    if mirror.master_of(port) != Some(bridge) {
        let text = format!("{} is not a port of {}", mirror.name(port), mirror.name(bridge));
        return Err(Refused { errno: libc::ENODEV, text });
    }
    // The way to the VTEP first: what is on its way through the hold port is sent by it.
    let WayOut { self_ok, row } = way_out(mirror, at, vtep, ops)?;
    if !self_ok {
        ops.push(Op::SetSelf { vxlan, mac, vtep });
    }
    if row.is_some_and(|r| r.port == port) {
        return Ok(());
    }
    // As in `local`: a mark would stay, and so would static and sticky.
    if let Some(r) = row.filter(|r| r.ext_learned() || r.is_static() || r.sticky()) {
        ops.push(Op::DelMaster { port: r.port, mac });
    }
    ops.push(Op::SetLocal { port, mac });
    Ok(())
}

fn neigh(
    mirror: &Mirror,
    dev: IfIndex,
    ip: IpAddr,
    mac: Mac,
    router: bool,
    ops: &mut Vec<Op>,
) -> Result<(), Refused> {
    if !mirror.manages_bridge(dev) {
        let text = format!("{} is not there, or not a bridge of ours", mirror.name(dev));
        return Err(Refused { errno: libc::ENODEV, text });
    }
    match mirror.neigh_row(dev, ip) {
        Some(r) if r.is_ours() => {
            let ok =
                r.mac == Some(mac) && r.router == router && r.state == NeighState::NoArp && r.ext_learned;
            if ok {
                return Ok(());
            }
        }
        Some(r) if matches!(r.state, NeighState::NoArp | NeighState::Permanent) => {
            let dev = mirror.name(dev);
            let text = format!(
                "foreign row: {ip} is a static neighbour on {dev} (protocol {}); `ip neigh del {ip} dev {dev}` frees it",
                r.protocol
            );
            return Err(Refused { errno: libc::EEXIST, text });
        }
        Some(_) | None => {}
    }
    ops.push(Op::SetNeigh { dev, ip, mac, router });
    Ok(())
}
