//! `show hosts` and `why ip` beside what is so: the kernel's neighbour rows, the bridge's ports, and the tables of real Linux
//! guests (PROXY-REPLY-01, -02, PROXY-LEARN-05).

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use vtepd_tests::fabric::{Fabric, Host, Place, Vtep, test_mac};
use vtepd_tests::frame;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{SOON, eventually, same};
use vtepd_tests::vtepd::Vtepd;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or("-").to_owned()
}

/// Address to MAC of the rows with which the kernel answers on the bridge.
fn answering(v: &Vtep) -> BTreeMap<IpAddr, String> {
    let mut all = BTreeMap::new();
    for family in ["-4", "-6"] {
        let rows = v.ns.json(&format!("ip -j {family} neigh show dev br100 nud all"));
        for r in rows.as_array().into_iter().flatten() {
            if r["state"].as_array().is_some_and(|s| s.iter().any(|x| x == "NOARP"))
                && r["lladdr"].is_string()
            {
                all.insert(ip(&text(&r["dst"])), text(&r["lladdr"]));
            }
        }
    }
    // The kernel's own groups have such rows, too.
    all.retain(|ip, _| !ip.is_multicast());
    all
}

/// Every row of `show hosts` is so, and nobody answers who is not in it.
fn shown_as_it_is(v: &Vtep, d: &Vtepd) -> Result<(), String> {
    let rows = d.show("hosts", &[]);
    let mut kernel = answering(v);
    // A bridge answers for MACs behind a port with suppression alone; a gateway's rows of local hosts are for routing.
    kernel.retain(|_, mac| mac.parse().is_ok_and(|m| matches!(v.place(100, m), Place::Vtep(_))));
    let mut by_kernel = BTreeMap::new();
    for r in &rows {
        let (a, mac) = (ip(&text(&r["ip"])), text(&r["mac"]));
        let place = v.place(100, mac.parse().map_err(|_| format!("{r}"))?);
        match r["answered_by"].as_str() {
            Some("kernel") => {
                by_kernel.insert(a, mac);
                same(place, Place::Vtep(text(&r["place"]["vtep"])))?;
            }
            Some("owner") => same(place, Place::Port(text(&r["place"]["port"])))?,
            _ => return Err(format!("{r}")),
        }
    }
    same(by_kernel, kernel)
}

/// What a guest has in its own table.
fn holds(host: &Host, a: IpAddr) -> String {
    let family = if a.is_ipv4() { "-4" } else { "-6" };
    text(&host.ns.json(&format!("ip -j {family} neigh show to {a} dev eth0"))[0]["lladdr"])
}

