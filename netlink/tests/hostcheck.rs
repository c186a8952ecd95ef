//! Each finding of `check --host` on the real kernel (PIT-09).
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use evpn::fabric::DeviceWant;
use netlink::linux::hostcheck::{self, Severity};

fn found(ids: &[(&str, Severity)]) {
    let peers = [vtep(2)];
    let all = hostcheck::run(&[device(&[])], &peers);
    for want in ids {
        assert!(
            all.iter().any(|f| (f.id, f.severity) == *want && !f.way_out.is_empty()),
            "{want:?} in {all:#?}"
        );
    }
}

fn absent(id: &str) {
    let all = hostcheck::run(&[device(&[])], &[vtep(2)]);
    assert!(all.iter().all(|f| f.id != id), "{all:#?}");
}

#[test]
fn a_plain_host_with_a_large_underlay_has_no_error() {
    in_netns(|| {
        underlay();
        ip("link set u0 mtu 1600");
        for t in ["iptables", "ip6tables", "arptables"] {
            let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{t}"), "0");
        }
        let all = hostcheck::run(&[device(&[])], &[vtep(2)]);
        assert_eq!(all, []);
    });
}

#[test]
fn a_small_underlay_and_a_peer_without_a_route_are_errors() {
    in_netns(|| {
        underlay();
        found(&[("mtu", Severity::Error)]);
        ip("link set u0 mtu 1550");
        absent("mtu");
        ip("addr flush dev u0");
        found(&[("no-route", Severity::Error)]);
    });
}

#[test]
fn strict_reverse_path_filtering_is_found_on_uplinks() {
    in_netns(|| {
        underlay();
        absent("rp-filter");
        std::fs::write("/proc/sys/net/ipv4/conf/u0/rp_filter", "1").unwrap();
        found(&[("rp-filter", Severity::Warning)]);
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
        absent("rp-filter");
    });
}

#[test]
fn bridge_netfilter_with_a_dropping_forward_chain_is_an_error() {
    in_netns(|| {
        underlay();
        let knob = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::fs::write(knob, "1").is_err() {
            return unmet("the kernel has no br_netfilter (CONFIG_BRIDGE_NETFILTER)");
        }
        found(&[("br-netfilter", Severity::Warning)]);
        let nft = |args: &str| {
            std::process::Command::new("nft").args(args.split(' ')).status().is_ok_and(|s| s.success())
        };
        if !nft("add table ip filter")
            || !nft("add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")
        {
            return unmet("nft is not there or refused a chain (install nftables)");
        }
        found(&[("br-netfilter", Severity::Error)]);
    });
}

/// PIT-07
#[test]
fn rules_that_look_at_guests_arp_are_named_and_others_are_not() {
    in_netns(|| {
        underlay();
        let nft = |args: &str| {
            std::process::Command::new("nft").args(args.split(' ')).status().is_ok_and(|s| s.success())
        };
        if !nft("add table bridge guard")
            || !nft("add chain bridge guard in { type filter hook prerouting priority -300 ; }")
        {
            return unmet("nft is not there or refused a chain (install nftables)");
        }
        assert!(nft("add rule bridge guard in iifname p1 ether type ip6 drop"));
        absent("arp-filter");
        assert!(nft("add rule bridge guard in iifname p1 ether type arp drop"));
        found(&[("arp-filter", Severity::Warning)]);
        let all = hostcheck::run(&[], &[]);
        let f = all.iter().find(|f| f.id == "arp-filter").unwrap();
        assert!(f.what.contains("bridge guard in") && f.way_out.contains("allowed"), "{f:?}");
    });
}

#[test]
fn the_peculiarities_of_an_adopted_bridge_are_named_one_by_one() {
    in_netns(|| {
        underlay();
        ip("link add br100 type bridge mcast_snooping 1");
        port("p1");
        ip("link set p1 master br100");
        quiet("br100");
        found(&[
            ("snooping", Severity::Warning),
            ("floating-mac", Severity::Warning),
            ("disable-ipv6", Severity::Error),
            ("answers-arp", Severity::Warning),
        ]);
        std::fs::write("/proc/sys/net/ipv6/conf/br100/disable_ipv6", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/br100/accept_ra", "1").unwrap();
        found(&[("accept-ra", Severity::Warning), ("own-address", Severity::Warning)]);
        absent("disable-ipv6");
        ip("link set br100 type bridge mcast_snooping 0");
        ip("link set br100 address 02:bb:00:00:00:07");
        absent("snooping");
        absent("floating-mac");
    });
}

/// The kernel's limit of what a bridge learns is its owner's to set; that there is none is said, with the command.
#[test]
fn an_adopted_bridge_that_learns_without_limit_is_named_with_the_command() {
    in_netns(|| {
        underlay();
        let mut limited = device(&[]);
        limited.fdb_limit = 139_280;
        let named = |want: &DeviceWant| {
            hostcheck::run(std::slice::from_ref(want), &[]).into_iter().find(|f| f.id == "fdb-limit")
        };
        ip("link add br100 type bridge");
        let Some(f) = named(&limited) else {
            return unmet("the kernel has no limit for bridges (Linux 6.7)");
        };
        assert_eq!(f.severity, Severity::Warning);
        assert!(f.way_out.contains("`ip link set br100 type bridge fdb_max_learned 139280`"), "{f:?}");
        assert_eq!(named(&device(&[])), None, "no limit is wanted");
        // With a limit, whichever, it is its owner's affair. (One that we have made, without our mark.)
        ip("link del br100");
        drop(Plane::synced(vec![limited.clone()]));
        ip("link set br100 alias somebody's");
        limited.fdb_limit = 5;
        assert_eq!(named(&limited), None);
    });
}

#[test]
fn a_vxlan_device_with_another_vni_is_reported_and_left_alone() {
    in_netns(|| {
        underlay();
        ip("link add vx100 type vxlan id 200 local 10.0.0.1 dstport 4789 nolearning");
        let mut p = Plane::open(vec![device(&[])]);
        p.until("problem", |p| p.plane.problems().iter().any(|d| d.id == "vni" && d.fatal).then_some(()));
        assert!(ip("-d -o link show dev vx100").contains("id 200"));
        assert!(!ip("-o link show dev vx100").contains("master"));
    });
}
