//! Real Linux guests that do not speak first, on the real kernel: kept as long as they answer, through the bridge's ageing;
//! found by their lease; left in peace while they check their address (PIT-15, PIT-16, PROXY-LEARN-02, PROXY-MAINT-01).

use std::net::IpAddr;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Host, Place, test_mac};
use vtepd_tests::need::{Need, met, program};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{SOON, eventually, throughout};
use vtepd_tests::proc::Proc;
use vtepd_tests::vtepd::Vtepd;

/// A guest `h1`, and perhaps `h2`, at the first of two VTEPs.
fn pair(f: &Fabric, ports: &[&str], confirm: &str) -> [Vtepd; 2] {
    let mut conf = f.conf(0);
    conf.vnis = vec![(100, ports.iter().map(|p| (*p).to_owned()).collect())];
    conf.sections = format!("[arp]\nconfirm-time = \"{confirm}\"");
    let daemons = [Vtepd::start(&f.vteps[0].ns, &conf), f.start_vtepd(1)];
    for d in &daemons {
        d.converge();
    }
    daemons
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The far VTEP answers for the address with the guest's MAC.
fn answered_for(f: &Fabric, host: &Host, a: IpAddr) -> Result<(), String> {
    let row = f.vteps[1].neigh_row(100, a);
    if row["lladdr"] == host.mac.to_string().as_str() { Ok(()) } else { Err(format!("{a}: {row}")) }
}

fn counter(d: &Vtepd, name: &str) -> u64 {
    d.status()["counters"][name].as_u64().unwrap_or(0)
}

/// Asked over and over, it is bound over and over: bindings and the bridge's row outlive ageing. When it answers no more, both
/// families are gone in time.
#[test]
fn a_silent_linux_guest_is_kept_through_ageing_and_given_up_when_it_is_dead() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let host = f.host(0, "h1", test_mac(0x61), &["192.168.100.61/24", "fd00:100::61/64"]);
    let daemons = pair(&f, &["h1"], "4s");
    let a = &f.vteps[0];
    // In hundredths of a second.
    a.ns.sh("ip link set br100 type bridge ageing_time 800");
    // Whoever looks for somebody has said who he is: by ARP itself, by ND as a sign of life only (PROXY-LEARN-02).
    let _ = host.try_ping("192.168.100.250");
    let _ = host.try_ping("fd00:100::250");
    let addresses = [ip("192.168.100.61"), ip("fd00:100::61")];
    for at in addresses {
        eventually(SOON, "it is bound", || answered_for(&f, &host, at));
    }
    throughout(
        Duration::from_secs(26),
        "it stays bound through six questions and three times ageing",
        || {
            addresses.iter().try_for_each(|at| answered_for(&f, &host, *at))?;
            a.sends_to(100, host.mac, &Place::port("h1")).map_err(|p| format!("{p:?}"))
        },
    );
    let asked = counter(&daemons[0], "confirmations_asked");
    assert!((8..=60).contains(&asked), "{asked} questions");
    assert_eq!(counter(&daemons[0], "bindings_unanswered"), 0);
    // Its link is up, and nobody is there.
    host.ns.sh("ip addr flush dev eth0");
    for at in addresses {
        eventually(Duration::from_secs(15), "it is given up", || match answered_for(&f, &host, at) {
            Ok(()) => Err("still answered for"),
            Err(_) => Ok(()),
        });
    }
    assert!(counter(&daemons[0], "bindings_unanswered") >= 2);
}

/// A guest that never speaks first is bound again after a restart, because it is asked; also where the bridge has dropped its
/// row in between, and after `kill -9`.
#[test]
fn a_silent_linux_guest_is_found_again_after_a_restart_of_the_daemon() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let host = f.host(0, "h1", test_mac(0x66), &["192.168.100.66/24", "fd00:100::66/64"]);
    let [mut daemon, _far] = pair(&f, &["h1"], "60s");
    let mut conf = f.conf(0);
    conf.vnis = vec![(100, vec!["h1".into()])];
    let a = &f.vteps[0];
    let _ = host.try_ping("192.168.100.250");
    let _ = host.try_ping("fd00:100::250");
    let addresses = [ip("192.168.100.66"), ip("fd00:100::66")];
    for at in addresses {
        eventually(SOON, "it is bound", || answered_for(&f, &host, at));
    }
    for killed in [false, true] {
        let dir = if killed { daemon.kill() } else { daemon.stop() };
        throughout(Duration::from_secs(1), "the far VTEP keeps it (BGP-GR-09)", || {
            addresses.iter().try_for_each(|at| answered_for(&f, &host, *at))
        });
        if killed {
            // Aged out, as after a long stop; the guest is silent.
            let _ = a.ns.try_sh(&format!("bridge fdb del {} dev h1 master", host.mac));
        }
        daemon = Vtepd::start_again(&a.ns, &conf, dir);
        eventually(Duration::from_secs(15), "it is bound again, by its answers", || {
            // End-of-RIB does not take it away before (BGP-GR-07).
            addresses.iter().try_for_each(|at| answered_for(&f, &host, *at)).expect("all the time");
            let rows = daemon.show("hosts", &["--mac", &host.mac.to_string()]);
            let answered = rows.iter().filter(|r| r["origin"] == "answer").count();
            if answered >= 2 { Ok(()) } else { Err(rows) }
        });
        assert!(counter(&daemon, "restored_hosts_asked") >= 2, "{}", daemon.status());
    }
}

