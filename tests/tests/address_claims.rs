//! Who has an address, with Linux guests of default settings: duplicate checks are answered by the owner across the overlay,
//! a dead owner does not keep its address, a live one does (PIT-14, HOST-ARP-03, HOST-DAD-02, PROXY-DUP-03).

use evpn::types::Mac;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Host, test_mac};
use vtepd_tests::frame;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually, throughout};
use vtepd_tests::vtepd::Vtepd;

const V4: &str = "192.168.100.61";
const V6: &str = "fd00:100::61";
const ARPING: Need = Need::Package { program: "arping", package: "iputils-arping" };

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// VTEP `i` with a port `h1`.
fn daemon(f: &Fabric, i: usize, conflict: &str) -> Vtepd {
    let mut conf = f.conf(i);
    conf.sections = format!("[arp]\nconflict = \"{conflict}\"");
    conf.vnis = vec![(100, vec!["h1".into()])];
    Vtepd::start(&f.vteps[i].ns, &conf)
}

fn row_is(f: &Fabric, i: usize, a: &str, mac: Mac) -> Result<(), String> {
    let row = f.vteps[i].neigh_row(100, ip(a));
    if row["lladdr"] == mac.to_string().as_str() { Ok(()) } else { Err(format!("{a} at VTEP {i}: {row}")) }
}

fn counter(d: &Vtepd, name: &str) -> u64 {
    d.status()["counters"][name].as_u64().unwrap_or(0)
}

/// The address is there, and the kernel has neither found a duplicate nor looks for one still.
fn has_v6(h: &Host) -> Result<(), String> {
    let all = h.ns.sh(&format!("ip -6 addr show dev eth0 to {V6}"));
    if all.contains(V6) && !all.contains("dadfailed") && !all.contains("tentative") {
        Ok(())
    } else {
        Err(all)
    }
}

/// Hosts at three VTEPs: the owner of both addresses, one that has none yet, and one that talks to the owner.
struct Sites {
    owner: Host,
    heir: Host,
    other: Host,
    daemons: Vec<Option<Vtepd>>,
    f: Fabric,
}

fn sites() -> Sites {
    sites_with("none")
}

fn sites_with(conflict: &str) -> Sites {
    let f = Fabric::new(3);
    let owner = f.host(0, "h1", test_mac(0x71), &["192.168.100.61/24", "fd00:100::61/64"]);
    let heir = f.host(1, "h1", test_mac(0x72), &[]);
    let other = f.host(2, "h1", test_mac(0x73), &["192.168.100.63/24", "fd00:100::63/64"]);
    let daemons: Vec<_> = (0..3).map(|i| Some(daemon(&f, i, conflict))).collect();
    for d in daemons.iter().flatten() {
        d.converge();
    }
    for a in [V4, V6] {
        eventually(LATER, "they talk", || other.try_ping(a));
        for i in [1, 2] {
            eventually(SOON, "bound", || row_is(&f, i, a, owner.mac));
        }
    }
    Sites { owner, heir, other, daemons, f }
}

/// PROXY-REPLY-04.
#[test]
fn a_live_owner_answers_duplicate_checks_across_the_overlay() {
    if !met(&[Need::Root, Need::Tool("ping"), ARPING]) {
        return;
    }
    let s = sites();
    let there = s.daemons[1].as_ref().expect("it runs");
    // RFC 5227 §2.1.1: exit status 1, somebody has it.
    assert!(
        s.heir.ns.try_sh(&format!("arping -q -D -c 2 -w 3 -I eth0 {V4}")).is_err(),
        "nobody has answered"
    );
    s.heir.ns.sh(&format!("ip addr add {V6}/64 dev eth0"));
    eventually(SOON, "the kernel gives the address up", || {
        let all = s.heir.ns.sh(&format!("ip -6 addr show dev eth0 to {V6}"));
        if all.contains("dadfailed") { Ok(()) } else { Err(all) }
    });
    assert!(counter(there, "duplicate_checks_answered") >= 2);
    for a in [V4, V6] {
        for i in [1, 2] {
            row_is(&s.f, i, a, s.owner.mac).expect("nothing has moved");
        }
    }
    // An address that nobody has, and the same again when it is its own.
    s.heir.ns.sh("arping -q -D -c 2 -w 3 -I eth0 192.168.100.77");
    s.heir.ns.sh("ip addr add 192.168.100.77/24 dev eth0");
    s.heir.ns.sh("arping -q -U -c 1 -I eth0 192.168.100.77");
    eventually(SOON, "bound", || row_is(&s.f, 2, "192.168.100.77", s.heir.mac));
    s.heir.ns.sh("arping -q -D -c 2 -w 3 -I eth0 192.168.100.77");
}

