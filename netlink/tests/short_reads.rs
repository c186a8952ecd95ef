//! PIT-13 where nothing is known yet: rows that a read leaves out because others went while it lasted.

use evpn::fabric::{DeviceWant, FdbRow, KernelEvent, Want};
use evpn::types::{IfIndex, Mac, Vni};
use netlink::fake::FakeKernel;
use netlink::{Kernel as _, Op, Reconciler};
use std::net::IpAddr;

fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

fn vtep(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

/// Rows of eight MACs that an earlier run has left, and a daemon that starts.
fn left_behind() -> (FakeKernel, Reconciler, IfIndex) {
    let mut k = FakeKernel::new();
    let vni = Vni::new(100).expect("valid");
    let bridge_mac = Mac([2, 0xbb, 0, 0, 0, 1]);
    let bridge = k.add_bridge("br100", bridge_mac);
    let vxlan = k.add_vxlan("vx100", vni, vtep(1), bridge, true);
    let rows: Vec<Op> = (1..=8).map(|n| Op::SetRemote { vxlan, mac: mac(n), vtep: vtep(2) }).collect();
    k.apply(&rows, &mut Vec::new());
    let mut rec = Reconciler::new();
    rec.manage(&[DeviceWant {
        vni,
        bridge: "br100".to_owned(),
        bridge_mac,
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
    k.recv(usize::MAX, &mut Vec::new());
    (k, rec, vxlan)
}

/// One read, in the middle of which somebody deletes the row of a MAC. What it gives the node.
fn read(k: &mut FakeKernel, rec: &mut Reconciler, vxlan: IfIndex, goes: Option<u8>) -> Vec<KernelEvent> {
    let (generation, scope) = rec.take_scope().expect("a read is due");
    let first = k.dump(scope);
    if let Some(n) = goes {
        k.apply(&[Op::DelRemote { vxlan, mac: mac(n), vtep: vtep(2) }], &mut Vec::new());
    }
    let rows = k.resume_dump(scope, &first, 50);
    let mut news = Vec::new();
    k.recv(usize::MAX, &mut news);
    for ev in &news {
        rec.observe(ev);
    }
    rec.dumped(generation, &rows, &mut news);
    let suspects = rec.end_dump(generation, true);
    let verdicts = k.confirm(&suspects);
    rec.confirmed(generation, &verdicts, &mut news);
    news
}

fn shown(news: &[KernelEvent]) -> Vec<u8> {
    let of = |ev: &KernelEvent| match ev {
        KernelEvent::Fdb(FdbRow::Vxlan(r)) => r.mac.0.last().copied(),
        _ => None,
    };
    news.iter().filter_map(of).collect()
}

/// PIT-13, PIT-27: a row that the first read left out is told before the tables are called known, so that it is
/// adopted as the others are, and swept with them.
#[test]
fn what_the_first_read_left_out_is_told_before_the_tables_are_called_known() {
    let (mut k, mut rec, vxlan) = left_behind();
    let news = read(&mut k, &mut rec, vxlan, Some(2));
    assert_eq!(shown(&news), [1, 3, 4, 6, 7, 8], "the row that went hides the fifth, which stays");
    assert!(!rec.synced() && !news.contains(&KernelEvent::Synced), "nobody may sweep yet");
    let news = read(&mut k, &mut rec, vxlan, None);
    assert_eq!(shown(&news), [5]);
    assert_eq!(news.last(), Some(&KernelEvent::Synced));
    assert!(rec.synced() && rec.take_scope().is_none(), "one undisturbed read is enough");
}

/// PIT-13: lost notifications leave as little knowledge as a start does.
#[test]
fn what_a_read_after_an_overrun_left_out_is_told_as_well() {
    let (mut k, mut rec, vxlan) = left_behind();
    read(&mut k, &mut rec, vxlan, None);
    k.set_queue(0);
    k.apply(&[Op::SetRemote { vxlan, mac: mac(9), vtep: vtep(2) }], &mut Vec::new());
    k.set_queue(1000);
    let mut lost = Vec::new();
    k.recv(usize::MAX, &mut lost);
    assert_eq!(lost, [KernelEvent::Overrun]);
    rec.observe(&lost[0]);
    let (generation, scope) = rec.take_scope().expect("a read is due");
    let first = k.dump(scope);
    k.apply(&[Op::DelRemote { vxlan, mac: mac(1), vtep: vtep(2) }], &mut Vec::new());
    // Nearly at the end, so that it is the unknown ninth that is hidden.
    let rows = k.resume_dump(scope, &first, 90);
    let mut news = Vec::new();
    k.recv(usize::MAX, &mut news);
    for ev in &news {
        rec.observe(ev);
    }
    news.clear();
    rec.dumped(generation, &rows, &mut news);
    let suspects = rec.end_dump(generation, true);
    rec.confirmed(generation, &k.confirm(&suspects), &mut news);
    assert!(!shown(&news).contains(&9) && !rec.synced());
    let news = read(&mut k, &mut rec, vxlan, None);
    assert_eq!((shown(&news), news.last()), (vec![9], Some(&KernelEvent::Synced)));
}

/// Under steady churn no read is ever whole: the start does not wait for one for ever, and reads go on with longer
/// and longer pauses until one is undisturbed.
#[test]
fn steady_churn_delays_the_start_by_three_reads_and_no_more() {
    let (mut k, mut rec, vxlan) = left_behind();
    let mut want = Want::default();
    for n in 1..=3 {
        assert!(!rec.synced());
        read(&mut k, &mut rec, vxlan, Some(n));
    }
    assert!(rec.synced() && rec.take_scope().is_none());
    rec.audit_slice(&want, 1);
    read(&mut k, &mut rec, vxlan, None);
    (0..200).for_each(|_| {
        rec.audit_slice(&want, 1);
    });
    assert!(rec.take_scope().is_none(), "the undisturbed one was the last");
    assert!(rec.next_batch(&mut want, 100).is_some(), "what nobody wants may go now");
}

/// `NLM_F_DUMP_INTR`: the kernel says itself that something is missing.
#[test]
fn a_read_that_the_kernel_calls_interrupted_is_not_believed_to_be_whole() {
    let (mut k, mut rec, vxlan) = left_behind();
    let (generation, scope) = rec.take_scope().expect("a read is due");
    let mut news = Vec::new();
    rec.dumped(generation, &k.dump(scope), &mut news);
    rec.interrupted(generation);
    assert!(rec.end_dump(generation, true).is_empty());
    rec.confirmed(generation, &[], &mut news);
    assert!(!rec.synced());
    read(&mut k, &mut rec, vxlan, None);
    assert!(rec.synced());
}
