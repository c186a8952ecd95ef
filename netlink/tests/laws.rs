//! The plan as a law: whatever is wanted and whatever the kernel holds.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

use evpn::fabric::{
    BridgeFdb, DeviceWant, FdbRow, KernelEvent, NeighRow, NeighState, Row, RowKey, Want, WriteResult,
};
use evpn::types::{IfIndex, Mac, Vni};
use netlink::fake::FakeKernel;
use netlink::plan::{plan, plan_key};
use netlink::{Kernel as _, Op, Reconciler};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}
fn vtep(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}
fn host(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

struct Lab {
    k: FakeKernel,
    rec: Reconciler,
    want: Want,
    bridge: IfIndex,
    vxlan: IfIndex,
    ports: [IfIndex; 2],
    /// A VXLAN device of somebody else.
    other: IfIndex,
    told: Vec<(RowKey, WriteResult)>,
}

impl Lab {
    fn new() -> Self {
        let mut k = FakeKernel::new();
        let bridge = k.add_bridge("br100", Mac([2, 0xbb, 0, 0, 0, 1]));
        let vxlan = k.add_vxlan("vx100", Vni::new(100).unwrap(), vtep(1), bridge, true);
        let ports = [1, 2].map(|n| k.add_port(&format!("p{n}"), Mac([6, 0, 0, 0, 0, n]), bridge));
        let foreign = k.add_bridge("br999", Mac([2, 0xbb, 0, 0, 0, 2]));
        let other = k.add_vxlan("vx999", Vni::new(999).unwrap(), vtep(1), foreign, false);
        let mut rec = Reconciler::new();
        rec.manage(&[DeviceWant {
            vni: Vni::new(100).unwrap(),
            bridge: "br100".to_owned(),
            bridge_mac: Mac([2, 0xbb, 0, 0, 0, 1]),
            vxlan: "vx100".to_owned(),
            local: vtep(1),
            udp_port: 4789,
            mtu: None,
            fdb_limit: 0,
            arp_suppression: true,
            unicast_flood: None,
            ports: Vec::new(),
            gateway: None,
        }]);
        Self { k, rec, want: Want::default(), bridge, vxlan, ports, other, told: Vec::new() }
    }

    /// Everything the kernel has to say, and reads that are asked for.
    fn hear(&mut self) -> Vec<KernelEvent> {
        let mut events = Vec::new();
        self.k.recv(usize::MAX, &mut events);
        for e in &events {
            self.rec.observe(e);
        }
        self.k.serve_reads(&mut self.rec, &mut events);
        events
    }

    fn write(&mut self, max: usize) -> bool {
        let mut any = false;
        while let Some(b) = self.rec.next_urgent(&mut self.want, max) {
            self.apply(b);
            any = true;
        }
        while let Some(b) = self.rec.next_batch(&mut self.want, max) {
            self.apply(b);
            any = true;
        }
        any
    }

    fn apply(&mut self, b: netlink::Batch) {
        let mut results = Vec::new();
        self.k.apply(&b.ops, &mut results);
        let told = self.rec.done(b, &results);
        self.told.extend(told);
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.hear();
            if !self.write(3) {
                return;
            }
        }
        panic!("does not settle: {:?}", plan(&self.want, self.rec.mirror()));
    }

    fn row(&self, key: RowKey, kind: u8, v: u8) -> Row {
        match key {
            RowKey::Mac { .. } if kind < 2 => {
                Row::Remote { vxlan: self.vxlan, vtep: vtep(2 + v % 3), sticky: kind == 1 }
            }
            RowKey::Mac { .. } if kind == 3 && v.is_multiple_of(3) => Row::Own,
            RowKey::Mac { .. } if kind == 4 => Row::Relayed {
                vxlan: self.vxlan,
                vtep: vtep(2 + v % 3),
                port: self.ports[usize::from(v % 2)],
            },
            RowKey::Mac { .. } if kind == 3 => Row::Cleared { port: self.ports[usize::from(v % 2)] },
            RowKey::Mac { .. } => Row::Local { vxlan: self.vxlan, port: self.ports[usize::from(v % 2)] },
            RowKey::Flood { .. } => Row::Flood,
            RowKey::Neigh { .. } => Row::Neigh { mac: mac(v % 4), router: kind == 0 },
        }
    }

    fn key(&self, kind: u8, n: u8) -> RowKey {
        match kind % 4 {
            0 | 1 => RowKey::Mac { bridge: self.bridge, mac: mac(n % 6) },
            2 => RowKey::Flood { vxlan: self.vxlan, vtep: vtep(2 + n % 3) },
            _ => RowKey::Neigh { dev: self.bridge, ip: host(n % 4) },
        }
    }

    /// Rows that are not ours to touch: on other devices, static or permanent without the mark, neighbours of
    /// other protocols that the kernel does not manage itself.
    fn foreign(&self) -> (BTreeSet<FdbRow>, Vec<NeighRow>) {
        let rows = self.k.snapshot();
        let sticky_ours = |m: Mac| {
            rows.iter().all(|r| match r {
                FdbRow::Vxlan(v) if v.dev == self.vxlan && v.mac == m => v.ext_learned,
                _ => true,
            })
        };
        let rows = rows
            .iter()
            .filter(|r| match r {
                FdbRow::Bridge(b) if b.bridge != self.bridge => true,
                FdbRow::Bridge(b) if b.port == self.vxlan => {
                    (b.is_static || b.permanent) && !b.ext_learned && !(b.sticky && sticky_ours(b.mac))
                }
                FdbRow::Bridge(b) if b.port == self.bridge => !b.ext_learned,
                FdbRow::Bridge(b) => b.is_static || b.permanent,
                FdbRow::Vxlan(v) if v.dev != self.vxlan => true,
                FdbRow::Vxlan(v) => !v.ext_learned,
            })
            .copied()
            .collect();
        let own =
            |r: &&NeighRow| !r.is_ours() && matches!(r.state, NeighState::NoArp | NeighState::Permanent);
        (rows, self.k.neighbours().filter(own).copied().collect())
    }

    /// What others do to the kernel behind our back.
    fn meddle(&mut self, what: u8, n: u8, v: u8) {
        let (m, port) = (mac(n % 6), self.ports[usize::from(v % 2)]);
        let op = match what % 12 {
            0 => {
                self.k.inject(port, &frame(m));
                return;
            }
            1 => Op::DelMaster { port: self.vxlan, mac: m },
            2 => Op::DelSelf { vxlan: self.vxlan, mac: m, vtep: vtep(2 + v % 3) },
            3 => Op::SetRemote { vxlan: self.vxlan, mac: m, vtep: vtep(2 + v % 3) },
            4 => Op::DelFlood { vxlan: self.vxlan, vtep: vtep(2 + v % 3) },
            5 => Op::DelNeigh { dev: self.bridge, ip: host(n % 4) },
            6 => {
                let state = if v.is_multiple_of(2) { NeighState::Permanent } else { NeighState::Valid };
                let (dev, ip, mac) = (self.bridge, host(n % 4), Some(mac(7)));
                self.k.put_neigh(NeighRow {
                    dev,
                    ip,
                    mac,
                    state,
                    ext_learned: false,
                    router: false,
                    protocol: 0,
                });
                return;
            }
            7 => Op::SetSticky { vxlan: self.vxlan, mac: m },
            9 => Op::SetOwn { bridge: self.bridge, mac: m },
            10 => Op::DelOwn { bridge: self.bridge, mac: m },
            8 => Op::SetRemote { vxlan: self.other, mac: m, vtep: vtep(9) },
            _ => {
                let on = v.is_multiple_of(2);
                self.k.set_carrier(port, on);
                return;
            }
        };
        self.k.apply(&[op], &mut Vec::new());
    }
}

