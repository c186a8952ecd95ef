//! Where nothing is flooded, what hosts say to everybody is carried to those whom it concerns (PIT-19, PROXY-FLOOD-01,
//! PROXY-FWD-01).

mod world;

use bytes::Bytes;
use evpn::fabric::PortFlags;
use evpn::node::{Config, Flooding, Input, Unknown};
use evpn::types::{IfIndex, Mac, Span};
use evpn::wire::frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use world::steps::{MS, garp, ip};
use world::{P1, P2, World, frames, mac, vtep};

const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const ALL_ROUTERS: Mac = Mac([0x33, 0x33, 0, 0, 0, 2]);

/// A server with 10.1.0.1 behind node 0, a client behind node 1, somebody else behind node 2.
fn world(tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(3, MS, |c| {
        let v = &mut c.vnis[0];
        v.flooding = Flooding::None;
        v.hosts.unknown = Unknown::Unicast;
        v.hosts.dhcp_servers = [ip(1)].into();
        tweak(c);
    });
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.frame(2, P1, mac(3), Some(garp(mac(3), ip(3))));
    w.run_for(Span::secs(1));
    forget(&mut w);
    w
}

fn forget(w: &mut World) {
    for h in &mut w.hosts {
        h.encapsulated.clear();
    }
}

/// Where frames of a node went, for whom.
fn carried(w: &World, i: usize) -> Vec<(IpAddr, Mac)> {
    let to = |b: &Bytes| Mac(*b.first_chunk::<6>().expect("a frame"));
    w.hosts[i].encapsulated.iter().map(|(vtep, b)| (*vtep, to(b))).collect()
}