/// PIT-15: the probe MAC is the bridge's own in the kernel, comes back when somebody deletes it, and is sticky elsewhere.
#[test]
fn the_source_of_probes_is_the_bridges_own_and_repaired() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let _daemons = [f.start_vtepd(0), f.start_vtepd(1)].map(|d| {
        d.converge();
        d
    });
    let vni = evpn::types::Vni::new(100).expect("valid");
    let mac = evpn::node::probe_mac(f.vteps[0].address, vni);
    let own = || {
        let row = f.vteps[0].bridge_row(100, mac);
        if row["ifname"] == "br100" && row["state"] == "permanent" { Ok(()) } else { Err(row) }
    };
    eventually(SOON, "the row is there", own);
    eventually(SOON, "and sticky elsewhere", || {
        let row = f.vteps[1].bridge_row(100, mac);
        let sticky = row["flags"].as_array().is_some_and(|l| l.iter().any(|x| x == "sticky"));
        if sticky && f.vteps[1].place(100, mac) == Place::vtep(&f.vteps[0]) { Ok(()) } else { Err(row) }
    });
    f.vteps[0].ns.sh(&format!("bridge fdb del {mac} dev br100 self"));
    eventually(SOON, "the row is back", own);
}

/// PIT-16: whoever checks its address is not asked without a sender, however due it is, and keeps what it has.
#[test]
fn a_guest_in_its_duplicate_check_is_not_disturbed_and_keeps_its_address() {
    if !met(&[Need::Root, Need::Package { program: "arping", package: "iputils-arping" }]) {
        return;
    }
    let f = Fabric::new(2);
    let host = f.host(0, "h1", test_mac(0x62), &["192.168.100.62/24"]);
    let _daemons = pair(&f, &["h1"], "2s");
    let wire = Wire::open(&host.ns, "eth0");
    host.ns.sh("arping -q -U -c 1 -I eth0 192.168.100.62");
    let at = ip("192.168.100.62");
    eventually(SOON, "it is bound", || answered_for(&f, &host, at));
    wire.find(SOON, |x| is_probe(x).then_some(())).expect("it is asked, as any host");
    // RFC 5227 §2.1.1: a probe each second, for five times the time after which it would be asked.
    host.ns.sh("arping -q -D -c 1 -w 1 -I eth0 192.168.100.62");
    wire.drain();
    for _ in 0..10 {
        assert!(host.ns.try_sh("arping -q -D -c 1 -w 1 -I eth0 192.168.100.62").is_ok(), "a duplicate?");
        answered_for(&f, &host, at).expect("it keeps its address");
    }
    let asked = std::iter::from_fn(|| wire.poll()).filter(|(_, x)| is_probe(x)).count();
    assert_eq!(asked, 0, "asked without a sender while it checks");
    wire.find(Duration::from_secs(15), |x| is_probe(x).then_some(())).expect("asked when it is over");
    answered_for(&f, &host, at).expect("and it is there");
}

/// An ARP request to one host without a sender's address.
fn is_probe(f: &[u8]) -> bool {
    f.len() >= 42 && f[0] & 1 == 0 && f[12..14] == [8, 6] && f[20..22] == [0, 1] && f[28..32] == [0; 4]
}

/// A client that says nothing with its new address is found by its lease; the server sees to the lease on its own port.
#[test]
fn a_dhcp_client_is_bound_by_its_lease() {
    let dnsmasq = Need::Package { program: "dnsmasq", package: "dnsmasq-base" };
    let dhclient = Need::Package { program: "dhclient", package: "isc-dhcp-client" };
    if !met(&[Need::Root, dnsmasq, dhclient]) {
        return;
    }
    let f = Fabric::new(2);
    let server = f.host(0, "h1", test_mac(0x63), &["192.168.100.63/24"]);
    let client = f.host(0, "h2", test_mac(0x64), &[]);
    let daemons = pair(&f, &["h1", "h2"], "60s");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let args = [
        "--no-daemon".to_owned(),
        "--conf-file=/dev/null".into(),
        "--port=0".into(),
        "--interface=eth0".into(),
        "--user=root".into(),
        "--no-ping".into(),
        "--dhcp-range=192.168.100.100,192.168.100.100,1h".into(),
        format!("--dhcp-leasefile={}", path("leases")),
        format!("--pid-file={}", path("dnsmasq.pid")),
    ];
    let _dnsmasq = Proc::start(&server.ns, &program("dnsmasq").expect("met"), &args, &file("dnsmasq.log"));
    // Debian's own script would change the machine's resolver.
    let script =
        "#!/bin/sh\n[ \"$reason\" = BOUND ] && ip addr add $new_ip_address/24 dev $interface\nexit 0\n";
    std::fs::write(file("script"), script).expect("writable");
    std::fs::set_permissions(file("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("ours");
    let args =
        ["-d", "-4", "-sf", &path("script"), "-lf", &path("client"), "-pf", &path("dhclient.pid"), "eth0"]
            .map(str::to_owned);
    let dhclient = Proc::start(&client.ns, &program("dhclient").expect("met"), &args, &file("dhclient.log"));
    let at = ip("192.168.100.100");
    eventually(Duration::from_secs(40), "the client is bound", || {
        answered_for(&f, &client, at).map_err(|e| format!("{e}\n{}", dhclient.log()))
    });
    assert!(counter(&daemons[0], "signs_of_life") >= 1);
}
