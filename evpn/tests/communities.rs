//! Extended communities and NOTIFICATIONs: constructors, meaning and text, against the byte-level table of the
//! requirements.

#![allow(clippy::unwrap_used, clippy::format_collect, reason = "tests")]

use bytes::Bytes;
use evpn::types::{Asn, Mac, Seq, Vni};
use evpn::wire::{
    Admin, ArpNd, Attrs, ExtCommunity, ExtKind, Notification, ParseRouteTargetError, RouteTarget, Shutdown,
    cease,
};
use std::net::Ipv4Addr;

const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

fn vni() -> Vni {
    Vni::new(10100).unwrap()
}

fn mac(last: u8) -> Mac {
    Mac([0, 0, 0x5e, 0, 0x53, last])
}

#[test]
fn constructors_give_the_octets_of_the_table_and_the_text_engineers_know() {
    let arp_nd =
        |router, r#override, immutable| ExtCommunity::arp_nd(ArpNd { router, r#override, immutable });
    for (c, octets, text) in [
        (ExtCommunity::rt_as2(65001, 10100), "0002fde900002774", "RT:65001:10100"),
        (ExtCommunity::auto_target(Asn(65001), vni()), "0002fde900002774", "RT:65001:10100"),
        (
            ExtCommunity::auto_target_rfc8365(Asn(65001), vni()).unwrap(),
            "0002fde910002774",
            "RT:65001:268445556",
        ),
        (ExtCommunity::rt_ip(VTEP, 101), "0102c000020b0065", "RT:192.0.2.11:101"),
        (ExtCommunity::rt_as4(Asn(4200000001), 101), "0202fa56ea010065", "RT:4200000001:101"),
        (ExtCommunity::VXLAN, "030c000000000008", "ET:VXLAN"),
        (ExtCommunity::encapsulation(8), "030c000000000008", "ET:VXLAN"),
        (ExtCommunity::encapsulation(10), "030c00000000000a", "ET:10"),
        (ExtCommunity::default_gateway(), "030d000000000000", "Default-Gateway"),
        (ExtCommunity::mac_mobility(Seq(1), false), "0600000000000001", "MM:1"),
        (ExtCommunity::mac_mobility(Seq(0), true), "0600010000000000", "MM:sticky"),
        (ExtCommunity::mac_mobility(Seq(7), true), "0600010000000007", "MM:7:sticky"),
        (ExtCommunity::es_import(mac(0xaa)), "060200005e0053aa", "ES-import:00:00:5e:00:53:aa"),
        (ExtCommunity::router_mac(mac(0xf1)), "060300005e0053f1", "Rmac:00:00:5e:00:53:f1"),
        (arp_nd(true, true, false), "0608030000000000", "ND:RO"),
        (arp_nd(false, false, true), "0608080000000000", "ND:I"),
        (
            ExtCommunity::contested("10.1.0.9".parse().unwrap()),
            "8f6876740a010009",
            "vtepd:contested-0a010009",
        ),
        // FNV-1a of sixteen octets, worked out elsewhere.
        (
            ExtCommunity::contested("2001:db8::1".parse().unwrap()),
            "8f6876746e5b04f4",
            "vtepd:contested-6e5b04f4",
        ),
        (ExtCommunity([3, 0xff, 1, 2, 3, 4, 5, 6]), "03ff010203040506", "0x03ff010203040506"),
    ] {
        let got: String = c.0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(got, octets);
        assert_eq!(c.to_string(), text);
    }
}

#[test]
fn communities_of_the_table_read_as_what_they_are() {
    let kind = |hex: u64| ExtCommunity(hex.to_be_bytes()).kind();
    assert_eq!(kind(0x0003_fde9_0000_0001), ExtKind::SiteOfOrigin(Admin::As2(65001, 1)));
    assert_eq!(kind(0x0601_0100_0003_e810), ExtKind::EsiLabel { single_active: true, label: 16001 });
    assert_eq!(kind(0x0604_0002_05dc_0000), ExtKind::L2Attr { flags: 2, mtu: 1500 });
    assert_eq!(
        kind(0x0606_0280_0000_7fff),
        ExtKind::DfElection { alg: 2, bitmap: 0x8000, preference: 32767 }
    );
    assert_eq!(kind(0x0606_0140_0000_0000), ExtKind::DfElection { alg: 1, bitmap: 0x4000, preference: 0 });
    assert_eq!(kind(0x0609_0003_0000_0000), ExtKind::MulticastFlags(3));
    assert_eq!(kind(0x060a_fde9_0000_2774), ExtKind::EviRt(Admin::As2(65001, 10100)));
    // PROXY-EC-05: FRR's proxy flag 0x04 means nothing, nor do the other unused ones.
    assert_eq!(kind(0x0608_f400_0000_0000), ExtKind::ArpNd(ArpNd::default()));
    assert_eq!(kind(0x0608_0400_0000_0000), ExtKind::ArpNd(ArpNd::default()));
    assert_eq!(kind(0x4600_0000_0000_0001), ExtKind::Unknown);
}