fn frame(from: Mac) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend(from.0);
    f.extend([0x88, 0xb5]);
    f.resize(60, 0);
    f
}

type Step = (u8, u8, u8);
fn steps(n: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<Step>(), 0..n)
}

/// What keeps a wanted row from being there although all is well: a refusal, or a kernel that refuses.
fn refused(lab: &Lab) -> BTreeSet<RowKey> {
    let mut out = BTreeSet::new();
    for (k, _) in lab.want.iter() {
        if plan_key(&lab.want, lab.rec.mirror(), *k, &mut Vec::new()).is_err() {
            out.insert(*k);
        }
    }
    out
}

proptest! {
    /// From any state of the kernel one plan reaches what is wanted, a second one is empty, nothing foreign is
    /// touched, and looking at each dirty key by itself ends in the same place.
    #[test]
    fn the_plan_reaches_what_is_wanted_and_touches_nothing_foreign(
        meddling in steps(40), wishes in steps(20),
    ) {
        let mut lab = Lab::new();
        for (a, b, c) in meddling {
            lab.meddle(a, b, c);
        }
        for p in lab.ports {
            lab.k.set_carrier(p, true);
        }
        lab.hear();
        let foreign = lab.foreign();
        for (a, b, c) in wishes {
            let key = lab.key(a, b);
            let row = lab.row(key, c % 5, a ^ c);
            lab.want.set(key, row, c % 2 == 0);
        }
        let whole = plan(&lab.want, lab.rec.mirror());
        let mut single = Vec::new();
        for n in lab.rec.mirror().own_keys(None, 1000) {
            if lab.want.get(&n).is_none() {
                let _ = plan_key(&lab.want, lab.rec.mirror(), n, &mut single);
            }
        }
        for (k, _) in lab.want.iter() {
            let _ = plan_key(&lab.want, lab.rec.mirror(), *k, &mut single);
        }
        prop_assert_eq!(&whole, &single);
        let mut results = Vec::new();
        let mut after = lab.k.clone();
        after.apply(&whole, &mut results);
        prop_assert!(results.iter().all(Result::is_ok), "{:?} of {:?}", results, whole);
        lab.k = after;
        lab.hear();
        prop_assert_eq!(plan(&lab.want, lab.rec.mirror()), vec![]);
        prop_assert_eq!(lab.foreign(), foreign);
        let refused = refused(&lab);
        for (k, row) in lab.want.iter().filter(|(k, _)| !refused.contains(k)) {
            prop_assert!(holds(&lab, *k, *row), "{:?} {:?} in {:?}", k, row, lab.k.snapshot());
        }
    }

    /// Wishes, meddling, lost notifications and short reads in any order: once all is quiet the kernel has what
    /// is wanted, the mirror is the kernel, and each key that was asked for was answered.
    #[test]
    fn whatever_happens_in_between_kernel_mirror_and_wishes_agree_in_the_end(
        script in steps(80), queue in 1usize..40, short in 0u32..4,
    ) {
        let mut lab = Lab::new();
        lab.hear();
        let foreign_free = |what: u8| !matches!(what % 12, 6 | 7 | 11);
        let mut asked = BTreeSet::new();
        for (a, b, c) in script {
            match a % 5 {
                0 | 1 => {
                    let key = lab.key(b, c);
                    let row = lab.row(key, (a / 5) % 5, b ^ c);
                    if lab.want.set(key, row, c % 2 == 0) {
                        asked.insert(key);
                    }
                }
                2 => {
                    let key = lab.key(b, c);
                    if lab.want.remove(&key, c % 2 == 0) {
                        asked.insert(key);
                    }
                }
                3 if foreign_free(b) => lab.meddle(b, c, a),
                3 => {
                    lab.k.set_queue(queue);
                    lab.k.set_short_dumps(short, u64::from(c));
                }
                _ if c % 3 == 0 => {
                    lab.hear();
                }
                _ => {
                    lab.write(1 + usize::from(c % 4));
                }
            }
        }
        lab.k.set_queue(100_000);
        lab.settle();
        lab.k.set_short_dumps(0, 0);
        // A resync and a whole audit find nothing more than what others did meanwhile.
        lab.rec.resync(netlink::reconcile::Scope::All);
        lab.settle();
        while lab.rec.audit_slice(&lab.want, 7) > 0 {
            lab.settle();
        }
        lab.settle();
        prop_assert_eq!(plan(&lab.want, lab.rec.mirror()), vec![]);
        for (k, row) in lab.want.iter() {
            prop_assert!(holds(&lab, *k, *row), "{:?} {:?} in {:?}", k, row, lab.k.snapshot());
        }
        let mirror: BTreeSet<FdbRow> = lab
            .rec
            .mirror()
            .rows()
            .filter_map(|e| match e { KernelEvent::Fdb(r) => Some(r), _ => None })
            .collect();
        let kernel: BTreeSet<FdbRow> = lab
            .k
            .snapshot()
            .into_iter()
            .filter(|r| match r {
                FdbRow::Bridge(b) => b.bridge == lab.bridge,
                FdbRow::Vxlan(v) => v.dev == lab.vxlan,
            })
            .collect();
        prop_assert_eq!(mirror, kernel);
        for key in asked {
            prop_assert!(lab.told.iter().any(|(k, _)| *k == key), "no answer for {:?}", key);
        }
    }
}

