//! Starting over what is already there, and neighbours that misbehave: adoption of rows and devices (PIT-27), what
//! `check --host` finds (PIT-09), rubbish from a peer.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, test_mac};
use vtepd_tests::need::{Need, met, our};
use vtepd_tests::packet::Monitor;
use vtepd_tests::poll::{SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, imet, mac_ip, message};
use vtepd_tests::vtepd::Vtepd;

/// Design section 5: rows found at start are wanted until End-of-RIB from every neighbour, whatever the tables say.
#[test]
fn after_a_kill_and_a_start_rows_stay_until_end_of_rib_and_foreign_rows_for_ever() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let conf = f.conf(0);
    let d = Vtepd::start(&a.ns, &conf);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let (kept, lost) = (Guest::new(5), Guest::new(6));
    let at = Attributes::new(b.address, 100);
    let flood = at.clone().ingress_replication(100, b.address);
    let routes = |g: &Guest| [mac_ip(100, g.mac, None), mac_ip(100, g.mac, Some(g.ip.into()))];
    s.announce(&flood, &[imet(b.address)]);
    for g in [&kept, &lost] {
        s.announce(&at, &routes(g));
    }
    s.end_of_rib();
    d.converge();
    let here = |g: &Guest| -> Result<(), String> {
        a.sends_to(100, g.mac, &Place::vtep(b)).map_err(|e| format!("{}: {e:?}", g.mac))?;
        same(a.neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())?;
        same(a.flood_list(100), vec![b.address.to_string()])
    };
    eventually(SOON, "both hosts are known", || here(&kept).and_then(|()| here(&lost)));

    // Rows of somebody else: not `extern_learn`, or without our protocol.
    let foreign = test_mac(0xf0);
    a.ns.sh(&format!(
        "bridge fdb add {foreign} dev vx100 dst 10.0.0.9 self permanent
         bridge fdb add {foreign} dev vx100 master static
         ip neigh add 192.168.100.240 lladdr {foreign} dev br100 nud permanent"
    ));
    let foreign_is_there = || -> Result<(), String> {
        let rows = a.ns.sh("bridge fdb show br br100") + &a.ns.sh("bridge fdb show dev vx100");
        let own = rows.lines().filter(|l| l.contains(&foreign.to_string())).count();
        let neigh = a.neigh_row(100, Ipv4Addr::new(192, 168, 100, 240).into());
        if own >= 2 && neigh["lladdr"] == foreign.to_string().as_str() {
            Ok(())
        } else {
            Err(format!("{rows}\n{neigh}"))
        }
    };
    foreign_is_there().expect("written");

    let mut monitor = Monitor::open(&a.ns);
    let dir = d.kill();
    drop(s);
    here(&kept).and_then(|()| here(&lost)).expect("a killed daemon leaves its rows");
    let d = Vtepd::start_again(&a.ns, &conf, dir);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    eventually(SOON, "the rows are adopted", || {
        let stale = d.show("kernel", &[]).iter().filter(|r| r["stale"] == true).count();
        if stale >= 5 { Ok(()) } else { Err(d.show("kernel", &[])) }
    });
    // The session is up and the table empty: no reason to remove anything.
    throughout(Duration::from_secs(1), "nothing goes before End-of-RIB", || {
        here(&kept).and_then(|()| here(&lost)).and_then(|()| foreign_is_there())
    });
    s.announce(&flood, &[imet(b.address)]);
    s.announce(&at, &routes(&kept));
    eventually(SOON, "the route that came back is no longer stale", || {
        same(d.mac(&kept.mac.to_string())["stale"].clone(), false.into())
    });
    here(&lost).expect("still not End-of-RIB");
    let mut deleted = Vec::new();
    while monitor.read(Duration::ZERO, |x| {
        if !x.new {
            deleted.push(x);
        }
    }) {}
    assert!(deleted.is_empty(), "rows were deleted before End-of-RIB: {deleted:?}");

    s.end_of_rib();
    eventually(SOON, "what nobody confirmed is removed", || {
        a.sends_to(100, lost.mac, &Place::Nowhere).map_err(|e| format!("{e:?}"))?;
        same(a.neigh_row(100, lost.ip.into()), Value::Null)
    });
    here(&kept).expect("what was confirmed stays");
    foreign_is_there().expect("foreign rows are never touched");
    while monitor.read(Duration::ZERO, |x| {
        assert!(x.new || x.mac != kept.mac, "the confirmed row was removed for a moment");
    }) {}
    let swept = d.show("events", &[]).iter().any(|e| e["event"] == "stale-swept");
    assert!(swept, "and it is told");
}