fn count(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

fn say(w: &mut World, i: usize, port: IfIndex, from: Mac, f: Vec<u8>) {
    w.frame(i, port, from, Some(f.into()));
    w.run_for(Span::millis(20));
}

fn udp4(to: Mac, from: Mac, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut head = [&[0x45, 0][..], &(20 + len).to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
    head.extend([10, 1, 0, 1, 255, 255, 255, 255]);
    let sum: u32 = head.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = [ports.0, ports.1, len, 0].map(u16::to_be_bytes).concat();
    [&to.0[..], &from.0, &[8, 0], &head, &udp, payload].concat()
}

/// `op` 1: a client's discover; 2: a server's offer.
fn dhcp(op: u8, to: Mac, from: Mac, client: Mac) -> Vec<u8> {
    let mut m = vec![op, 1, 6, 0];
    m.resize(28, 0);
    m.extend(client.0);
    m.resize(236, 0);
    m.extend([0x63, 0x82, 0x53, 0x63, 53, 1, op, 255]);
    udp4(to, from, if op == 1 { (68, 67) } else { (67, 68) }, &m)
}

fn discover(client: Mac) -> Vec<u8> {
    dhcp(1, Mac::BROADCAST, client, client)
}

fn link_local(m: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = m.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn icmp6(to: Mac, from: Mac, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let src = link_local(from);
    let mut m = message.to_vec();
    let all = [&src.octets()[..], &dst.octets(), &[0, 0, 0, m.len() as u8, 0, 0, 0, 58], &m].concat();
    let mut sum: u32 =
        all.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    m[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let head = [0x60, 0, 0, 0, 0, m.len() as u8, 58, 255];
    [&to.0[..], &from.0, &[0x86, 0xdd], &head, &src.octets(), &dst.octets(), &m].concat()
}

fn solicitation(from: Mac) -> Vec<u8> {
    icmp6(ALL_ROUTERS, from, "ff02::2".parse().expect("address"), &[133, 0, 0, 0, 0, 0, 0, 0])
}

fn advertisement(from: Mac) -> Vec<u8> {
    let m = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    icmp6(ALL_NODES, from, "ff02::1".parse().expect("address"), &m)
}

/// A host says that it has its link-local address, and whether it is a router.
fn here_v6(w: &mut World, i: usize, m: Mac, router: bool) {
    let f = frame::unsolicited_advertisement(m, link_local(m), None, router);
    w.frame(i, P1, m, Some(f));
    w.run_for(Span::millis(50));
}

#[test]
fn a_clients_words_go_to_the_server_alone_and_its_answers_to_the_client_alone() {
    let mut w = world(|_| {});
    let client = mac(2);
    say(&mut w, 1, P1, client, discover(client));
    assert_eq!(carried(&w, 1), [(vtep(0), mac(1))]);
    let (_, f) = &w.hosts[1].encapsulated[0];
    assert_eq!(f[6..38], discover(client)[6..38], "but for its destination it is as it was");
    forget(&mut w);
    // To all: the client has asked for that.
    say(&mut w, 0, P1, mac(1), dhcp(2, Mac::BROADCAST, mac(1), client));
    assert_eq!(carried(&w, 0), [(vtep(1), client)]);
    forget(&mut w);
    // To the client, whom the bridge knows by now.
    w.run_for(Span::secs(1));
    say(&mut w, 0, P1, mac(1), dhcp(2, client, mac(1), client));
    assert_eq!(carried(&w, 0), [], "the bridge forwards it");
    assert_eq!((count(&mut w, 1, "carried_dhcp"), count(&mut w, 0, "carried_dhcp")), (1, 1));
}

/// PIT-07: a tap hears what a locked or blocked port does not let in.
#[test]
fn what_a_port_does_not_let_in_is_not_carried_past_it() {
    for set in [|p: &mut PortFlags| p.locked = true, |p: &mut PortFlags| p.forwarding = false] {
        let mut w = world(|_| {});
        w.port_with(1, P1, set);
        let client = mac(2);
        let asks = frame::arp_request(client, Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 99));
        for f in [discover(client), solicitation(client), asks.to_vec()] {
            w.input(1, Input::Frame { port: P1, bytes: f.into() });
            w.run_for(Span::millis(50));
        }
        assert_eq!(carried(&w, 1), []);
        assert_eq!(count(&mut w, 1, "carried_not_let_in"), 3);
        // The bridge has a row for it by now: it was let in.
        w.frame(1, P1, client, None);
        w.run_for(Span::millis(50));
        say(&mut w, 1, P1, client, discover(client));
        assert_eq!(carried(&w, 1), [(vtep(0), mac(1))]);
    }
}

#[test]
fn an_answer_that_is_faster_than_the_route_waits_for_it() {
    let mut w = world(|_| {});
    let client = mac(2);
    say(&mut w, 0, P1, mac(1), dhcp(2, client, mac(1), client));
    say(&mut w, 0, P1, mac(1), dhcp(2, Mac::BROADCAST, mac(1), mac(7)));
    assert_eq!(carried(&w, 0), []);
    w.frame(1, P1, client, None);
    w.run_for(Span::millis(50));
    assert_eq!(carried(&w, 0), [(vtep(1), client)]);
    // Nobody has the other one's route in time.
    w.run_for(Span::secs(3));
    w.frame(1, P1, mac(7), None);
    w.run_for(Span::secs(1));
    assert_eq!(carried(&w, 0).len(), 1);
    assert_eq!(count(&mut w, 0, "carried_to_nobody"), 1);
}

#[test]
fn servers_of_this_site_and_strangers_that_play_the_server_are_left_to_the_bridge() {
    let mut w = world(|_| {});
    say(&mut w, 0, P2, mac(5), discover(mac(5)));
    assert_eq!(carried(&w, 0), [], "the server hears it");
    w.frame(1, P1, mac(2), None);
    w.run_for(Span::secs(1));
    say(&mut w, 2, P1, mac(3), dhcp(2, Mac::BROADCAST, mac(3), mac(2)));
    assert_eq!(carried(&w, 2), [], "no server of ours");
    // Without a server that anybody knows there is nowhere to go.
    let mut w = world(|c| c.vnis[0].hosts.dhcp_servers = [ip(99)].into());
    say(&mut w, 1, P1, mac(2), discover(mac(2)));
    assert_eq!((carried(&w, 1), count(&mut w, 1, "dhcp_without_server")), (vec![], 1));
}

#[test]
fn a_silent_server_is_asked_for_on_every_vteps_own_ports_until_it_is_bound() {
    let mut w = World::with(2, MS, |c| {
        let v = &mut c.vnis[0];
        v.flooding = Flooding::None;
        v.hosts.dhcp_servers = [ip(1)].into();
    });
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(30));
    let asked = |w: &World, i: usize| {
        let of = |(_, b): &&(IfIndex, Bytes)| {
            b[..6] == [0xff; 6] && b[12..14] == [8, 6] && b[38..42] == [10, 1, 0, 1]
        };
        w.hosts[i].emitted.iter().filter(of).count()
    };
    for i in [0, 1] {
        assert!((4..=8).contains(&asked(&w, i)), "two ports, thirty seconds: {}", asked(&w, i));
    }
    // A client that asks does not wait for the next time.
    let before = asked(&w, 1);
    say(&mut w, 1, P1, mac(2), discover(mac(2)));
    w.run_for(Span::secs(1));
    assert_eq!((asked(&w, 1) - before, count(&mut w, 1, "dhcp_without_server")), (2, 1));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(1));
    let before = [asked(&w, 0), asked(&w, 1)];
    w.run_for(Span::secs(30));
    assert_eq!([asked(&w, 0), asked(&w, 1)], before, "it is bound");
}

/// A router that was there before us says so only now and then.
#[test]
fn who_advertises_itself_as_a_router_is_asked_and_then_known() {
    let mut w = world(|_| {});
    w.frame(0, P1, mac(4), None);
    w.run_for(Span::secs(1));
    w.hosts[0].emitted.clear();
    say(&mut w, 0, P1, mac(4), advertisement(mac(4)));
    let asks = |b: &Bytes| b[..6] == mac(4).0 && b[12..14] == [0x86, 0xdd] && b[54] == 135;
    assert!(w.hosts[0].emitted.iter().any(|(p, b)| *p == P1 && asks(b)), "{:?}", w.hosts[0].emitted);
}

#[test]
fn where_everything_is_flooded_nothing_is_carried() {
    let mut w = world(|c| {
        c.vnis[0].flooding = Flooding::Replicate;
        c.vnis[0].hosts.unknown = Unknown::Replicate;
    });
    say(&mut w, 1, P1, mac(2), discover(mac(2)));
    say(&mut w, 1, P1, mac(2), solicitation(mac(2)));
    say(
        &mut w,
        1,
        P1,
        mac(2),
        frames::arp(mac(2), Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 77)).to_vec(),
    );
    assert_eq!(carried(&w, 1), []);
}