/// Whether the kernel itself has it, by a rule written down apart from the plan's.
fn holds(lab: &Lab, key: RowKey, row: Row) -> bool {
    let rows = lab.k.snapshot();
    let bridge = |m: Mac| {
        rows.iter().find_map(|r| match r {
            FdbRow::Bridge(b) if b.bridge == lab.bridge && b.mac == m => Some(*b),
            _ => None,
        })
    };
    let own = |m: Mac| {
        rows.iter().find_map(|r| match r {
            FdbRow::Vxlan(v) if v.dev == lab.vxlan && v.mac == m && v.ext_learned => v.vtep,
            _ => None,
        })
    };
    match (key, row) {
        (RowKey::Mac { mac, .. }, Row::Remote { vxlan, vtep, sticky }) => {
            bridge(mac).is_some_and(|b| b.port == vxlan && b.sticky == sticky && b.ext_learned != sticky)
                && own(mac) == Some(vtep)
        }
        (RowKey::Mac { mac, .. }, Row::Local { port, .. }) => {
            let lasts = |b: BridgeFdb| b.ext_learned && !b.is_static && !b.permanent;
            bridge(mac).is_some_and(|b| b.port == port && !lasts(b)) && own(mac).is_none()
        }
        (RowKey::Mac { mac, .. }, Row::Relayed { vtep, port, .. }) => {
            bridge(mac).is_some_and(|b| b.port == port) && own(mac) == Some(vtep)
        }
        // A static row there is somebody else's, and stays.
        (RowKey::Mac { mac, .. }, Row::Cleared { port }) => {
            bridge(mac).is_none_or(|b| b.port != port || b.is_static || b.permanent) && own(mac).is_none()
        }
        (RowKey::Mac { mac, .. }, Row::Own) => {
            bridge(mac).is_some_and(|b| b.port == lab.bridge && b.permanent) && own(mac).is_none()
        }
        (RowKey::Flood { vtep, .. }, Row::Flood) => rows.iter().any(|r| {
            matches!(r, FdbRow::Vxlan(v) if v.dev == lab.vxlan && v.mac.is_zero() && v.vtep == Some(vtep))
        }),
        (RowKey::Neigh { ip, .. }, Row::Neigh { mac, router }) => lab.k.neighbours().any(|n| {
            n.ip == ip && n.mac == Some(mac) && n.router == router && n.is_ours() && n.state == NeighState::NoArp
        }),
        _ => false,
    }
}