#[test]
fn after_a_disaster_a_guest_with_a_new_mac_gets_its_address_at_the_first_try() {
    if !met(&[Need::Root, Need::Tool("ping"), ARPING]) {
        return;
    }
    let mut s = sites();
    // No withdrawal, no FIN, no carrier: the others keep its routes until the hold time is over.
    s.f.spine.sh("ip link set u1 down");
    drop(s.daemons[0].take().map(Vtepd::kill));
    s.owner.ns.sh("ip link set eth0 down");
    for (i, a) in [(1, V4), (1, V6), (2, V4), (2, V6)] {
        row_is(&s.f, i, a, s.owner.mac).expect("they answer for the dead still");
    }
    let there = s.daemons[1].as_ref().expect("it runs");
    s.heir.ns.sh(&format!("arping -q -D -c 3 -w 4 -I eth0 {V4}"));
    let checked = counter(there, "claims_checked");
    s.heir.ns.sh(&format!("ip addr add {V4}/24 dev eth0 && arping -q -U -c 1 -I eth0 {V4}"));
    eventually(SOON, "all are told", || row_is(&s.f, 2, V4, s.heir.mac));
    assert_eq!(counter(there, "claims_checked"), checked, "its announcement counted at once");
    eventually(SOON, "reached", || s.other.try_ping(V4));
    s.heir.ns.sh(&format!("ip addr add {V6}/64 dev eth0"));
    eventually(LATER, "duplicate address detection is over", || has_v6(&s.heir));
    eventually(LATER, "all are told", || row_is(&s.f, 2, V6, s.heir.mac));
    eventually(SOON, "reached", || s.other.try_ping(V6));
    assert!(counter(there, "duplicate_checks_unanswered") >= 2);
    assert!(there.show("duplicates", &[]).is_empty());
}

/// A gratuitous ARP, octet by octet.
fn spoof(mac: Mac, a: Ipv4Addr) -> Vec<u8> {
    let mut f =
        [&[0xff; 6][..], &mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac.0, &a.octets(), &[0; 6]].concat();
    f.extend(a.octets());
    f.resize(60, 0);
    f
}

#[test]
fn spoofed_announcements_take_no_address_whose_owner_answers() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let s = sites();
    let there = s.daemons[1].as_ref().expect("it runs");
    let wire = Wire::open(&s.heir.ns, "eth0");
    let frame = spoof(s.heir.mac, V4.parse().expect("an address"));
    let third = s.daemons[2].as_ref().expect("it runs");
    throughout(Duration::from_secs(3), "the owner keeps its address elsewhere", || {
        wire.send(&frame);
        let row = s.f.vteps[2].neigh_row(100, ip(V4));
        if !row.is_null() {
            row_is(&s.f, 2, V4, s.owner.mac)?;
        }
        let bound = third.show("hosts", &["--ip", V4]);
        if bound[0]["mac"] == s.owner.mac.to_string().as_str() { Ok(()) } else { Err(format!("{bound:?}")) }
    });
    s.other.ns.sh("ip neigh flush dev eth0");
    s.other.try_ping(V4).expect("reached all the time");
    let found = there.show("duplicates", &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (&found[0]["address"]["ip"], &found[0]["state"]),
        (&V4.into(), &"unanswered".into()),
        "{found:#?}"
    );
    assert!(s.f.vteps[1].neigh_row(100, ip(V4)).is_null(), "PROXY-DUP-04: nobody answers for it there");
    // The liar has no such address: it does not answer, and has lost within seconds.
    eventually(LATER, "it is over", || {
        let found = there.show("duplicates", &[]);
        if !found.is_empty() {
            return Err(format!("{found:#?}"));
        }
        [1, 2].iter().try_for_each(|i| row_is(&s.f, *i, V4, s.owner.mac))
    });
}