#[test]
fn routers_are_asked_by_those_who_start_and_answer_them_first() {
    let mut w = world(|_| {});
    here_v6(&mut w, 0, mac(4), true);
    here_v6(&mut w, 2, mac(3), false);
    w.run_for(Span::secs(1));
    forget(&mut w);
    let host = mac(2);
    say(&mut w, 1, P1, host, solicitation(host));
    assert_eq!(carried(&w, 1), [(vtep(0), mac(4))], "the router, and no other host");
    assert_eq!(count(&mut w, 1, "carried_solicitations"), 1);
    forget(&mut w);
    // The router answers to all nodes: the asker, and who uses IPv6, each once.
    w.run_for(Span::millis(300));
    say(&mut w, 0, P1, mac(4), advertisement(mac(4)));
    w.run_for(Span::millis(100));
    let mut to = carried(&w, 0);
    assert_eq!(to.first(), Some(&(vtep(1), host)), "who has asked is first");
    to.sort_unstable();
    assert_eq!(to, [(vtep(1), host), (vtep(2), mac(3))]);
    forget(&mut w);
    // One that comes soon after goes to nobody who has not asked.
    say(&mut w, 0, P1, mac(4), advertisement(mac(4)));
    assert_eq!(carried(&w, 0), []);
    w.run_for(Span::secs(5));
    say(&mut w, 0, P1, mac(4), advertisement(mac(4)));
    w.run_for(Span::millis(100));
    assert!(carried(&w, 0).contains(&(vtep(2), mac(3))), "{:?}", carried(&w, 0));
}

