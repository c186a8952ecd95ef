//! Route target membership (RFC 4684): what a neighbour that speaks it is sent, and what it is told.

#![allow(clippy::unwrap_used)]

mod rib_support;

use evpn::rib::{Config, Import, Rib};
use evpn::session::Agreed;
use evpn::types::{Asn, PeerId, Time};
use evpn::wire::{
    self, Attrs, DecodeCtx, EvpnRoute, ExtCommunity, Family, Membership, Message, MpReach, MpUnreach,
    NextHop, Nlri, RouteKey, Treatment, Update,
};
use proptest::prelude::*;
use rib_support::*;
use std::collections::{BTreeMap, BTreeSet};

const BOTH: [Family; 2] = [Family::EVPN, Family::RTC];

fn ctx(ibgp: bool) -> DecodeCtx {
    DecodeCtx { families: BOTH.to_vec(), ..decode_ctx(ibgp) }
}

/// Establishes a neighbour that speaks both families.
fn up(rib: &mut Rib, n: u8, ibgp: bool) -> PeerId {
    let peer = PeerId(u32::from(n));
    rib.add_peer(peer, vtep(n).into(), ibgp);
    rib.peer_up(peer, &Agreed { families: BOTH.to_vec(), decode: ctx(ibgp), ..agreed(ibgp, n) });
    peer
}

/// The far end: its table, what it was told of memberships, and the messages in their order.
#[derive(Debug, Default)]
struct Far {
    table: BTreeMap<RouteKey, Attrs>,
    members: BTreeMap<Membership, Attrs>,
    log: Vec<String>,
}