/// The VTEP address changed between two runs: devices of ours follow, somebody else's are reported and left alone.
#[test]
fn a_new_vtep_address_is_given_to_devices_of_ours_and_reported_on_others() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    // VNI 200 on devices that an administrator made.
    a.ns.sh(&format!(
        "ip link add br200 type bridge mcast_snooping 0 && ip link set br200 address 02:bb:00:00:02:00 addrgenmode none up
         ip link add vx200 type vxlan id 200 local {} dstport 4789 nolearning
         ip link set vx200 master br200 addrgenmode none up",
        a.address
    ));
    let mut conf = f.conf(0);
    conf.vnis.push((200, Vec::new()));
    // A device that is being made anew is missing for a moment.
    let link = |dev: &str| {
        let all = a.ns.json("ip -d -j link show");
        all.as_array().and_then(|l| l.iter().find(|l| l["ifname"] == dev)).cloned().unwrap_or(Value::Null)
    };
    let local = |dev: &str| link(dev)["linkinfo"]["info_data"]["local"].clone();
    let d = Vtepd::start(&a.ns, &conf);
    eventually(SOON, "both VNIs are ready", || {
        let v = d.show("vnis", &[]);
        if v.len() == 2 && v.iter().all(|v| v["ready"] == true) { Ok(()) } else { Err(v) }
    });
    assert_eq!(local("vx100"), a.address.to_string().as_str());

    let new: IpAddr = Ipv4Addr::new(10, 0, 0, 41).into();
    a.ns.sh(&format!("ip addr add {new}/24 dev u0"));
    conf.address = new;
    conf.vni_extra = "mtu = 1430".into();
    let d = d.restart(&a.ns, &conf);
    eventually(SOON, "our device has the new address, and the VNI is ready", || {
        let v = d.show("vnis", &[]);
        let ready = v.iter().any(|v| v["vni"] == 100 && v["ready"] == true);
        if local("vx100") == new.to_string().as_str() && ready { Ok(()) } else { Err((local("vx100"), v)) }
    });
    eventually(SOON, "and the new MTU", || {
        let mtu = |dev: &str| link(dev)["mtu"].clone();
        same((mtu("br100"), mtu("vx100")), (1430.into(), 1430.into()))
    });
    assert_eq!(local("vx200"), a.address.to_string().as_str(), "somebody else's device is left alone");
    let problems = d.show("vnis", &[]).iter().find(|v| v["vni"] == 200).map(|v| v["problems"].to_string());
    let said = problems.unwrap_or_default();
    assert!(said.contains("vx200") && said.contains(&new.to_string()), "and reported: {said}");
    let twice = a.ns.sh("ip -br link show type vxlan");
    assert_eq!(twice.lines().count(), 2, "{twice}");

    // And frames flow: the peer has it as a neighbour under the new address.
    let mut far = f.conf(1);
    far.neighbors = vec![(new, 65000)];
    far.vni_extra = "mtu = 1430".into();
    let db = Vtepd::start(&b.ns, &far);
    db.converge();
    let g = Guest::new(5);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(SOON, "the guest is behind the new address", || {
        b.sends_to(100, g.mac, &Place::Vtep(new.to_string()))
    });
}

/// An OPEN as the peer expects it.
fn open() -> Vec<u8> {
    let caps = [1, 4, 0, 25, 0, 70, 2, 0, 65, 4, 0, 0, 0xfd, 0xe8];
    let mut body = vec![4, 0xfd, 0xe8, 0, 90, 10, 0, 0, 3];
    body.extend([caps.len() as u8 + 2, 2, caps.len() as u8]);
    body.extend(caps);
    message(1, &body)
}