#[test]
fn route_targets_are_read_in_their_three_forms() {
    let rt = |s: &str| s.parse::<RouteTarget>();
    assert_eq!(rt("65000:100"), Ok(ExtCommunity::rt_as2(65000, 100)));
    assert_eq!(rt("RT:65000:4294967295"), Ok(ExtCommunity::rt_as2(65000, u32::MAX)));
    assert_eq!(rt("10.0.0.1:100"), Ok(ExtCommunity::rt_ip(Ipv4Addr::new(10, 0, 0, 1), 100)));
    assert_eq!(rt("4200000001:100"), Ok(ExtCommunity::rt_as4(Asn(4200000001), 100)));
    for s in [
        "",
        ":",
        "65000",
        "65000:",
        ":100",
        "65000:-1",
        "+65000:1",
        "65000:4294967296",
        "10.0.0.1:65536",
        "4200000001:65536",
        "4294967296:1",
        "1:2:3",
        "10.0.0:1",
        "65000 :1",
        "a:1",
        "2001:db8::1:100",
    ] {
        assert_eq!(rt(s), Err(ParseRouteTargetError), "{s:?}");
    }
    for s in ["65000:100", "10.0.0.1:100", "4200000001:100"] {
        assert_eq!(rt(s).unwrap().to_string(), format!("RT:{s}"));
    }
}

/// EVPN-VXLAN-09, EVPN-VXLAN-10
#[test]
fn automatic_route_targets_tell_their_vni_whatever_the_as() {
    assert_eq!(ExtCommunity::auto_target(Asn(4200000001), vni()).auto_vni(), Some(vni()));
    assert_eq!(ExtCommunity::auto_target_rfc8365(Asn(65001), vni()).unwrap().auto_vni(), Some(vni()));
    assert_eq!(ExtCommunity::auto_target_rfc8365(Asn(4200000001), vni()), None);
    assert_eq!(ExtCommunity::rt_as2(65001, 0x2000_2774).auto_vni(), None, "another service type");
    assert_eq!(ExtCommunity::rt_as2(65001, 0).auto_vni(), None);
    assert_eq!(ExtCommunity::rt_ip(VTEP, 101).auto_vni(), None);
}

#[test]
fn only_the_three_route_target_forms_are_route_targets() {
    let attrs = Attrs {
        ext_communities: vec![
            ExtCommunity::es_import(mac(1)),
            ExtCommunity::rt_as2(1, 1),
            ExtCommunity::VXLAN,
            ExtCommunity::rt_ip(VTEP, 2),
            ExtCommunity([0, 3, 0, 1, 0, 0, 0, 1]),
            ExtCommunity::rt_as4(Asn(70000), 3),
        ],
        ..Attrs::default()
    };
    let found: Vec<_> = attrs.route_targets().map(|c| c.to_string()).collect();
    assert_eq!(found, ["RT:1:1", "RT:192.0.2.11:2", "RT:70000:3"]);
}

#[test]
fn of_repeated_communities_the_first_counts() {
    let attrs = |list: &[ExtCommunity]| Attrs { ext_communities: list.to_vec(), ..Attrs::default() };
    let (five, nine) = (ExtCommunity::mac_mobility(Seq(5), false), ExtCommunity::mac_mobility(Seq(9), true));
    assert_eq!(attrs(&[five, nine]).mobility(), Some((Seq(5), false)));
    assert_eq!(attrs(&[nine, five]).mobility(), Some((Seq(9), true)));
    assert_eq!(attrs(&[]).mobility(), None);
    assert_eq!(attrs(&[five, ExtCommunity::DEFAULT_GATEWAY]).mobility(), None, "EVPN-GW-05");
    assert!(attrs(&[]).allows_vxlan(), "EVPN-VXLAN-04");
    let mpls = ExtCommunity::encapsulation(10);
    assert!(!attrs(&[mpls]).allows_vxlan(), "EVPN-VXLAN-05");
    assert!(attrs(&[mpls, ExtCommunity::VXLAN]).allows_vxlan());
    assert_eq!(attrs(&[mpls, ExtCommunity::VXLAN]).encapsulation(), Some(10));
}

/// BGP-SHUT-02, BGP-SHUT-03
#[test]
fn a_long_shutdown_text_is_cut_at_a_character() {
    let n = Notification::shutdown(cease::SHUTDOWN, &"ä".repeat(100));
    assert_eq!(n.data[0], 128);
    assert_eq!(n.shutdown_communication(), Some(Shutdown::Text(&"ä".repeat(64))));
    let n = Notification::shutdown(cease::RESET, &format!("x{}", "ä".repeat(100)));
    assert_eq!(n.data[0], 127, "half a character is not sent");
    assert_eq!(Notification::shutdown(cease::RESET, "").data, Bytes::from_static(&[0]));
}

/// BGP-SHUT-04: nothing that a peer sends reaches a terminal as a control character, or fills the log.
#[test]
fn text_from_a_peer_is_escaped_and_bounded() {
    let n = Notification::shutdown(cease::SHUTDOWN, "a\x1b[2Jb\nc");
    assert_eq!(n.to_string(), "cease/administrative shutdown (6/2): \"a\\u{1b}[2Jb\\nc\"");
    let mut data = [6, 9].repeat(30_000);
    data.truncate(4075);
    let nested = Notification { code: 6, subcode: 9, data: data.into() };
    assert!(nested.to_string().len() < 300, "{nested}");
}

/// PROXY-EC-05: of two the first counts.
#[test]
fn of_two_arp_nd_communities_the_first_counts() {
    let of = |router| ExtCommunity::arp_nd(ArpNd { router, r#override: true, immutable: false });
    for router in [false, true] {
        let attrs = Attrs { ext_communities: vec![of(router), of(!router)], ..Attrs::default() };
        assert_eq!(attrs.arp_nd().map(|n| n.router), Some(router));
    }
}