impl Far {
    fn drain(&mut self, rib: &mut Rib, peer: PeerId, ibgp: bool) {
        while let Some(bytes) = rib.next_update(peer, 4096) {
            let decoded = wire::decode(&bytes, &ctx(ibgp)).expect("what we send decodes");
            assert_eq!(decoded.faults, vec![]);
            let Message::Update(u) = decoded.message else { panic!("not an UPDATE") };
            if let Some(family) = u.end_of_rib() {
                self.log.push(format!("end {}/{}", family.afi, family.safi));
                continue;
            }
            match (u.reach, u.unreach) {
                (Some(MpReach { nlri: Nlri::Evpn(routes), .. }), None) => {
                    self.log.push(format!("+{}", routes.len()));
                    self.table.extend(routes.into_iter().map(|n| (n.route.key(), u.attrs.clone())));
                }
                (None, Some(MpUnreach { nlri: Nlri::Evpn(routes), .. })) => {
                    self.log.push(format!("-{}", routes.len()));
                    for n in routes {
                        assert!(self.table.remove(&n.route.key()).is_some(), "withdrawn without need");
                    }
                }
                (Some(MpReach { nlri: Nlri::Rtc(list), next_hop, .. }), None) => {
                    assert_eq!(next_hop, NextHop::V4(OUR_VTEP), "BGP-RTC-01");
                    self.log.push(format!("wants {}", list.len()));
                    self.members.extend(list.into_iter().map(|m| (m, u.attrs.clone())));
                }
                (None, Some(MpUnreach { nlri: Nlri::Rtc(list), .. })) => {
                    self.log.push(format!("wants no more {}", list.len()));
                    for m in list {
                        assert!(self.members.remove(&m).is_some(), "never told");
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(!rib.has_updates(peer), "nothing came, but something is due");
    }

    fn heard(&mut self, rib: &mut Rib, peer: PeerId) -> Vec<String> {
        self.drain(rib, peer, true);
        core::mem::take(&mut self.log)
    }
}

fn target(n: u32) -> ExtCommunity {
    ExtCommunity::rt_as2(65000, n)
}

fn wants(n: u32) -> Membership {
    Membership { bits: 96, origin: OUR_AS, target: target(n) }
}

const EVERYTHING: Membership = Membership { bits: 0, origin: Asn(0), target: ExtCommunity([0; 8]) };

fn ask(rib: &mut Rib, n: u8, list: &[Membership]) {
    let reach =
        MpReach { family: Family::RTC, next_hop: NextHop::V4(vtep(n)), nlri: Nlri::Rtc(list.to_vec()) };
    let update = Update { attrs: bare().0, reach: Some(reach), ..Update::default() };
    rib.update(PeerId(u32::from(n)), &update, None, Time(0));
}

fn renounce(rib: &mut Rib, n: u8, list: &[Membership]) {
    let unreach = MpUnreach { family: Family::RTC, nlri: Nlri::Rtc(list.to_vec()) };
    rib.update(PeerId(u32::from(n)), &Update { unreach: Some(unreach), ..Update::default() }, None, Time(0));
}

/// End-of-RIB of 1/132 is an UPDATE that withdraws nothing.
fn end(rib: &mut Rib, n: u8) {
    renounce(rib, n, &[]);
}

fn route(n: u32) -> EvpnRoute {
    mac_ip(rd(1, 1), mac(n), None)
}

/// Ours: MAC 1 with target 1, MAC 2 with 2, MAC 3 with both.
fn stocked() -> Rib {
    let mut rib = Rib::new(config());
    originate(&mut rib, &bare().target(target(1)), route(1), false);
    originate(&mut rib, &bare().target(target(2)), route(2), false);
    originate(&mut rib, &bare().target(target(1)).target(target(2)), route(3), false);
    rib
}

fn macs(far: &Far) -> Vec<u32> {
    (1..=3).filter(|n| far.table.contains_key(&route(*n).key())).collect()
}

/// BGP-RTC-05: no route before it has said what it wants; its own End-of-RIB comes without graceful restart.
#[test]
fn routes_wait_for_the_end_of_what_a_neighbour_wants() {
    let mut rib = stocked();
    let peer = up(&mut rib, 2, true);
    let mut far = Far::default();
    assert_eq!(far.heard(&mut rib, peer), ["end 1/132"]);
    ask(&mut rib, 2, &[wants(1)]);
    assert_eq!(far.heard(&mut rib, peer), [""; 0]);
    assert!(rib.waits_for_memberships(peer));
    end(&mut rib, 2);
    assert!(!rib.waits_for_memberships(peer));
    assert_eq!(far.heard(&mut rib, peer), ["+1", "+1", "end 25/70"]);
    assert_eq!(macs(&far), [1, 3]);
    assert_eq!(rib.counters(peer).routes_out, 2);
}

/// BGP-RTC-05: or when a minute is over.
#[test]
fn a_neighbour_that_never_ends_gets_its_routes_in_the_end() {
    let mut rib = stocked();
    let peer = up(&mut rib, 2, true);
    let mut far = Far::default();
    ask(&mut rib, 2, &[wants(2)]);
    rib.end_wait(peer);
    far.drain(&mut rib, peer, true);
    assert_eq!(macs(&far), [2, 3]);
    // And its late end changes nothing.
    far.log.clear();
    end(&mut rib, 2);
    assert_eq!(far.heard(&mut rib, peer), [""; 0]);
}

/// BGP-RTC-03, -04, -06: exact, by prefix, everything, ES-Import; the origin AS does not matter; no target, no route.
#[test]
fn memberships_are_matched_by_prefix() {
    let es = ExtCommunity([6, 2, 0, 0, 0x5e, 0, 0x53, 0xaa]);
    let got = |list: &[Membership]| {
        let mut rib = stocked();
        originate(&mut rib, &bare().target(es), route(4), false);
        originate(&mut rib, &bare(), route(5), false);
        let peer = up(&mut rib, 2, true);
        ask(&mut rib, 2, list);
        end(&mut rib, 2);
        let mut far = Far::default();
        far.drain(&mut rib, peer, true);
        (1..=5).filter(|n| far.table.contains_key(&route(*n).key())).collect::<Vec<u32>>()
    };
    let prefix = |bits| {
        let keep = u64::MAX.checked_shl(96 - u32::from(bits)).unwrap_or(0);
        let value = u64::from_be_bytes(target(2).0) & keep;
        Membership { bits, origin: Asn(7), target: ExtCommunity(value.to_be_bytes()) }
    };
    assert_eq!(got(&[]), [0; 0]);
    assert_eq!(got(&[wants(1)]), [1, 3]);
    assert_eq!(got(&[Membership { origin: Asn(4_200_000_000), ..wants(1) }]), [1, 3]);
    assert_eq!(got(&[EVERYTHING]), [1, 2, 3, 4, 5]);
    assert_eq!(got(&[prefix(32)]), [1, 2, 3, 4, 5], "every target of an AS");
    assert_eq!(got(&[prefix(64)]), [1, 2, 3], "type and AS");
    assert_eq!(got(&[prefix(95)]), [2, 3], "2 and 3 of the last two bits");
    assert_eq!(got(&[Membership { target: es, ..wants(1) }]), [4]);
}

/// BGP-RTC-04: what is not affected is not sent again.
#[test]
fn a_change_of_membership_sends_no_more_than_the_difference() {
    let mut rib = stocked();
    let peer = up(&mut rib, 2, true);
    let mut far = Far::default();
    ask(&mut rib, 2, &[wants(1)]);
    end(&mut rib, 2);
    far.heard(&mut rib, peer);
    ask(&mut rib, 2, &[wants(2), wants(7)]);
    assert_eq!(far.heard(&mut rib, peer), ["+1"], "MAC 2; MAC 3 is there already");
    ask(&mut rib, 2, &[wants(2)]);
    assert_eq!(far.heard(&mut rib, peer), [""; 0], "known already");
    renounce(&mut rib, 2, &[wants(1), wants(9)]);
    assert_eq!(far.heard(&mut rib, peer), ["-1"], "MAC 1; MAC 3 has another target");
    assert_eq!(macs(&far), [2, 3]);
    // To and fro before it was sent: nothing.
    renounce(&mut rib, 2, &[wants(2)]);
    ask(&mut rib, 2, &[wants(2)]);
    far.drain(&mut rib, peer, true);
    assert_eq!(macs(&far), [2, 3]);
    // A route whose targets change comes and goes.
    far.log.clear();
    originate(&mut rib, &bare().target(target(9)), route(2), false);
    assert_eq!(far.heard(&mut rib, peer), ["-1"]);
    originate(&mut rib, &bare().target(target(2)), route(2), true);
    assert_eq!(far.heard(&mut rib, peer), ["+1"]);
}

/// A faulty UPDATE takes its memberships back (RFC 7606), and one that has been here before counts for nothing.
#[test]
fn faulty_and_looping_memberships_do_not_count() {
    let mut rib = stocked();
    let peer = up(&mut rib, 2, true);
    let mut far = Far::default();
    ask(&mut rib, 2, &[wants(1)]);
    end(&mut rib, 2);
    far.heard(&mut rib, peer);
    let nlri = Nlri::Rtc(vec![wants(1)]);
    let reach = MpReach { family: Family::RTC, next_hop: NextHop::V4(vtep(2)), nlri };
    let again = Update { attrs: bare().0, reach: Some(reach), ..Update::default() };
    rib.update(peer, &again, Some(Treatment::TreatAsWithdraw), Time(0));
    assert_eq!(far.heard(&mut rib, peer), ["-2"]);
    assert_eq!(macs(&far), [0; 0]);
    let looped = bare().with(|a| a.cluster_list = vec![OUR_VTEP]).0;
    rib.update(peer, &Update { attrs: looped, ..again }, None, Time(0));
    far.drain(&mut rib, peer, true);
    assert_eq!(macs(&far), [0; 0]);
}

/// The other role: what our VNIs import is what we ask for (BGP-RTC-04), with the default where that is not known.
#[test]
fn we_ask_for_what_our_vnis_import() {
    let mut rib = Rib::new(config());
    rib.add_vni(vni(100), Import::List(vec![target(1), target(2)]));
    let peer = up(&mut rib, 2, true);
    let mut far = Far::default();
    assert_eq!(far.heard(&mut rib, peer), ["wants 2", "end 1/132"]);
    assert_eq!(far.members.keys().copied().collect::<Vec<_>>(), [wants(1), wants(2)]);
    rib.add_vni(vni(200), Import::List(vec![target(2), target(3)]));
    assert_eq!(far.heard(&mut rib, peer), ["wants 1"]);
    rib.remove_vni(vni(100));
    assert_eq!(far.heard(&mut rib, peer), ["wants no more 1"]);
    rib.add_vni(vni(300), Import::Auto);
    far.drain(&mut rib, peer, true);
    let auto: BTreeSet<Membership> = [
        ExtCommunity::auto_target(OUR_AS, vni(300)),
        ExtCommunity::auto_target_rfc8365(OUR_AS, vni(300)).unwrap(),
    ]
    .map(|target| Membership { bits: 96, origin: OUR_AS, target })
    .into();
    assert!(auto.iter().all(|m| far.members.contains_key(m)), "{:?}", far.members);
    // Outside, routes of automatic import have targets of ASes that are not known: everything.
    let outside = up(&mut rib, 4, false);
    let mut far = Far::default();
    far.drain(&mut rib, outside, false);
    assert_eq!(far.members.keys().copied().collect::<Vec<_>>(), [EVERYTHING]);
    // RFC 2918.
    far.log.clear();
    rib.refresh_memberships(outside);
    far.drain(&mut rib, outside, false);
    assert_eq!(far.log, ["wants 1"]);
}

/// A reflector wants everything of its clients, and asks the others for what its clients want, with the marks of RFC 4456.
#[test]
fn a_reflector_asks_on_behalf_of_its_clients() {
    let mut rib = Rib::new(Config { cluster_id: vtep(200), ..config() });
    for n in [2u8, 3] {
        rib.add_peer(PeerId(u32::from(n)), vtep(n).into(), true);
        rib.set_client(PeerId(u32::from(n)));
        up(&mut rib, n, true);
    }
    let (inside, other, outside) = (up(&mut rib, 4, true), up(&mut rib, 5, true), up(&mut rib, 6, false));
    ask(&mut rib, 2, &[wants(1)]);
    ask(&mut rib, 4, &[wants(2)]);
    let told = |rib: &mut Rib, peer, ibgp| {
        let mut far = Far::default();
        far.drain(rib, peer, ibgp);
        far.members
    };
    for client in [2, 3] {
        assert_eq!(told(&mut rib, PeerId(client), true).into_keys().collect::<Vec<_>>(), [EVERYTHING]);
    }
    let inside = told(&mut rib, inside, true);
    assert_eq!(inside.keys().copied().collect::<Vec<_>>(), [wants(1)]);
    let a = &inside[&wants(1)];
    assert_eq!((a.originator_id, &a.cluster_list[..]), (Some(vtep(2)), &[vtep(200)][..]));
    assert_eq!(told(&mut rib, other, true).into_keys().collect::<Vec<_>>(), [wants(1)], "not what 4 wants");
    let outside = told(&mut rib, outside, false);
    assert_eq!(outside.keys().copied().collect::<Vec<_>>(), [wants(1), wants(2)]);
    assert!(outside.values().all(|a| a.as_path.as_ref().unwrap().contains(OUR_AS)));
    // The client goes, and so does what it wanted.
    let mut far = Far::default();
    rib.peer_down(PeerId(2));
    far.members = inside;
    assert_eq!(far.heard(&mut rib, PeerId(4)), ["wants no more 1"]);
}

/// BGP-MSG-03: one whose attributes leave no room in a message is heeded, and passed on to nobody.
#[test]
fn a_membership_with_huge_attributes_is_not_passed_on() {
    let mut rib = stocked();
    let (peer, outside) = (up(&mut rib, 2, true), up(&mut rib, 6, false));
    for (n, count) in [(1, 300), (2, 500)] {
        let attrs = bare().with(|a| a.communities = (0..count).map(wire::Community).collect()).0;
        let nlri = Nlri::Rtc(vec![wants(n)]);
        let reach = MpReach { family: Family::RTC, next_hop: NextHop::V4(vtep(2)), nlri };
        rib.update(peer, &Update { attrs, reach: Some(reach), ..Update::default() }, None, Time(0));
    }
    end(&mut rib, 2);
    let (mut near, mut far) = (Far::default(), Far::default());
    near.drain(&mut rib, peer, true);
    far.drain(&mut rib, outside, false);
    assert_eq!(macs(&near), [1, 2, 3]);
    assert_eq!(far.members.keys().copied().collect::<Vec<_>>(), [wants(1)]);
}

/// What a neighbour and its twin without the family have, after anything.
#[derive(Clone, Debug)]
enum Step {
    Announce(u32, BTreeSet<u32>),
    Withdraw(u32),
    Ask(BTreeSet<u32>),
    Renounce(BTreeSet<u32>),
    End,
    Everything(bool),
    Refresh,
    Read(usize),
    Bounce,
}

fn any_step() -> impl Strategy<Value = Step> {
    let targets = || prop::collection::btree_set(1..5u32, 0..3);
    prop_oneof![
        6 => (0..12u32, targets()).prop_map(|(m, t)| Step::Announce(m, t)),
        3 => (0..12u32).prop_map(Step::Withdraw),
        4 => targets().prop_map(Step::Ask),
        3 => targets().prop_map(Step::Renounce),
        1 => Just(Step::End),
        1 => any::<bool>().prop_map(Step::Everything),
        1 => Just(Step::Refresh),
        4 => (1..4usize).prop_map(Step::Read),
        1 => Just(Step::Bounce),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// BGP-RTC-04: exactly what its twin without constraint has, of the targets it wants.
    #[test]
    fn it_has_what_others_have_of_the_targets_it_wants(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut rib = Rib::new(config());
        let mut wanted: BTreeSet<u32> = BTreeSet::new();
        let mut all = false;
        for n in [2u8, 3, 4] {
            rib.add_peer(PeerId(u32::from(n)), vtep(n).into(), true);
            rib.set_client(PeerId(u32::from(n)));
        }
        establish(&mut rib, 2, true);
        let plain = establish(&mut rib, 4, true);
        let (mut far, mut twin) = (Far::default(), Receiver::default());
        let peer = up(&mut rib, 3, true);
        for step in steps {
            match step {
                Step::Announce(m, t) => {
                    let a = t.into_iter().fold(bare(), |a, n| a.target(target(n)));
                    announce(&mut rib, 2, &a, vec![mac_ip(rd(2, 1), mac(m), None)]);
                }
                Step::Withdraw(m) => withdraw(&mut rib, 2, vec![mac_ip(rd(2, 1), mac(m), None)]),
                Step::Ask(t) => {
                    ask(&mut rib, 3, &t.iter().map(|n| wants(*n)).collect::<Vec<_>>());
                    wanted.extend(t);
                }
                Step::Renounce(t) if !t.is_empty() => {
                    renounce(&mut rib, 3, &t.iter().map(|n| wants(*n)).collect::<Vec<_>>());
                    wanted.retain(|n| !t.contains(n));
                }
                Step::Renounce(_) | Step::End => end(&mut rib, 3),
                Step::Everything(on) => {
                    if on { ask(&mut rib, 3, &[EVERYTHING]) } else { renounce(&mut rib, 3, &[EVERYTHING]) }
                    all = on;
                }
                Step::Refresh => rib.refresh(peer),
                Step::Read(n) => (0..n).for_each(|_| {
                    twin.step(&mut rib, plain, true, 4096);
                }),
                Step::Bounce => {
                    rib.peer_down(peer);
                    up(&mut rib, 3, true);
                    (far, wanted, all) = (Far::default(), BTreeSet::new(), false);
                }
            }
            // What it has is withdrawn only if it has it: `Far` checks.
            if wanted.len().is_multiple_of(2) {
                far.drain(&mut rib, peer, true);
            }
        }
        end(&mut rib, 3);
        far.drain(&mut rib, peer, true);
        twin.drain(&mut rib, plain, true);
        let is_wanted = |a: &Attrs| all || a.ext_communities.iter().any(|c| wanted.iter().any(|n| target(*n) == *c));
        let expected: BTreeMap<RouteKey, Attrs> =
            twin.table.iter().filter(|(_, (_, a, _))| is_wanted(a)).map(|(k, (_, a, _))| (k.clone(), a.clone())).collect();
        prop_assert_eq!(&far.table, &expected);
        prop_assert_eq!(rib.counters(peer).routes_out, expected.len());
    }
}
