//! How connections to FRR are made and guarded: TTL security, signatures.

use std::net::IpAddr;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, frr_conf};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::ns::Netns;
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

/// Addresses that the two speak between: their VTEPs' own, or IPv6 ones.
fn ends(m: &Mixed, v6: bool) -> [IpAddr; 2] {
    if !v6 {
        return [m.vtep(0).address, m.vtep(1).address];
    }
    [0, 1].map(|i: usize| {
        let address = IpAddr::from([0xfd00, 0xf, 0, 0, 0, 0, 0, i as u16 + 1]);
        m.vtep(i).ns.sh(&format!("ip addr add {address}/64 dev u0 nodad"));
        address
    })
}

/// vtepd on VTEP 0 (AS 65001) and FRR on VTEP 1 (AS 65002), each with lines of its own for the other.
fn pair(v6: bool, ours: &str, theirs: impl Fn(IpAddr) -> String) -> Mixed {
    let mut m = Mixed::new(Fabric::new(2));
    let [a, b] = ends(&m, v6);
    m.vtep(1).make_devices(100, &["p1"]);
    let conf = frr_conf(65002, 2, &[(a, 65001)], "") + "router bgp 65002\n" + &theirs(a);
    m.start_frr_with(1, &conf);
    let mut conf = m.fabric.conf(0);
    conf.asn = 65001;
    conf.neighbors = vec![(b, 65002)];
    conf.neighbor_extra = ours.into();
    m.start_vtepd_with(0, &conf);
    m
}