#[test]
fn what_is_shown_is_what_the_kernel_answers_and_guests_hold() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let of = |vtep, port, n: u8| {
        let addresses = [format!("192.168.100.{n}/24"), format!("fd00:100::{n}/64")];
        f.host(vtep, port, test_mac(n.into()), &addresses.each_ref().map(String::as_str))
    };
    let (h1, h2, h3) = (of(0, "h1", 21), of(0, "h2", 22), of(1, "h3", 23));
    let daemons = [vec!["h1", "h2"], vec!["h3"]].into_iter().enumerate().map(|(i, ports)| {
        let mut conf = f.conf(i);
        conf.vnis = vec![(100, ports.into_iter().map(str::to_owned).collect())];
        Vtepd::start(&f.vteps[i].ns, &conf)
    });
    let daemons: Vec<Vtepd> = daemons.collect();
    daemons.iter().for_each(Vtepd::converge);
    let addresses = |n: u8| [ip(&format!("192.168.100.{n}")), ip(&format!("fd00:100::{n}"))];
    // Everybody has spoken with everybody.
    for (host, others) in [(&h1, [22, 23]), (&h2, [21, 23]), (&h3, [21, 22])] {
        for a in others.into_iter().flat_map(addresses) {
            eventually(SOON, "they reach each other", || host.try_ping(&a.to_string()));
        }
    }
    for (i, d) in daemons.iter().enumerate() {
        eventually(SOON, "all six are known", || {
            let rows = d.show("hosts", &[]);
            let known = (21..=23)
                .flat_map(addresses)
                .filter(|a| rows.iter().any(|r| r["ip"] == a.to_string().as_str()));
            same(known.count(), 6)
        });
        eventually(SOON, "what is shown is so", || shown_as_it_is(&f.vteps[i], d));
    }
    // In numbers: questions for remote hosts were answered here, and before they were known, flooded.
    let status = daemons[0].status();
    let ports = status["port_hosts"].as_array().cloned().unwrap_or_default();
    let at = |port: &str, what: &str| {
        ports.iter().find(|p| p["port"] == port).and_then(|p| p[what].as_u64()).unwrap_or_default()
    };
    assert!(at("h1", "flooded") >= 1, "{ports:?}");
    h1.ns.sh("ip neigh flush dev eth0");
    eventually(SOON, "answered by the kernel", || h1.try_ping("192.168.100.23"));
    eventually(SOON, "and counted", || {
        let status = daemons[0].status();
        let ports = status["port_hosts"].as_array().cloned().unwrap_or_default();
        let h1 = ports.iter().find(|p| p["port"] == "h1").cloned().unwrap_or_default();
        if h1["answered"].as_u64() >= Some(1) { Ok(()) } else { Err(h1) }
    });
    // Filters by place.
    let here = daemons[0].show("hosts", &["--port", "h2", "--ip", "192.168.100.22"]);
    assert_eq!((here.len(), &here[0]["mac"]), (1, &h2.mac.to_string().into()), "{here:?}");
    assert!(["arp", "answer"].contains(&text(&here[0]["origin"]).as_str()), "{here:?}");
    let far = daemons[0].show("hosts", &["--vtep", &f.vteps[1].address.to_string()]);
    let macs: Vec<String> = far.iter().map(|r| text(&r["mac"])).collect();
    assert!(!macs.is_empty() && macs.iter().all(|m| *m == h3.mac.to_string()), "{far:?}");
    // Guests hold what is shown.
    let shown = |a: IpAddr| text(&daemons[0].show("hosts", &["--ip", &a.to_string()])[0]["mac"]);
    for a in addresses(23) {
        eventually(SOON, "h1 holds what is shown", || {
            // Its kernel forgets whom it has not spoken with for a while.
            h1.try_ping(&a.to_string())?;
            same((shown(a), holds(&h1, a)), (h3.mac.to_string(), h3.mac.to_string()))
        });
    }
    // The address takes another MAC at the first VTEP: the far one's kernel answers with it, and its guest has been told.
    h3.ns.sh("ip addr add 192.168.100.99/24 dev eth0");
    let a = ip("192.168.100.99");
    eventually(SOON, "h1 reaches it", || h1.try_ping("192.168.100.99"));
    h3.ns.sh("ip addr del 192.168.100.99/24 dev eth0");
    h2.ns.sh("ip addr add 192.168.100.99/32 dev eth0");
    let IpAddr::V4(v4) = a else { unreachable!("it is written so") };
    Wire::deaf(&h2.ns, "eth0").send(&frame::garp(h2.mac, v4));
    eventually(SOON, "its guest holds the new MAC", || same(holds(&h1, a), h2.mac.to_string()));
    for (i, d) in daemons.iter().enumerate() {
        eventually(SOON, "what is shown is so", || shown_as_it_is(&f.vteps[i], d));
    }
    assert_eq!(shown(a), h2.mac.to_string());
    let why = daemons[0].why("ip", "192.168.100.99").expect("bound");
    assert_eq!(why["host_side"]["told"]["mac"], h2.mac.to_string().as_str(), "{why:#}");
    let frames = ["broadcasts", "unicasts"].map(|k| why["host_side"]["told"][k].as_u64().unwrap_or(0));
    assert!(frames.iter().sum::<u64>() >= 1, "{why:#}");
    assert_eq!(why["binding"]["answered_by"], "owner", "{why:#}");
}

/// The kernel has rows of the hosts at home, too, and answers with none of them.
#[test]
fn behind_a_gateway_local_hosts_answer_for_themselves() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let of = |vtep, port, n: u8| f.host(vtep, port, test_mac(n.into()), &[&format!("192.168.100.{n}/24")]);
    let (h1, _h2) = (of(0, "h1", 21), of(1, "h2", 22));
    let daemons = ["h1", "h2"].into_iter().enumerate().map(|(i, port)| {
        let mut conf = f.conf(i);
        conf.vnis = vec![(100, vec![port.to_owned()])];
        conf.vni_extra = "gateway = { addresses = [\"192.168.100.1/24\"] }\n".into();
        Vtepd::start(&f.vteps[i].ns, &conf)
    });
    let daemons: Vec<Vtepd> = daemons.collect();
    daemons.iter().for_each(Vtepd::converge);
    for a in ["192.168.100.1", "192.168.100.22"] {
        eventually(SOON, "it is reached", || h1.try_ping(a));
    }
    let both = [ip("192.168.100.21"), ip("192.168.100.22")];
    for (v, d) in f.vteps.iter().zip(&daemons) {
        eventually(SOON, "the kernel routes to both", || {
            let rows = answering(v);
            same(both.map(|a| rows.contains_key(&a)), [true; 2])
        });
        eventually(SOON, "what is shown is so", || shown_as_it_is(v, d));
    }
    let why = daemons[0].why("ip", "192.168.100.21").expect("bound");
    assert_eq!(why["binding"]["answered_by"], "owner", "{why:#}");
}
