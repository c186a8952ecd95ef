//! A bridge as the first hop of its VNI, on the real kernel (EVPN-IRB-10, PIT-01, PIT-18).
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use evpn::fabric::{DeviceWant, GatewayWant, KernelEvent};
use evpn::types::Mac;
use std::net::IpAddr;

const MAC: &str = "00:00:5e:00:01:01";

fn gateway(addresses: &[(&str, u8)]) -> DeviceWant {
    let addresses = addresses.iter().map(|(a, bits)| (a.parse().unwrap(), *bits)).collect();
    DeviceWant {
        gateway: Some(GatewayWant { mac: Mac([0, 0, 0x5e, 0, 1, 1]), addresses }),
        ..device(&["p1"])
    }
}

fn both() -> DeviceWant {
    gateway(&[("10.1.0.1", 24), ("2001:db8:1::1", 64), ("fe80::200:5eff:fe00:101", 64)])
}

/// Its addresses, as `ip` prints them.
fn addresses() -> Vec<String> {
    let all = ip("-o addr show dev br100");
    let mut out: Vec<String> =
        all.lines().filter_map(|l| Some(l.split_whitespace().nth(3)?.to_owned())).collect();
    out.sort();
    out
}

fn link() -> String {
    ip("-o link show dev br100")
}

fn setting(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap().trim().to_owned()
}

fn eventually<T>(p: &mut Plane, what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    p.until(what, |_| holds())
}

#[test]
fn a_bridge_of_ours_is_a_gateway_from_the_start_and_none_any_more_without_it() {
    in_netns(|| {
        underlay();
        port("p1");
        let p = Plane::synced(vec![both()]);
        assert_eq!(p.plane.problems(), &[]);
        assert!(link().contains(MAC), "{}", link());
        assert_eq!(addresses(), ["10.1.0.1/24", "2001:db8:1::1/64", "fe80::200:5eff:fe00:101/64"]);
        let v6 = ip("-6 addr show dev br100");
        assert!(v6.contains("nodad") && !v6.contains("tentative"), "{v6}");
        for (key, value) in [
            ("ipv4/conf/br100/forwarding", "1"),
            ("ipv4/conf/br100/arp_ignore", "1"),
            ("ipv4/conf/br100/arp_announce", "2"),
            ("ipv4/neigh/br100/app_solicit", "3"),
            ("ipv6/conf/br100/forwarding", "1"),
            ("ipv6/neigh/br100/app_solicit", "3"),
            ("ipv6/conf/br100/accept_ra", "0"),
            ("ipv6/conf/br100/addr_gen_mode", "1"),
            // The host itself is no router.
            ("ipv4/ip_forward", "0"),
            ("ipv6/conf/all/forwarding", "0"),
            ("ipv4/conf/u0/forwarding", "0"),
        ] {
            assert_eq!(setting(key), value, "{key}");
        }
        assert_eq!(p.plane.gateway_repairs(), 0);
        p.plane.stop(false).unwrap();
        // Another run finds it as it is.
        let p = Plane::synced(vec![both()]);
        assert_eq!((p.plane.problems(), p.plane.gateway_repairs()), (&[][..], 0));
        p.plane.stop(false).unwrap();
        // One whose configuration has dropped it leaves nothing of it, and what is not ours stays.
        ip("addr add 10.9.0.1/24 dev br100");
        let p = Plane::synced(vec![device(&["p1"])]);
        assert_eq!(p.plane.problems(), &[]);
        assert_eq!(addresses(), ["10.9.0.1/24"]);
        assert!(link().contains("02:bb:00:00:00:01"), "{}", link());
        for (key, value) in [
            ("ipv4/conf/br100/forwarding", "0"),
            ("ipv4/conf/br100/arp_ignore", "8"),
            ("ipv4/neigh/br100/app_solicit", "0"),
            ("ipv6/conf/br100/forwarding", "0"),
        ] {
            assert_eq!(setting(key), value, "{key}");
        }
        p.plane.stop(false).unwrap();
    });
}

#[test]
fn what_somebody_takes_from_a_gateway_comes_back_and_is_counted() {
    in_netns(|| {
        underlay();
        port("p1");
        let mut p = Plane::synced(vec![both()]);
        let all = addresses();
        let mut repairs = 0;
        for (command, takes) in [
            ("addr del 10.1.0.1/24 dev br100", 1),
            ("addr del 2001:db8:1::1/64 dev br100", 1),
            ("addr flush dev br100", 3),
            ("link set br100 address 02:00:00:00:00:77", 1),
        ] {
            ip(command);
            repairs += takes;
            eventually(&mut p, command, || (addresses() == all && link().contains(MAC)).then_some(()));
            p.until("counted", |p| (p.plane.gateway_repairs() == repairs).then_some(()));
        }
        // IPv6 addresses go when it goes down.
        ip("link set br100 down");
        eventually(&mut p, "up again, with all", || (addresses() == all).then_some(()));
        // Nobody tells of settings: they are looked at.
        std::fs::write("/proc/sys/net/ipv4/conf/br100/forwarding", "0").unwrap();
        p.plane.look_at_gateways().unwrap();
        eventually(&mut p, "it forwards", || (setting("ipv4/conf/br100/forwarding") == "1").then_some(()));
        assert_eq!(p.plane.problems(), &[]);
        p.plane.stop(false).unwrap();
    });
}

#[test]
fn an_adopted_bridge_gets_the_mac_once_and_its_operator_has_the_last_word() {
    in_netns(|| {
        underlay();
        port("p1");
        ip("link add br100 address 02:00:00:00:00:99 type bridge mcast_snooping 0");
        std::fs::write("/proc/sys/net/ipv6/conf/br100/addr_gen_mode", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/br100/accept_ra", "0").unwrap();
        ip("link set br100 up");
        ip("addr add 10.1.0.1/24 dev br100");
        let mut p = Plane::synced(vec![both()]);
        assert_eq!(p.plane.problems(), &[]);
        assert!(link().contains(MAC), "{}", link());
        ip("link set br100 address 02:00:00:00:00:77");
        let problem = p.until("told", |p| {
            p.plane.problems().iter().find(|d| d.id == "gateway-mac").map(|d| d.problem.clone())
        });
        assert!(problem.contains("ip link set br100 address 00:00:5e:00:01:01"), "{problem}");
        p.settle();
        assert!(link().contains("02:00:00:00:00:77"), "{}", link());
        p.plane.stop(false).unwrap();
        // What the operator has given it stays when it is no gateway any more.
        let p = Plane::synced(vec![device(&["p1"])]);
        assert_eq!(addresses(), ["10.1.0.1/24"]);
        p.plane.stop(false).unwrap();
    });
}

/// PIT-18: the kernel asks us before it asks the hosts.
#[test]
fn the_kernel_says_whom_it_looks_for() {
    in_netns(|| {
        underlay();
        port("p1");
        let mut p = Plane::synced(vec![both()]);
        let dev = index("br100");
        for (to, tool) in [("10.1.0.77", "ping -n -c 1 -W 1"), ("2001:db8:1::77", "ping -6 -n -c 1 -W 1")] {
            p.events.clear();
            let mut words = tool.split(' ');
            let mut ping = std::process::Command::new(words.next().unwrap())
                .args(words)
                .arg(to)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let asked = KernelEvent::NeighAsked { dev, ip: to.parse::<IpAddr>().unwrap() };
            p.until("asked", |p| p.events.contains(&asked).then_some(()));
            ping.wait().unwrap();
        }
        p.plane.stop(false).unwrap();
    });
}
