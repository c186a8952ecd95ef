//! Preparations on whole nodes and a virtual clock: what they change (nothing), what is refused, and whole moves to and
//! fro (MIG-HOT-03). `node_activate.rs` has the activations, `node_released.rs` and `node_release.rs` the releases.

mod world;

use evpn::node::{Command, Event, Input, MoveRequest, MoveStep, Refusal, Requester};
use evpn::types::{Mac, Seq, Span, Vni};
use std::net::IpAddr;
use world::steps::{
    MS, RELEASE, activate, before, done, garp, ip, local, names, no, ok, prepare, remote, told, visible,
};
use world::{P1, P2, World, mac, own_mac, vni, vtep};

#[test]
fn a_preparation_changes_nothing_that_anybody_can_see() {
    let mut w = before();
    let was = visible(&w, 1);
    let r = done(&mut w, 1, prepare("p2"));
    assert_eq!((r.state.as_str(), r.vni, r.seq, r.sent_to.len()), ("prepared", Some(vni()), None, 0));
    assert_eq!(r.notes, [""; 0], "nothing is amiss");
    assert_eq!((visible(&w, 1), told(&w, 1)), (was.clone(), 0));
    // Again, and to another port: the last word counts.
    assert_eq!(done(&mut w, 1, prepare("p1")).state, "prepared");
    assert_eq!(done(&mut w, 1, MoveStep::Abort).state, "aborted");
    assert_eq!(done(&mut w, 1, MoveStep::Abort).state, "nothing");
    assert_eq!((visible(&w, 1), told(&w, 1)), (was, 0));
    assert_eq!(names(&w, 1), ["prepared", "prepared", "aborted"]);
}

#[test]
fn without_a_preparation_the_port_must_be_named() {
    let mut w = before();
    let id = w.step(1, mac(1), &[], activate(None));
    let (kind, text) = no(&w, 1, id);
    assert_eq!(kind, Refusal::Conflict);
    assert!(
        text.contains("no preparation for 52:54:00:00:00:01") && text.contains("name the port"),
        "{text}"
    );
    assert_eq!(told(&w, 1), 0);
}

#[test]
fn a_preparation_times_out_without_a_trace() {
    let mut w = before();
    let was = visible(&w, 1);
    w.step(1, mac(1), &[], MoveStep::Prepare { port: "p2".into(), timeout: Some(Span::secs(2)) });
    w.run_for(Span::secs(3));
    assert_eq!(names(&w, 1), ["prepared", "timed out"]);
    assert_eq!((visible(&w, 1), told(&w, 1)), (was, 0));
    let id = w.step(1, mac(1), &[], activate(None));
    assert!(no(&w, 1, id).1.contains("or it timed out"));
}

#[test]
fn wrong_requests_say_what_is_wrong_and_change_nothing() {
    let mut w = before();
    let was = visible(&w, 1);
    let ask = |w: &mut World, vni: Option<u32>, m: Mac, ips: &[IpAddr], step: MoveStep| {
        let request = MoveRequest {
            vni: vni.and_then(Vni::new),
            mac: m,
            ips: ips.to_vec(),
            step,
            by: Requester::Api,
            at_stop: false,
        };
        w.hosts[1].answers.clear();
        w.input(1, Input::Command { id: 1 << 40, command: Command::Move(request) });
        no(w, 1, 1 << 40)
    };
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let many = vec![ip(1); 65];
    for (vni, m, ips, step, kind, part) in [
        (
            Some(200),
            mac(1),
            &[][..],
            prepare("p2"),
            Refusal::Invalid,
            "VNI 200 is not configured here; there are: 100",
        ),
        (Some(200), mac(1), &[], MoveStep::Abort, Refusal::Invalid, "VNI 200 is not configured"),
        (Some(200), mac(1), &[], RELEASE, Refusal::Invalid, "VNI 200 is not configured"),
        (None, mac(1), &[], prepare("p9"), Refusal::Invalid, "there is no port `p9`"),
        (None, mac(1), &[], prepare("vx100"), Refusal::Invalid, "vx100 is the VXLAN device"),
        (None, mac(1), &[], prepare("br100"), Refusal::Conflict, "is in no bridge of a VNI"),
        (None, group, &[], prepare("p2"), Refusal::Invalid, "not the address of a host"),
        (None, Mac::ZERO, &[], RELEASE, Refusal::Invalid, "not the address of a host"),
        (None, own_mac(1), &[], prepare("p2"), Refusal::Conflict, "this host's own devices"),
        (None, mac(1), &many, prepare("p2"), Refusal::Invalid, "at most 64"),
        (None, mac(1), &[IpAddr::from([224, 0, 0, 1])], activate(Some("p2")), Refusal::Invalid, "224.0.0.1"),
    ] {
        let (got, text) = ask(&mut w, vni, m, ips, step);
        assert!(got == kind && text.contains(part), "{text}");
    }
    assert_eq!((visible(&w, 1), told(&w, 1)), (was, 0));
}

/// EVPN-MOB-17
#[test]
fn what_is_sticky_elsewhere_is_not_prepared() {
    let mut w = World::with(2, MS, |c| {
        if c.vtep == vtep(0) {
            c.vnis[0].mobility.sticky.insert(mac(1), "p1".into());
        }
    });
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let id = w.step(0, mac(1), &[], prepare("p2"));
    assert!(no(&w, 0, id).1.contains("configured as sticky on port p1"));
    assert_eq!(w.mac_row(1, mac(1)), remote(0, true), "this test is about a sticky MAC");
    for step in [prepare("p2"), activate(Some("p2"))] {
        let id = w.step(1, mac(1), &[], step);
        let (kind, text) = no(&w, 1, id);
        assert!(kind == Refusal::Conflict && text.contains("sticky at 10.255.0.1 and cannot move"), "{text}");
    }
}

