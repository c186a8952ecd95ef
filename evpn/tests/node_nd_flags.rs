//! Flags of ND in routes and rows (RFC 9047): PROXY-EC-01, -02, -03, PROXY-REPLY-07.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use evpn::fabric::Row;
use evpn::node::view::{AnsweredBy, RouteView, Rows};
use evpn::node::{Gateway, GatewayAddress, Show};
use evpn::types::{Mac, Span};
use evpn::wire::frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use world::frames::garp;
use world::{P1, World, mac};

const V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

fn six(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

/// What node 1 has from node 0 for an address of a MAC, or for the MAC alone.
fn route(w: &mut World, m: Mac, ip: Option<IpAddr>) -> RouteView {
    let Rows::Routes(all) = w.ask(1, Show::Routes) else { panic!("routes were asked for") };
    let of_mac =
        all.iter().filter(|r| r.route_type == 2 && r.from.is_some() && r.route.contains(&m.to_string()));
    let right = |r: &&RouteView| match ip {
        Some(ip) => r.route.contains(&format!("[{ip}]")),
        None => !r.route.contains('.') && !r.route.contains("2001:"),
    };
    of_mac.clone().find(right).unwrap_or_else(|| panic!("{ip:?}: {:?}", of_mac.collect::<Vec<_>>())).clone()
}

fn flags(r: &RouteView) -> Vec<&str> {
    r.communities.iter().map(String::as_str).filter(|c| c.starts_with("ND:")).collect()
}

/// One community on each route with IPv6, none on others; R as the host said it, O always; the far row has R.
#[test]
fn routes_with_ipv6_carry_the_flags_that_the_host_advertised_and_others_none() {
    let mut w = World::converged(2, Span::millis(1));
    w.frame(0, P1, mac(1), Some(garp(mac(1), V4)));
    for (n, router) in [(1, false), (2, true)] {
        let na = frame::unsolicited_advertisement(mac(1), six(n), None, router);
        w.frame(0, P1, mac(1), Some(na));
    }
    w.run_for(Span::millis(10));
    assert_eq!(flags(&route(&mut w, mac(1), Some(six(1).into()))), ["ND:O"]);
    assert_eq!(flags(&route(&mut w, mac(1), Some(six(2).into()))), ["ND:RO"]);
    assert_eq!(flags(&route(&mut w, mac(1), Some(V4.into()))), [""; 0]);
    assert_eq!(flags(&route(&mut w, mac(1), None)), [""; 0]);
    for (n, router) in [(1, false), (2, true)] {
        assert_eq!(w.neigh_row(1, six(n).into()), Some(Row::Neigh { mac: mac(1), router }));
    }
    // It is no router any more.
    w.frame(0, P1, mac(1), Some(frame::unsolicited_advertisement(mac(1), six(2), None, false)));
    w.run_for(Span::millis(10));
    assert_eq!(flags(&route(&mut w, mac(1), Some(six(2).into()))), ["ND:O"]);
    assert_eq!(w.neigh_row(1, six(2).into()), Some(Row::Neigh { mac: mac(1), router: false }));
}

/// What a node has sent to another one's socket, which did not take it so far, with this octet behind the type of each ARP/ND
/// community.
fn with_flags(w: &mut World, from: usize, to: usize, flags: u8) {
    for (_, bytes) in w.hosts[from].stalled.get_mut(&to).unwrap() {
        let mut b = bytes.to_vec();
        let at: Vec<usize> = (0..b.len()).filter(|i| b[*i..].starts_with(&[6, 8])).collect();
        for i in at {
            b[i + 2] = flags;
        }
        *bytes = b.into();
    }
    w.unstall(from, to);
}

/// PROXY-EC-02: without O the owner answers for itself, because the kernel would say O=1; a router's row stays, since FRR sends
/// R and never O, and so does one that the kernel routes by. Without the community it is O.
#[test]
fn the_kernel_does_not_answer_for_an_address_whose_route_says_that_it_replaces_nothing() {
    for (flags, router, gateway, answers) in
        [(0u8, false, false, false), (2, false, false, true), (1, true, false, true), (0, false, true, true)]
    {
        let mut w = World::with(2, Span::millis(1), |c| {
            let addresses = vec![GatewayAddress::new(six(0xff).into(), 64).unwrap()];
            let mac = Mac([0, 0, 0x5e, 0, 1, 1]);
            c.vnis[0].hosts.gateway = gateway.then_some(Gateway { addresses, mac, ra: false });
        });
        w.run_for(Span::secs(10));
        w.stall(0, 1);
        w.frame(0, P1, mac(1), Some(garp(mac(1), V4)));
        w.frame(0, P1, mac(1), Some(frame::unsolicited_advertisement(mac(1), six(1), None, false)));
        w.run_for(Span::millis(10));
        with_flags(&mut w, 0, 1, flags);
        w.run_for(Span::millis(10));
        let row = Some(Row::Neigh { mac: mac(1), router });
        assert_eq!(
            w.neigh_row(1, six(1).into()),
            row.filter(|_| answers),
            "flags {flags}, gateway: {gateway}"
        );
        assert!(w.neigh_row(1, V4.into()).is_some(), "nothing of that is about IPv4");
        let Rows::Hosts(all) = w.ask(1, Show::Hosts) else { panic!("hosts were asked for") };
        let host = all.iter().find(|h| h.ip == IpAddr::from(six(1))).unwrap();
        assert_eq!((host.mac, host.answered_by == AnsweredBy::Kernel), (mac(1), answers), "{host:?}");
        // The devices come anew, and all rows are wanted again.
        w.devices(1, world::own_mac(1));
        w.run_for(Span::millis(10));
        assert_eq!(w.neigh_row(1, six(1).into()).is_some(), answers, "flags {flags}");
        // It is an ordinary address now.
        w.frame(0, P1, mac(1), Some(frame::unsolicited_advertisement(mac(1), six(1), None, true)));
        w.run_for(Span::millis(10));
        assert_eq!(w.neigh_row(1, six(1).into()), Some(Row::Neigh { mac: mac(1), router: true }));
    }
}