/// PIT-05: a remote write on its way overtakes the guest; the local MAC that won is put back without another
/// frame, and the answers of both writes come in any order.
#[test]
fn a_remote_write_that_overtakes_the_guest_is_repaired_without_another_frame() {
    let mut lab = Lab::new();
    lab.hear();
    let key = RowKey::Mac { bridge: lab.bridge, mac: mac(1) };
    let (vxlan, port) = (lab.vxlan, lab.ports[0]);
    lab.want.set(key, Row::Remote { vxlan, vtep: vtep(2), sticky: false }, false);
    let late = lab.rec.next_batch(&mut lab.want, 10).unwrap();
    // The guest arrives while the write is on its way; the node decides that it is ours.
    lab.k.inject(port, &frame(mac(1)));
    lab.hear();
    lab.want.set(key, Row::Local { vxlan, port }, true);
    assert!(lab.rec.next_urgent(&mut lab.want, 10).is_none(), "the key is on its way");
    lab.apply(late);
    lab.settle();
    assert!(holds(&lab, key, Row::Local { vxlan, port }), "{:?}", lab.k.snapshot());
    assert_eq!(lab.told.iter().filter(|(k, _)| *k == key).count(), 2);
}

/// PIT-06: the kernel refuses to delete the remote row of a MAC that is activated here, and takes the local one over it.
/// The mark that stays (`a_plain_write_over_a_marked_row_keeps_the_mark`) would keep the row for ever: no frame tells of
/// the guest, no ageing and no carrier loss ends it.
#[test]
fn a_local_row_over_a_remote_one_that_could_not_be_deleted_is_written_anew() {
    let mut lab = Lab::new();
    lab.hear();
    let key = RowKey::Mac { bridge: lab.bridge, mac: mac(1) };
    let (vxlan, port) = (lab.vxlan, lab.ports[0]);
    lab.want.set(key, Row::Remote { vxlan, vtep: vtep(2), sticky: false }, true);
    lab.settle();
    lab.k.fail_next(libc::ENOBUFS);
    let row = Row::Local { vxlan, port };
    lab.want.set(key, row, true);
    lab.write(10);
    assert!(matches!(lab.told.last(), Some((_, WriteResult::Failed { .. }))), "{:?}", lab.told);
    lab.settle();
    assert!(holds(&lab, key, row), "{:?}", lab.k.snapshot());
    lab.k.set_carrier(port, false);
    assert!(!lab.k.snapshot().iter().any(|r| matches!(r, FdbRow::Bridge(b) if b.mac == mac(1))));
}