#[test]
fn a_kill_at_the_target_leaves_what_the_kernel_shows() {
    for active in [false, true] {
        let mut w = before();
        done(&mut w, 1, prepare("p2"));
        if active {
            done(&mut w, 1, activate(None));
        }
        w.kill(1);
        w.run_for(Span::secs(1));
        w.start(1, true);
        w.run_for(Span::secs(10));
        // A row in the table is a fact, whoever put it there: the guest goes on being reachable.
        let (at1, at2) = if active { (None, remote(1, false)) } else { (remote(0, false), remote(0, false)) };
        assert_eq!(
            (w.mac_row(1, mac(1)).filter(|r| Some(*r) != local(P2)), w.mac_row(2, mac(1))),
            (at1, at2)
        );
    }
}

/// Thousands of preparations are bounded, and the ones that are there go on working.
#[test]
fn too_many_preparations_are_refused() {
    let mut w = World::converged(2, MS);
    let m = |n: u16| Mac([2, 1, 0, 0, (n >> 8) as u8, n as u8]);
    for n in 0..4096 {
        let id = w.step(1, m(n), &[], prepare("p1"));
        assert_eq!(ok(&w, 1, id).state, "prepared");
    }
    for step in [prepare("p1"), activate(Some("p1"))] {
        let id = w.step(1, m(5000), &[], step);
        let (kind, text) = no(&w, 1, id);
        assert!(kind == Refusal::Busy && text.contains("4096"), "{text}");
    }
    let id = w.step(1, m(7), &[], activate(None));
    w.run_for(Span::millis(10));
    assert_eq!(ok(&w, 1, id).state, "active");
    w.run_for(Span::secs(61));
    let id = w.step(1, m(5000), &[], prepare("p1"));
    assert_eq!(ok(&w, 1, id).state, "prepared", "the others have timed out");
}

/// Where it is clear which VNI is meant nobody has to name it.
#[test]
fn the_vni_follows_from_port_or_mac() {
    let mut w = World::with(2, MS, |c| {
        let mut other = c.vnis[0].clone();
        other.vni = Vni::new(200).expect("valid");
        (other.bridge, other.vxlan) = ("br200".into(), "vx200".into());
        c.vnis.push(other);
    });
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let mut n = 1 << 40;
    let mut ask = |w: &mut World, i: usize, m: Mac, step: MoveStep| {
        n += 1;
        let request =
            MoveRequest { vni: None, mac: m, ips: vec![], step, by: Requester::Qmp, at_stop: false };
        w.input(i, Input::Command { id: n, command: Command::Move(request) });
        w.run_for(Span::millis(10));
        ok(w, i, n)
    };
    // Nobody knows it: nothing to abort, and no place where it could be released.
    let r = ask(&mut w, 1, mac(9), MoveStep::Abort);
    assert_eq!((r.state.as_str(), r.vni), ("nothing", None));
    let r = ask(&mut w, 1, mac(9), RELEASE);
    assert!(r.state == "nothing" && r.notes[0].contains("name the VNI"), "{r:?}");
    for (i, step, state) in [
        (0, RELEASE, "released"),
        (1, prepare("p2"), "prepared"),
        (1, activate(None), "active"),
        (1, MoveStep::Abort, "aborted"),
        (0, MoveStep::Abort, "aborted"),
    ] {
        let r = ask(&mut w, i, mac(1), step);
        assert_eq!((r.state.as_str(), r.vni), (state, Some(vni())));
    }
    // The port is in VNI 100, whatever is said.
    let step = prepare("p2");
    let request = MoveRequest {
        vni: Vni::new(200),
        mac: mac(1),
        ips: vec![],
        step,
        by: Requester::Qmp,
        at_stop: false,
    };
    w.input(1, Input::Command { id: 1 << 41, command: Command::Move(request) });
    let (kind, text) = no(&w, 1, 1 << 41);
    assert!(kind == Refusal::Conflict && text.contains("p2 is in VNI 100, not in VNI 200"), "{text}");
}

/// To and fro between two hosts, each time with the hypervisors' help: no duplicate, and nobody is asked anything where
/// a guest has left.
#[test]
fn a_guest_that_goes_to_and_fro_in_prepared_moves_is_no_duplicate() {
    let mut w = before();
    for n in 0..8u32 {
        let (from, to) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        done(&mut w, to, prepare("p1"));
        done(&mut w, from, RELEASE);
        assert_eq!(done(&mut w, to, activate(None)).seq, Some(Seq(n + 1)), "one step per move");
        w.hosts[from].emitted.clear();
        w.frame(to, P1, mac(1), Some(garp(mac(1), ip(1))));
        // What was still in the source's queues.
        w.frame(from, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::secs(2));
        assert_eq!(w.mac_row(2, mac(1)), remote(to, false), "move {n}");
        assert_eq!(w.hosts[from].emitted.len(), 0, "move {n}: nobody is asked");
    }
    for i in 0..3 {
        let found = w.hosts[i].events.iter().filter(|(_, e)| matches!(e, Event::Duplicate { .. })).count();
        assert_eq!(found, 0, "node {i}");
    }
}