/// PROXY-DUP-04: two Linux hosts have one address, behind two VTEPs; the kernel of the third, which has neither, answers with
/// what the policy says, or not at all.
#[test]
fn in_a_conflict_every_vtep_answers_as_the_policy_says() {
    if !met(&[Need::Root, Need::Tool("ping"), ARPING]) {
        return;
    }
    for conflict in ["none", "first", "last"] {
        let s = sites_with(conflict);
        let [there, third] = [1, 2].map(|i| s.daemons[i].as_ref().expect("it runs"));
        s.heir.ns.sh(&format!("ip addr add {V4}/24 dev eth0 && arping -q -U -c 1 -I eth0 {V4}"));
        eventually(LATER, "it is found out", || match there.show("duplicates", &[]).len() {
            1 => Ok(()),
            n => Err(n),
        });
        let as_it_should = || match conflict {
            "none" => {
                let row = s.f.vteps[2].neigh_row(100, ip(V4));
                if row.is_null() { Ok(()) } else { Err(row.to_string()) }
            }
            "first" => row_is(&s.f, 2, V4, s.owner.mac),
            _ => row_is(&s.f, 2, V4, s.heir.mac),
        };
        eventually(SOON, conflict, as_it_should);
        throughout(Duration::from_secs(3), conflict, as_it_should);
        assert_eq!(counter(third, "contested_afar"), u64::from(conflict == "none"));
        if conflict != "none" {
            continue;
        }
        let why = third.why("ip", V4).expect("bound");
        assert_eq!(why["binding"]["answered_by"], "owner", "{why:#}");
        // Both answer for themselves: what a host of the third asks reaches both.
        let wire = Wire::open(&s.other.ns, "eth0");
        let asker: Ipv4Addr = "192.168.100.63".parse().expect("an address");
        let mut left = vec![s.owner.mac, s.heir.mac];
        wire.send(&frame::arp_request(s.other.mac, asker, V4.parse().expect("an address")));
        while !left.is_empty() {
            let by = |f: &[u8]| frame::as_arp_reply(f).map(|(mac, _)| mac).filter(|m| left.contains(m));
            let heard = wire.find(SOON, by);
            let Some((_, mac)) = heard else { panic!("these have not answered: {left:?}") };
            left.retain(|m| *m != mac);
        }
        s.heir.ns.sh(&format!("ip addr del {V4}/24 dev eth0"));
        eventually(LATER, "answered for again", || row_is(&s.f, 2, V4, s.owner.mac));
    }
}

/// HOST-ARP-03, HOST-DAD-02: a guest that has moved checks its own address; a row that answers for it is there a moment longer.
#[test]
fn nobody_is_answered_for_its_own_mac() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let s = sites();
    let wire = Wire::open(&s.heir.ns, "eth0");
    // The owner is gone without a word, and is here now.
    s.f.spine.sh("ip link set u1 down");
    s.owner.ns.sh("ip link set eth0 down");
    let mut probe = spoof(s.owner.mac, V4.parse().expect("an address"));
    probe[28..32].fill(0);
    let mut request = probe.clone();
    request[28..32].copy_from_slice(&[192, 168, 100, 99]);
    let answered = |f: &[u8]| (f[12..14] == [8, 6] && f[20..22] == [0, 2]).then_some(());
    for f in [&probe, &request, &probe] {
        wire.send(f);
        assert!(wire.find(Duration::from_millis(400), answered).is_none(), "answered for its own MAC");
    }
}