/// Design section 6: twenty late frames from the source after a lost move; the row is put back each time.
#[test]
fn late_frames_are_answered_by_putting_the_row_back() {
    let mut lab = Lab::new();
    lab.hear();
    let key = RowKey::Mac { bridge: lab.bridge, mac: mac(1) };
    let row = Row::Remote { vxlan: lab.vxlan, vtep: vtep(2), sticky: false };
    lab.want.set(key, row, true);
    lab.settle();
    for n in 1..=20 {
        lab.k.inject(lab.ports[0], &frame(mac(1)));
        lab.hear();
        lab.write(10);
        assert!(holds(&lab, key, row), "after frame {n}");
        assert_eq!(lab.rec.counters().repairs, n);
    }
}

#[test]
fn a_refused_row_is_told_once_by_name_and_tried_again_by_the_audit() {
    let mut lab = Lab::new();
    lab.hear();
    let key = RowKey::Mac { bridge: lab.bridge, mac: Mac([6, 0, 0, 0, 0, 1]) };
    let row = Row::Remote { vxlan: lab.vxlan, vtep: vtep(2), sticky: false };
    lab.want.set(key, row, true);
    lab.settle();
    let text = match &lab.told[..] {
        [(k, WriteResult::Failed { text, .. })] if *k == key => text.clone(),
        other => panic!("{other:?}"),
    };
    assert!(text.contains("foreign") && text.contains("p1"), "{text}");
    lab.rec.audit_slice(&lab.want, 100);
    lab.settle();
    assert_eq!(lab.told.len(), 1);
    // The kernel refuses for a while: reported once, then done by an audit.
    let key = RowKey::Neigh { dev: lab.bridge, ip: host(1) };
    let (bridge, neigh) = (lab.bridge, Row::Neigh { mac: mac(1), router: false });
    lab.k.fail_device(bridge, Some(libc::ENETDOWN));
    lab.want.set(key, neigh, false);
    lab.settle();
    assert!(
        matches!(lab.told.last(), Some((k, WriteResult::Failed { errno: libc::ENETDOWN, .. })) if *k == key)
    );
    lab.k.fail_device(bridge, None);
    lab.rec.audit_slice(&lab.want, 100);
    lab.settle();
    assert!(holds(&lab, key, neigh));
}

/// PIT-01: after a flush everything is looked at; the many rows in which all is well must not hide the few that
/// are missing until something else happens.
#[test]
fn one_pass_rewrites_what_a_flush_took_however_many_rows_are_well() {
    let mut lab = Lab::new();
    lab.hear();
    let remote = Row::Remote { vxlan: lab.vxlan, vtep: vtep(2), sticky: false };
    for n in 1..=200 {
        lab.want.set(RowKey::Mac { bridge: lab.bridge, mac: mac(n) }, remote, false);
    }
    let neighbours: Vec<_> =
        (1..=40).map(|n| (RowKey::Neigh { dev: lab.bridge, ip: host(n) }, mac(n))).collect();
    for (key, mac) in &neighbours {
        lab.want.set(*key, Row::Neigh { mac: *mac, router: false }, false);
    }
    lab.hear();
    lab.write(8);
    let missing = |lab: &Lab| {
        neighbours.iter().filter(|(k, mac)| !holds(lab, *k, Row::Neigh { mac: *mac, router: false })).count()
    };
    assert_eq!(missing(&lab), 0);
    lab.k.change(lab.bridge, |l| l.mac = Mac([2, 0xbb, 0, 0, 0, 9]));
    lab.hear();
    if let Some(b) = lab.rec.next_urgent(&mut lab.want, 8) {
        lab.apply(b);
    }
    while let Some(b) = lab.rec.next_batch(&mut lab.want, 8) {
        lab.apply(b);
    }
    assert_eq!(missing(&lab), 0, "{:?}", lab.rec.counters());
}
