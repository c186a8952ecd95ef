//! Flags of ND in routes and rows (RFC 9047): PROXY-EC-01, -02, -03, PROXY-REPLY-07.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use evpn::fabric::Row;
use evpn::node::Show;
use evpn::node::view::{RouteView, Rows};
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