/// A counter of the namespace's TCP (`TcpExt…`).
fn tcp_counter(ns: &Netns, name: &str) -> u64 {
    let all = ns.sh("cat /proc/net/netstat");
    let mut lines = all.lines().filter(|l| l.starts_with("TcpExt:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split_whitespace().position(|n| n == name).expect("the kernel counts it");
    values.split_whitespace().nth(at).and_then(|v| v.parse().ok()).expect("a number")
}

/// The kernel has dropped some, and neither side has heard a word of the other.
fn silence(m: &Mixed, counters: &[&str]) {
    let of = |i: usize| counters.iter().map(|c| tcp_counter(&m.vtep(i).ns, c)).sum::<u64>();
    eventually(SOON, "the kernel drops what comes", || {
        let dropped = of(0);
        if dropped >= 3 { Ok(()) } else { Err(dropped) }
    });
    throughout(Duration::from_millis(500), "no session", || {
        let n = m.vtepd(0).show("neighbors", &[])[0].clone();
        let silent = n["established_count"] == 0 && !n["last_error"].to_string().contains("received");
        if silent { Ok(()) } else { Err(n) }
    });
}

/// BGP-SEC-01 with FRR's `ttl-security hops 1`: both send 255 and take nothing less.
#[test]
fn ttl_security_with_frr_comes_up_in_both_families() {
    if !met(&NEEDS) {
        return;
    }
    for v6 in [false, true] {
        let m = pair(v6, "ttl-security = 1\n", |a| format!(" neighbor {a} ttl-security hops 1\n"));
        m.converge();
    }
}

/// BGP-SEC-01: what comes with a TTL that somebody farther away could have sent is dropped by the kernel, on the
/// connections that FRR makes and on ours; nobody is told.
#[test]
fn a_neighbour_without_ttl_security_is_not_heard() {
    if !met(&NEEDS) {
        return;
    }
    for v6 in [false, true] {
        let m = pair(v6, "ttl-security = 1\n", |_| String::new());
        silence(&m, &["TCPMinTTLDrop"]);
    }
}

/// BGP-SEC-03 with FRR's `password`, whoever connects, from a file and from the environment, with and without TTL
/// security. No output of ours has the key.
#[test]
fn tcp_md5_with_frr_comes_up_in_both_families_whoever_connects() {
    if !met(&NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    std::fs::write(&file, "kqx7-secret\n").expect("written");
    let from_file = format!("password-file = \"{}\"\n", file.display());
    for v6 in [false, true] {
        for (ours, theirs) in [("passive = true\n", ""), ("ttl-security = 2\n", " passive")] {
            let m = pair(v6, &format!("{from_file}{ours}"), |a| {
                let second = if theirs.is_empty() {
                    String::new()
                } else {
                    format!(" neighbor {a}{theirs}\n neighbor {a} ttl-security hops 2\n")
                };
                format!(" neighbor {a} password kqx7-secret\n{second}")
            });
            m.converge();
            let v = m.vtepd(0);
            assert!(!v.process.log().contains("kqx7"), "{}", v.process.log());
            for table in ["status", "neighbors"] {
                let shown = format!("{:?}", v.show(table, &[]));
                assert!(!shown.contains("kqx7"), "{shown}");
            }
        }
    }
}

/// BGP-SEC-03: with another key, or none on one side, no connection comes up, and nothing is said to anybody. With
/// the right one at last it does.
#[test]
fn a_wrong_or_missing_md5_key_is_silence_until_it_is_put_right() {
    if !met(&NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    std::fs::write(&file, "right").expect("written");
    let ours = format!("password-file = \"{}\"\n", file.display());
    let counters = ["TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure"];
    for v6 in [false, true] {
        let m = pair(v6, &ours, |a| format!(" neighbor {a} password wrong\n"));
        silence(&m, &counters);
        let a = if v6 { "fd00:f::1" } else { "10.0.0.1" };
        m.frr(1).configure(65002, &[&format!("no neighbor {a} password")]);
        silence(&m, &counters);
        m.frr(1).configure(65002, &[&format!("neighbor {a} password right")]);
        m.converge();
        eventually(LATER, "FRR has it too", || same(m.frr(1).neighbor_state(a), "Established".into()));
    }
}

/// Neighbours that nobody configured: two FRR connect to vtepd out of a range, with its key, and are forgotten by nobody
/// while they are up; and a vtepd is the dynamic neighbour of an FRR (`bgp listen range`). Who is outside is refused.
#[test]
fn dynamic_neighbours_with_frr_both_ways() {
    if !met(&NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    std::fs::write(&file, "range-key").expect("written");
    let mut m = Mixed::new(Fabric::new(4));
    let [a, d] = [m.vtep(0).address, m.vtep(3).address];
    for i in [1, 2] {
        m.vtep(i).make_devices(100, &["p1"]);
        let asn = 65000 + i as u32;
        let conf = frr_conf(asn, i + 1, &[(a, 65009)], "")
            + &format!("router bgp {asn}\n neighbor {a} password range-key\n");
        m.start_frr_with(i, &conf);
    }
    // The third listens for vtepd itself.
    m.vtep(3).make_devices(100, &["p1"]);
    let listens = "router bgp 65003\n neighbor L peer-group\n neighbor L remote-as external\n \
                   bgp listen range 10.0.0.0/30 peer-group L\n address-family l2vpn evpn\n  neighbor L activate\n exit-address-family\n";
    m.start_frr_with(3, &(frr_conf(65003, 4, &[], "") + listens));
    let mut conf = m.fabric.conf(0);
    conf.asn = 65009;
    conf.neighbors = vec![(d, 65003)];
    conf.sections = format!(
        "[neighbor-group.leaves]\nasn = \"external\"\npassword-file = \"{}\"\n\
         [[neighbor-range]]\nprefix = \"10.0.0.2/31\"\ngroup = \"leaves\"\nlimit = 2\n",
        file.display()
    );
    m.start_vtepd_with(0, &conf);
    m.converge();
    eventually(LATER, "both have come, and everybody floods to everybody", || {
        let rows = m.vtepd(0).show("neighbors", &[]);
        let up = rows.iter().filter(|r| r["state"] == "Established" && r["end_of_rib"] == true).count();
        let dynamic: Vec<_> =
            rows.iter().filter(|r| r["range"] == "10.0.0.2/31").map(|r| r["asn"].clone()).collect();
        let mut asns: Vec<u64> = dynamic.iter().filter_map(serde_json::Value::as_u64).collect();
        asns.sort_unstable();
        let mut flood = m.vtep(0).flood_list(100);
        flood.sort();
        same((up, asns, flood.len()), (3, vec![65001, 65002], 3)).map_err(|e| (e, rows))
    });
    let shown = m.frr(3).json("show bgp l2vpn evpn summary json");
    assert_eq!(shown["peers"]["10.0.0.1"]["state"], "Established", "{shown}");
    // An address that nobody expects gets nothing.
    m.vtep(1).ns.sh("ip addr add 10.0.0.9/24 dev u0");
    m.vtep(1).ns.enter(|| {
        use std::io::Read as _;
        let from = "10.0.0.9:0".parse::<std::net::SocketAddr>().expect("an address");
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&from.into()).expect("bound");
        socket.connect(&std::net::SocketAddr::new(a, 179).into()).expect("TCP comes up");
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "not a word");
    });
    let refused = m.vtepd(0).status()["counters"]["connections_from_strangers"].clone();
    assert!(refused.as_u64() >= Some(1), "{refused}");
}
