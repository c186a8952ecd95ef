//! What the kernel answers in place of a remote host, and what it does not: ARP for Ethernet and IPv4 with their lengths alone,
//! and solicitations of hosts on the link with no other option than their address (PROXY-REPLY-08, PROXY-REPLY-04). Guests are raw sockets here, which
//! never answer: every answer is the kernel's.

use evpn::types::Mac;
use std::net::Ipv6Addr;
use std::time::Duration;
use vtepd_tests::fabric::Guest;
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually};

/// What is answered comes within microseconds.
const SILENCE: Duration = Duration::from_millis(150);

fn six(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, n)
}

/// Two VTEPs, a host behind each, both known at both.
fn fabric(extra: &str) -> (Mixed, [Guest; 2]) {
    (Mixed::two_vtepds(extra), [10, 11].map(Guest::new))
}

fn answered_by_arp(wire: &Wire, ask: &[u8], of: Guest) -> bool {
    wire.drain();
    wire.send(ask);
    wire.find(SILENCE, |f| frame::as_arp_reply(f).filter(|a| *a == (of.mac, of.ip))).is_some()
}

/// An ARP request with one thing changed.
fn bent(f: &[u8], at: usize, octets: &[u8]) -> Vec<u8> {
    let mut f = f.to_vec();
    f[at..at + octets.len()].copy_from_slice(octets);
    f
}

#[test]
fn the_kernel_answers_arp_for_ethernet_and_ipv4_with_their_lengths_alone() {
    if !met(&[Need::Root]) {
        return;
    }
    let (m, [here, there]) = fabric("");
    let (near, far) = (m.guest(0), m.guest(1));
    near.send(&here.garp());
    far.send(&there.garp());
    let ask = frame::arp_request(here.mac, here.ip, there.ip);
    eventually(SOON, "the kernel answers for the remote host", || {
        if answered_by_arp(&near, &ask, there) { Ok(()) } else { Err("no answer") }
    });
    assert!(
        answered_by_arp(&near, &bent(&ask, 14, &[0, 6]), there),
        "IEEE 802 networks are read as Ethernet"
    );
    let shapes: [(&str, Vec<u8>); 9] = [
        ("hardware type 0", bent(&ask, 14, &[0, 0])),
        ("hardware type of frame relay", bent(&ask, 14, &[0, 15])),
        ("protocol type of IPv6", bent(&ask, 16, &[0x86, 0xdd])),
        ("hardware length 8", bent(&ask, 18, &[8])),
        ("hardware length 0", bent(&ask, 18, &[0])),
        ("protocol length 16", bent(&ask, 19, &[16])),
        ("protocol length 0", bent(&ask, 19, &[0])),
        ("operation of InARP", bent(&ask, 20, &[0, 8])),
        ("cut before the target", ask[..38].to_vec()),
    ];
    for (what, f) in shapes {
        assert!(!answered_by_arp(&near, &f, there), "answered: {what}");
        assert!(answered_by_arp(&near, &ask, there), "and a good one after it: {what}");
    }
    // What nobody answers teaches nothing either.
    let stranger = Guest::new(12);
    near.send(&bent(&stranger.garp(), 14, &[0, 15]));
    near.send(&bent(&stranger.garp(), 19, &[16]));
    assert!(answered_by_arp(&near, &ask, there));
    let known = m.vtepd(0).show("hosts", &["--ip", &stranger.ip.to_string()]);
    assert!(known.is_empty(), "{known:?}");
    eventually(LATER, "what was dropped is counted", || match dropped(&m, "odd") {
        n @ 0..3 => Err(n),
        _ => Ok(()),
    });
}

/// A neighbour solicitation with these options, to the target's group.
fn solicitation(from: Mac, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    frame::solicitation_with(from, six(10), target, options)
}

fn answered_by_nd(wire: &Wire, ask: &[u8], of: (Mac, Ipv6Addr)) -> bool {
    wire.drain();
    wire.send(ask);
    wire.find(SILENCE, |f| frame::as_neighbor_advertisement(f).filter(|a| *a == of)).is_some()
}

/// How often the first VTEP's rules have dropped something at its port.
fn dropped(m: &Mixed, rule: &str) -> u64 {
    let status = m.vtepd(0).status();
    let ports = status["port_drops"].as_array().cloned().unwrap_or_default();
    ports.iter().find(|p| p["port"] == "p1").and_then(|p| p[rule].as_u64()).unwrap_or(0)
}

#[test]
fn solicitations_with_unknown_options_come_to_the_owner_unless_they_are_to_be_answered_as_others() {
    if !met(&[Need::Root]) {
        return;
    }
    for policy in
        ["", "unknown-options = \"unicast\"", "unknown-options = \"reply\"", "unknown-options = \"drop\""]
    {
        let (m, [here, there]) = fabric(policy);
        let (near, far) = (m.guest(0), m.guest(1));
        near.send(&frame::unsolicited_na(here.mac, six(10)));
        far.send(&frame::unsolicited_na(there.mac, six(11)));
        let own = [&[1, 1][..], &here.mac.0].concat();
        let of = (there.mac, six(11));
        let plain = solicitation(here.mac, six(11), &own);
        eventually(SOON, "the kernel answers for the remote host", || {
            if answered_by_nd(&near, &plain, of) { Ok(()) } else { Err("no answer") }
        });
        assert!(answered_by_nd(&near, &solicitation(here.mac, six(11), &[]), of), "with no option");
        // RFC 3971 §5.3: a nonce and a timestamp; one that nobody has heard of.
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let unknown = [253, 1, 0, 0, 0, 0, 0, 0];
        for options in [[&own[..], &nonce].concat(), [&nonce[..], &own].concat(), unknown.to_vec()] {
            let ask = solicitation(here.mac, six(11), &options);
            far.drain();
            let answered = answered_by_nd(&near, &ask, of);
            let (limit, want) = match policy {
                "" => (SOON, Some("to all")),
                p if p.contains("unicast") => (SOON, Some("to it")),
                _ => (SILENCE, None),
            };
            let arrived = far.find(limit, |f| match f {
                f if f.len() != ask.len() || f[6..] != ask[6..] => None,
                f if f[..6] == ask[..6] => Some("to all"),
                f if f[..6] == there.mac.0 => Some("to it"),
                _ => None,
            });
            let arrived = arrived.map(|(_, how)| how);
            assert_eq!((answered, arrived), (policy.contains("reply"), want), "{policy}: {options:?}");
        }
        // It has been routed: no host reads it.
        assert!(!answered_by_nd(&near, &bent(&plain, 21, &[254]), of), "hop limit 254");
        assert!(!answered_by_nd(&near, &bent(&plain, 55, &[1]), of), "code 1");
        assert!(answered_by_nd(&near, &plain, of), "and a good one after that");
        // A duplicate check is nobody's to answer, and has a nonce with Linux (RFC 7527).
        let check = frame::duplicate_check(here.mac, six(11), &nonce);
        assert!(!answered_by_nd(&near, &check, of));
        far.find(SOON, |f| (f[54..] == check[54..]).then_some(())).expect("it comes to the owner");
    }
}