#[test]
fn the_advertisements_of_a_router_reach_many_hosts_a_share_at_a_time() {
    let mut w = world(|_| {});
    here_v6(&mut w, 0, mac(4), true);
    for n in 0..200 {
        let m = Mac([2, 0, 0, 7, 0, n]);
        w.frame(1, P1, m, Some(frame::unsolicited_advertisement(m, link_local(m), None, false)));
    }
    w.run_for(Span::secs(2));
    forget(&mut w);
    w.frame(0, P1, mac(4), Some(advertisement(mac(4)).into()));
    assert!(carried(&w, 0).len() <= 64, "{}", carried(&w, 0).len());
    w.run_for(Span::millis(200));
    let mut to = carried(&w, 0);
    to.sort_unstable();
    let before = to.len();
    to.dedup();
    assert_eq!((to.len(), before), (200, 200));
}

#[test]
fn a_question_goes_to_the_owner_whom_the_kernel_does_not_answer_for() {
    let ask = |of: u8| frames::arp(mac(2), Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, of)).to_vec();
    let ns = |of: Ipv6Addr| frame::neighbor_solicitation(mac(2), link_local(mac(2)), None, of).to_vec();
    for suppression in [true, false] {
        for (unknown, flooding) in [
            (Unknown::Unicast, Flooding::None),
            (Unknown::Unicast, Flooding::Replicate),
            (Unknown::Drop, Flooding::None),
        ] {
            let mut w = world(|c| {
                let v = &mut c.vnis[0];
                (v.arp_suppression, v.flooding, v.hosts.unknown) = (suppression, flooding, unknown);
            });
            here_v6(&mut w, 2, mac(3), false);
            w.frame(1, P2, mac(6), Some(garp(mac(6), ip(6))));
            w.run_for(Span::millis(50));
            forget(&mut w);
            let owner =
                if suppression || unknown == Unknown::Drop { vec![] } else { vec![(vtep(2), mac(3))] };
            say(&mut w, 1, P1, mac(2), ask(3));
            assert_eq!(carried(&w, 1), owner, "{unknown:?} {flooding:?} {suppression}");
            forget(&mut w);
            say(&mut w, 1, P1, mac(2), ns(link_local(mac(3))));
            assert_eq!(carried(&w, 1), owner, "{unknown:?} {flooding:?} {suppression}");
            forget(&mut w);
            // Nobody's, one of this site, and an announcement.
            say(&mut w, 1, P1, mac(2), ask(77));
            say(&mut w, 1, P1, mac(2), ask(6));
            say(&mut w, 1, P1, mac(2), garp(mac(2), ip(2)).to_vec());
            assert_eq!(carried(&w, 1), [], "{unknown:?} {flooding:?} {suppression}");
            assert!(count(&mut w, 1, "questions_dropped") >= 1);
        }
    }
}

#[test]
fn questions_that_are_to_be_replicated_go_to_each_vtep_once() {
    let mut w = world(|c| c.vnis[0].hosts.unknown = Unknown::Replicate);
    let ask = frames::arp(mac(2), Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 77));
    say(&mut w, 1, P1, mac(2), ask.to_vec());
    assert_eq!(carried(&w, 1), [(vtep(0), Mac::BROADCAST), (vtep(2), Mac::BROADCAST)]);
}

#[test]
fn one_port_does_not_make_the_daemon_carry_without_end() {
    let mut w = world(|_| {});
    for _ in 0..1000 {
        w.frame(1, P1, mac(2), Some(discover(mac(2)).into()));
    }
    w.run_for(Span::millis(20));
    let n = carried(&w, 1).len();
    assert!((100..=210).contains(&n), "{n}");
    assert!(count(&mut w, 1, "carried_too_many") >= 700);
    // Another port is served all the same.
    forget(&mut w);
    say(&mut w, 1, P2, mac(8), discover(mac(8)));
    assert_eq!(carried(&w, 1), [(vtep(0), mac(1))]);
}