/// What a broken, or hostile, neighbour may say.
fn rubbish() -> Vec<(&'static str, Vec<u8>)> {
    let noise: Vec<u8> = (0..6000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let established = |then: &[u8]| [open(), message(4, &[]), then.to_vec()].concat();
    let mut huge = message(2, &[]);
    huge[16..18].copy_from_slice(&[0xff, 0xff]);
    // UPDATEs whose parts claim more than there is, and an NLRI with a MAC of 200 bits.
    let bad_nlri =
        [&[0, 0, 0, 53, 0x90, 14, 0, 49, 0, 25, 70, 4, 10, 0, 0, 3, 0, 2, 33][..], &[0xc8; 33]].concat();
    vec![
        ("noise", noise.clone()),
        ("nothing", Vec::new()),
        ("half a header", vec![0xff; 9]),
        ("a message of 65535 octets", huge),
        ("an OPEN of version 3", message(1, &[3, 0xfd, 0xe8, 0, 90, 10, 0, 0, 3, 0])),
        ("an UPDATE before OPEN", message(2, &[0, 0, 0, 0])),
        ("noise after OPEN", [open(), noise.clone()].concat()),
        ("noise when established", established(&noise)),
        ("lengths beyond the end", established(&message(2, &[0xff, 0xff, 0, 0]))),
        ("attributes beyond the end", established(&message(2, &[0, 0, 0xff, 0, 0x40, 1]))),
        ("an EVPN route with a MAC of 200 bits", established(&message(2, &bad_nlri))),
        ("a message type 77", established(&message(77, &[1, 2, 3]))),
    ]
}

/// A peer that sends rubbish never affects another peer.
#[test]
fn rubbish_from_one_neighbour_leaves_the_session_and_the_routes_of_another_alone() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(3);
    let [a, b, c] = [&f.vteps[0], &f.vteps[1], &f.vteps[2]];
    let (da, mut far) = (f.start_vtepd(0), f.conf(1));
    far.neighbors = vec![(a.address, 65000)];
    let db = Vtepd::start(&b.ns, &far);
    db.converge();
    let g = Guest::new(5);
    f.guest_port(1, "p1").send(&g.garp());
    eventually(SOON, "B's guest is known at A", || a.sends_to(100, g.mac, &Place::vtep(b)));
    let of_b = || {
        let rows = da.show("neighbors", &[]);
        rows.into_iter().find(|r| r["address"] == b.address.to_string().as_str()).expect("B is a neighbour")
    };
    let before = of_b();
    let mut monitor = Monitor::open(&a.ns);
    for (what, octets) in rubbish() {
        let mut said = Vec::new();
        // While A dials by itself it may refuse a second connection; then it has to be said again.
        eventually(SOON, what, || -> Result<(), String> {
            let mut s =
                c.ns.enter(|| TcpStream::connect_timeout(&(a.address, 179).into(), Duration::from_secs(5)))
                    .map_err(|e| e.to_string())?;
            s.set_read_timeout(Some(Duration::from_secs(2))).map_err(|e| e.to_string())?;
            let _ = s.write_all(&octets);
            let _ = s.shutdown(std::net::Shutdown::Write);
            said.clear();
            let _ = s.read_to_end(&mut said);
            if said.is_empty() && !octets.is_empty() { Err("closed without a word".into()) } else { Ok(()) }
        });
        let kinds: Vec<u8> = said.iter().skip(18).take(1).copied().collect();
        println!("{what}: answered with {} octets, first type {kinds:?}", said.len());
        let now = of_b();
        assert_eq!(
            (&now["state"], &now["established_count"], &now["routes_in"]),
            (&before["state"], &before["established_count"], &before["routes_in"]),
            "after {what}"
        );
        assert_eq!(a.sends_to(100, g.mac, &Place::vtep(b)), Ok(()), "after {what}");
    }
    while monitor.read(Duration::ZERO, |x| assert!(x.mac != g.mac, "B's row was touched: {x:?}")) {}
    let of_c = da.show("neighbors", &[]);
    let of_c =
        of_c.iter().find(|r| r["address"] == c.address.to_string().as_str()).expect("C is a neighbour");
    assert!(of_c["last_error"].is_string(), "and what C did wrong can be seen: {of_c}");
    // The same neighbour is welcome once it behaves.
    let s = Speaker::accept(&c.ns, c.address, 65000);
    s.end_of_rib();
    da.converge();
}

/// PIT-09 as an operator meets it: the command, its exit code, and each finding with its way out.
#[test]
fn check_host_names_what_would_stop_the_vms_with_the_way_out() {
    if !met(&[Need::Root, Need::Tool("nft")]) {
        return;
    }
    let f = Fabric::new(1);
    let a = &f.vteps[0];
    let dir = tempfile::tempdir().expect("a scratch directory");
    let file = dir.path().join("vtepd.toml");
    let toml = format!(
        "[vtep]\naddress = \"{}\"\nasn = 65000\n[[neighbor]]\naddress = \"10.0.0.2\"\nasn = 65000\n\
         [[vni]]\nvni = 100\nports = [\"p1\"]\nmtu = 1450\n",
        a.address
    );
    std::fs::write(&file, toml).expect("written");
    let check = || {
        let mut c = a.ns.command(our("vtepd"));
        let out = c.args(["check", "--host", "--config"]).arg(&file).output().expect("vtepd starts");
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.code(), text)
    };
    let quiet = || {
        a.ns.try_sh("for t in ip ip6 arp; do echo 0 > /proc/sys/net/bridge/bridge-nf-call-${t}tables; done")
    };
    let has_filter = quiet().is_ok();
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    // Somebody's bridge with everything that bites.
    a.ns.sh(
        "ip link add br100 type bridge mcast_snooping 1 && ip link set p1 master br100 && ip link set br100 up
         echo 1 > /proc/sys/net/ipv6/conf/br100/disable_ipv6; echo 1 > /proc/sys/net/ipv4/conf/u0/rp_filter
         ip link set u0 mtu 1400",
    );
    if has_filter {
        a.ns.sh("for t in ip ip6 arp; do echo 1 > /proc/sys/net/bridge/bridge-nf-call-${t}tables; done
                 nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    } else {
        println!("skipped: br_netfilter, which is not loaded");
    }
    let (code, text) = check();
    assert_ne!(code, Some(0), "{text}");
    let mut wanted = vec![
        ("rp_filter", "rp_filter"),
        ("MTU", "mtu"),
        ("snooping", "mcast_snooping 0"),
        ("IPv6 is disabled", "disable_ipv6=0"),
        ("follows its ports", "ip link set br100 address"),
    ];
    if has_filter {
        wanted.push(("bridged frames", "bridge-nf-call-iptables=0"));
    }
    for (what, way_out) in wanted {
        assert!(text.contains(what) && text.contains(way_out), "{what} / {way_out} in:\n{text}");
    }
    // Checking changes nothing.
    assert_eq!(a.ns.sh("cat /proc/sys/net/ipv6/conf/br100/disable_ipv6").trim(), "1");
    assert!(a.ns.try_sh("ip link show vx100").is_err());
}
