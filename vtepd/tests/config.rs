//! The configuration file: what is read, and every error class as a person sees it.
//!
//! Snapshots live in `tests/snapshots`; `INSTA_UPDATE=always cargo test -p vtepd --test config` rewrites them.

use evpn::node::{Flooding, Targets, TellPeers};
use evpn::types::{Asn, Span};
use std::path::Path;
use vtepd::config::{self, LogFormat, Settings};
use vtepd::hypervisor::qmp::machine::ActivateAt;

fn read(text: &str) -> Result<Settings, String> {
    config::parse(Path::new("vtepd.toml"), text.to_owned()).map_err(|r| r.render(false))
}

fn errors(text: &str) -> String {
    read(text).expect_err("this configuration is wrong")
}

/// The smallest valid start of a file; four lines.
const HEAD: &str = "[vtep]\naddress = \"10.255.0.1\"\nasn = 65000\n\n";

fn with_head(text: &str) -> String {
    errors(&format!("{HEAD}{text}"))
}

#[test]
fn a_small_file_has_sensible_defaults() {
    let s = read(&format!(
        "{HEAD}[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\n\n[[vni]]\nvni = 100\nports = [\"p1\"]\n"
    ))
    .expect("valid");
    assert_eq!(s.node.router_id.to_string(), "10.255.0.1");
    assert_eq!((s.node.udp_port, s.node.bgp_port, s.node.listen), (4789, 179, None));
    assert_eq!(s.state_dir, Path::new("/var/lib/vtepd"));
    assert_eq!((s.socket.as_path(), s.metrics), (Path::new("/run/vtepd/vtepd.sock"), None));
    assert_eq!(s.node.mobility.guard_time, Span::secs(1));
    assert!(s.node.mobility.move_ips_with_mac);
    let n = &s.node.neighbors[0];
    assert_eq!((n.port, n.hold_time, n.passive, n.asn), (179, 90, false, Asn(65000).into()));
    let v = &s.node.vnis[0];
    assert_eq!(
        (v.bridge.as_str(), v.vxlan.as_str(), v.ports.as_slice()),
        ("br100", "vx100", &["p1".to_owned()][..])
    );
    assert_eq!((v.flooding, v.arp_suppression, v.mtu), (Flooding::Replicate, true, None));
    assert_eq!((v.hosts.tell_peers, s.node.arp.tell_rate), (TellPeers::Auto, 2000));
    assert_eq!((&v.import, &v.export), (&Targets::Auto, &Targets::Auto));
}

#[test]
fn ibgp_runs_between_the_vteps_own_addresses_unless_told_otherwise() {
    let neighbors = |text: &str| read(&format!("{HEAD}{text}")).expect("valid").node.neighbors;
    let own = Some("10.255.0.1".parse().expect("an address"));
    let of = |text: &str| neighbors(&format!("[[neighbor]]\n{text}\n"))[0].local_address;
    assert_eq!(of("address = \"10.255.0.2\"\nasn = 65000"), own);
    assert_eq!(of("address = \"10.0.0.2\"\nasn = 65001"), None, "eBGP runs over the link");
    assert_eq!(of("address = \"2001:db8::2\"\nasn = 65000"), None, "another family");
    let given = of("address = \"10.255.0.2\"\nasn = 65000\nlocal-address = \"10.0.0.1\"");
    assert_eq!(given, Some("10.0.0.1".parse().expect("an address")));
}

/// BFD-07, BFD-08: what is said of it, and what is not.
#[test]
fn bfd_of_a_neighbour_is_read() {
    let of = |bfd: &str| {
        let text = format!("{HEAD}[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\n{bfd}\n");
        read(&text).expect("valid").node.neighbors[0].bfd
    };
    assert_eq!((of(""), of("bfd = false")), (None, None));
    let plain = of("bfd = true").expect("on");
    assert_eq!(of("bfd = {}"), Some(plain));
    let s = plain.session;
    assert_eq!((s.desired_tx, s.required_rx, s.multiplier), (Span::millis(300), Span::millis(300), 3));
    assert_eq!((plain.multihop, plain.min_ttl), (None, 1));
    let all = "interval = \"50ms\", receive-interval = \"100ms\", multiplier = 5, multihop = true, minimum-ttl = 250";
    let full = of(&format!("bfd = {{ {all} }}")).expect("on");
    let s = full.session;
    assert_eq!((s.desired_tx, s.required_rx, s.multiplier), (Span::millis(50), Span::millis(100), 5));
    assert_eq!((full.multihop, full.min_ttl), (Some(true), 250));
    let s = of("bfd = { interval = \"50ms\" }").expect("on").session;
    assert_eq!(s.required_rx, Span::millis(50), "the same both ways unless told otherwise");
}

/// EVPN-IRB-10: its MAC is that of VRID 1 unless given.
#[test]
fn a_gateway_is_read() {
    let gateway = |text: &str| {
        let s = read(&format!("{HEAD}[[vni]]\nvni = 100\ngateway = {{ {text} }}\n")).expect("valid");
        let g = s.node.vnis[0].hosts.gateway.clone().expect("a gateway");
        (g.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), g.mac.to_string())
    };
    let addresses = "addresses = [\"10.1.0.1/24\", \"2001:db8:1::1/64\"]";
    let both = vec!["10.1.0.1/24".to_owned(), "2001:db8:1::1/64".to_owned()];
    assert_eq!(gateway(addresses), (both.clone(), "00:00:5e:00:01:01".to_owned()));
    let mac = "02:00:00:00:00:fe";
    assert_eq!(gateway(&format!("{addresses}, mac = \"{mac}\"")), (both, mac.to_owned()));
    let ra = |text: &str| {
        let s =
            read(&format!("{HEAD}[[vni]]\nvni = 100\ngateway = {{ {addresses}{text} }}\n")).expect("valid");
        s.node.vnis[0].hosts.gateway.as_ref().is_some_and(|g| g.ra)
    };
    assert_eq!((ra(""), ra(", ra = false"), ra(", ra = true")), (false, false, true));
}

/// PIT-19: nobody floods by hand where nothing is flooded.
#[test]
fn unknown_targets_follow_the_flooding_unless_they_are_set() {
    use evpn::node::Unknown;
    let unknown = |text: &str| {
        let s = read(&format!("{HEAD}[[vni]]\nvni = 100\n{text}\n")).expect("valid");
        s.node.vnis[0].hosts.unknown
    };
    assert_eq!(unknown(""), Unknown::Replicate);
    assert_eq!(unknown("unknown-targets = \"unicast\""), Unknown::Unicast);
    assert_eq!(unknown("flooding = \"none\""), Unknown::Unicast);
    assert_eq!(unknown("flooding = \"none\"\nunknown-targets = \"replicate\""), Unknown::Replicate);
}

#[test]
fn every_key_is_read() {
    let s = read(
        r#"
[vtep]
address = "2001:db8::1"
asn = 4200000000
router-id = "192.0.2.1"
udp-port = 8472
mtu = 1450
state-dir = "/tmp/s"

[bgp]
port = 1179
listen = "2001:db8::1"
restart-time = "2m"
cluster-id = "192.0.2.77"
selection-deferral = 7
graceful-restart = { mode = "helper", stale-time = "90s", long-lived-time = "1h" }

[mobility]
guard-time = "1500ms"
move-ips-with-mac = false
hold-time = "2500ms"
hold-frames = 100
hold-octets = 65536
duplicates = { mode = "rfc7432", action = "block", moves = 7, window = "3m", recovery = "9m" }

[[neighbor]]
address = "2001:db8::2"
asn = 65001
port = 1180
local-address = "2001:db8::1"
passive = true
hold-time = 9
send-hold-time = 30
max-prefixes = { limit = 100, warning = 50, action = "warn", restart = "5m" }
bfd = { interval = "50ms", receive-interval = "60ms", multiplier = 4, multihop = true, minimum-ttl = 250 }
connect-retry = 5
multihop = 3
graceful-restart = { mode = "on", hard-reset = true }
description = "spine 1"

[[neighbor]]
address = "2001:db8::3"
asn = 4200000000
route-reflector-client = true
rt-constraint = true

[[vni]]
vni = 0xff
ports = ["tap0", "tap1"]
bridge = "tenant"
vxlan = "tunnel"
flooding = "none"
arp-suppression = false
mtu = 9000
route-targets = { import = ["65000:100", "10.0.0.1:7"], export = "auto" }
sticky = { "52:54:00:00:00:01" = "tap0", "52-54-00-00-00-02" = "tap1" }
allowed = { tap1 = ["10.1.0.5", "2001:db8:1::/64"] }
gateway-macs = ["00:00:5e:00:01:01"]
floating = ["02:00:00:00:00:00/24", "192.0.2.10", "2001:db8:1::/64"]
mobility-domain = ["2001:db8::/32", "10.255.1.0/24"]
moves-per-minute = 100
owners-per-hour = 4
mac-limit = 1000
port-mac-limit = 0
flood-guard = 200
unguarded-ports = ["tap1", "uplink0"]
tell-peers = "always"
tagged = "transparent"
dhcp-servers = ["10.1.0.2", "2001:db8:1::2"]
static-hosts = { "10.1.0.7" = "52:54:00:00:00:07", "2001:db8:1::7" = ["52:54:00:00:00:07", "52-54-00-00-00-08"] }
unknown-options = "unicast"
unknown-targets = "drop"
unknown-unicast = false
storm-limits = { arp = 100, nd = 200, broadcast = 300, multicast = 400 }

[arp]
tell-rate = 500
confirm-time = "90s"
probe-rate = 7
addresses-per-mac = 9
claim-time = "25ms"
conflict = "first"
conflict-time = "20m"

[[qmp]]
socket = "/run/qemu/vm-*.sock"
activate-at = "stop"
ports = { net0 = "tap0", "52:54:00:AA:00:01" = "tap1" }
max-sockets = 10

[libvirt]
events = true
activate-at = "stop"
uri = "qemu+unix:///system"
virsh = "/opt/bin/virsh"

[api]
socket = "/tmp/a.sock"

[metrics]
listen = "[::1]:9475"

[log]
level = "debug"
format = "json"
"#,
    )
    .expect("valid");
    insta::assert_json_snapshot!(s.node);
    assert_eq!((s.log.level, s.log.format), (tracing::Level::DEBUG, LogFormat::Json));
    assert_eq!(s.state_dir, Path::new("/tmp/s"));
    let libvirt = s.hypervisor.libvirt.as_ref().expect("given");
    assert_eq!(
        (libvirt.uri.as_str(), libvirt.virsh.as_path(), libvirt.at_stop, s.hypervisor.libvirt_at_stop),
        ("qemu+unix:///system", Path::new("/opt/bin/virsh"), true, true)
    );
    let qmp = &s.hypervisor.qmp[0];
    assert_eq!((qmp.socket.as_path(), qmp.max_sockets), (Path::new("/run/qemu/vm-*.sock"), 10));
    assert_eq!(qmp.options.activate_at, ActivateAt::Stop);
    let ports: Vec<_> = qmp.options.ports.iter().map(|(n, p)| (n.as_str(), p.as_str())).collect();
    assert_eq!(ports, [("52:54:00:aa:00:01", "tap1"), ("net0", "tap0")]);
    assert_eq!(s.socket, Path::new("/tmp/a.sock"));
    assert_eq!(s.metrics, Some("[::1]:9475".parse().expect("an address")));
    assert_eq!((s.node.vnis[0].hosts.tell_peers, s.node.arp.tell_rate), (TellPeers::Always, 500));
    let arp = &s.node.arp;
    assert_eq!((arp.confirm_time, arp.probe_rate, arp.addresses_per_mac), (Span::secs(90), 7, 9));
    assert_eq!((arp.claim_time, arp.conflict_time), (Span::millis(25), Span::secs(1200)));
}

#[test]
fn duplicates_are_frozen_by_default_only_when_moves_are_counted() {
    use evpn::node::DuplicateAction::{Block, Freeze, Report};
    let action = |text: &str| {
        let s = read(&format!("{HEAD}[mobility]\nduplicates = {{ {text} }}\n")).expect("valid");
        s.node.mobility.duplicates.action
    };
    assert_eq!(action("mode = \"oscillation\""), Report);
    assert_eq!(action("mode = \"rfc7432\""), Freeze);
    assert_eq!(action("mode = \"rfc7432\", action = \"report\""), Report);
    assert_eq!(action("action = \"block\""), Block);
}

#[test]
fn limits_and_domains_of_a_vni_are_checked() {
    let vni = |text: &str| with_head(&format!("[[vni]]\nvni = 100\n{text}\n"));
    insta::assert_snapshot!("floating_nonsense", vni("floating = [\"vrrp\", \"00:00:5e:00:01:00/49\"]"));
    insta::assert_snapshot!("domain_without_ourselves", vni("mobility-domain = [\"10.254.0.0/16\"]"));
    insta::assert_snapshot!("domain_of_names", vni("mobility-domain = [\"site-1\"]"));
    let hold = |text: &str| with_head(&format!("[mobility]\n{text}\n"));
    insta::assert_snapshot!("hold_time_too_long", hold("hold-time = \"2m\""));
    insta::assert_snapshot!("hold_frames_none", hold("hold-frames = 0\nhold-octets = 1000"));
    insta::assert_snapshot!("owners_per_hour_too_many", vni("owners-per-hour = 65"));
    insta::assert_snapshot!("flood_guard_negative", vni("flood-guard = -1"));
    insta::assert_snapshot!("unguarded_port_impossible", vni("unguarded-ports = [\"tap0\", \"a:b\"]"));
    insta::assert_snapshot!("tell_peers_that_is_none", vni("tell-peers = true"));
    insta::assert_snapshot!(
        "tagged_beside_suppression",
        vni("arp-suppression = true\ntagged = \"transparent\"")
    );
    insta::assert_snapshot!(
        "dhcp_servers_with_faults",
        vni("dhcp-servers = [\"10.1.0.0/24\", \"224.0.0.1\", 5]")
    );
    insta::assert_snapshot!("unknown_options_misspelt", vni("unknown-options = \"forward\""));
    insta::assert_snapshot!("unknown_targets_misspelt", vni("unknown-targets = \"unicst\""));
    insta::assert_snapshot!("storm_limits_with_faults", vni("storm-limits = { arp = -1, multicst = 5 }"));
    insta::assert_snapshot!("tell_peers_misspelt", vni("tell-peers = \"sometimes\""));
    insta::assert_snapshot!("probe_rate_zero", with_head("[arp]\nprobe-rate = 0\n"));
    insta::assert_snapshot!("addresses_per_mac_too_many", with_head("[arp]\naddresses-per-mac = 4097\n"));
    insta::assert_snapshot!("confirm_time_without_sense", with_head("[arp]\nconfirm-time = \"soon\"\n"));
    insta::assert_snapshot!("claim_time_too_long", with_head("[arp]\nclaim-time = \"2s\"\n"));
    insta::assert_snapshot!("conflict_unknown", with_head("[arp]\nconflict = \"both\"\n"));
    insta::assert_snapshot!("tell_rate_zero", with_head("[arp]\ntell-rate = 0\n"));
}

/// The promise of the whole module: nothing is found only after something else was repaired.
#[test]
fn every_error_of_a_file_comes_out_at_once_in_the_order_of_its_lines() {
    let text = r#"[vtep]
adress = "10.255.0.1"
address = "10.255.0.1"
asn = 65000
udp-port = 70000

[[neighbor]]
address = "10.255.0.1"
asn = 65000

[[neighbor]]
address = "10.255.0.2"
asn = "65000"
hold-time = 2
passive = "yes"

[[neighbor]]
address = "10.255.0.2"

[[vni]]
vni = 0
ports = ["p1", "a-name-of-sixteen"]

[[vni]]
vni = 16777216
flooding = "replicat"

[[vni]]
vni = 100
ports = ["p1"]

[[vni]]
vni = 100
route-targets = { import = ["65000"], export = [] }

[log]
level = "loud"
"#;
    let report = config::parse(Path::new("vtepd.toml"), text.to_owned()).expect_err("wrong");
    let list: Vec<String> = report
        .problems
        .iter()
        .map(|p| {
            let (line, column) = report.line_column(p);
            format!("{}:{line}:{column}: {}", report.file.display(), p.title())
        })
        .collect();
    insta::assert_snapshot!("all_at_once_list", list.join("\n"));
    insta::assert_snapshot!("all_at_once_rendered", report.render(false));
}

macro_rules! error_snapshots {
    ($($name:ident => $text:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!($text);
        }
    )*};
}

error_snapshots! {
    an_empty_file_names_what_is_required => errors("");
    syntax_errors_are_all_listed => errors("[vtep]\naddress = 10.255.0.1\nasn = = 65000\nmtu = 1450\n[log\nlevel = \"info\"\n");
    a_duplicate_key_is_an_error => with_head("[log]\nlevel = \"info\"\nlevel = \"warn\"\n");
    an_unknown_section_is_an_error => with_head("[nieghbor]\naddress = \"10.0.0.2\"\n");
    an_unknown_key_without_a_near_one_lists_the_known => with_head("[api]\npassword = \"x\"\n");
    one_bracket_instead_of_two => with_head("[vni]\nvni = 100\n");
    vni_zero => with_head("[[vni]]\nvni = 0\n");
    vni_too_large => with_head("[[vni]]\nvni = 16_777_216\n");
    vni_negative => with_head("[[vni]]\nvni = -1\n");
    vni_of_the_wrong_type => with_head("[[vni]]\nvni = \"100\"\n");
    vni_missing => with_head("[[vni]]\nports = [\"p1\"]\n");
    vni_twice => with_head("[[vni]]\nvni = 100\n\n[[vni]]\nvni = 100\n");
    port_in_two_vnis => with_head("[[vni]]\nvni = 100\nports = [\"p1\"]\n\n[[vni]]\nvni = 200\nports = [\"p2\", \"p1\"]\n");
    port_twice_in_one_vni => with_head("[[vni]]\nvni = 100\nports = [\"p1\", \"p1\"]\n");
    bridge_of_two_vnis => with_head("[[vni]]\nvni = 100\nbridge = \"br\"\n\n[[vni]]\nvni = 200\nbridge = \"br\"\n");
    device_name_too_long => with_head("[[vni]]\nvni = 100\nbridge = \"bridge-of-tenant-a\"\n");
    device_name_with_a_slash => with_head("[[vni]]\nvni = 100\nports = [\"eth0/1\"]\n");
    own_address_as_neighbour => with_head("[[neighbor]]\naddress = \"10.255.0.1\"\nasn = 65000\n");
    neighbour_twice => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\n[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65001\n");
    neighbour_without_address_and_as => with_head("[[neighbor]]\npassive = true\n");
    neighbour_with_a_prefix => with_head("[[neighbor]]\naddress = \"10.255.0.2/32\"\nasn = 65000\n");
    local_address_of_the_other_family => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nlocal-address = \"2001:db8::1\"\n");
    client_of_another_as => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65001\nroute-reflector-client = true\n");
    cluster_id_zero => with_head("[bgp]\ncluster-id = \"0.0.0.0\"\n");
    hold_time_of_two_seconds => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nhold-time = 2\n");
    send_hold_time_below_the_hold_time => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nsend-hold-time = 90\n");
    max_prefixes_without_a_limit => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nmax-prefixes = { action = \"drop\" }\n");
    bfd_that_is_a_number => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nbfd = 3\n");
    bfd_too_quick => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nbfd = { interval = \"5ms\" }\n");
    bfd_without_a_multiplier => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nbfd = { multiplier = 0 }\n");
    bfd_with_a_misspelt_key => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nbfd = { intervall = \"50ms\" }\n");
    bfd_with_a_minimum_over_one_hop => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nbfd = { multihop = false, minimum-ttl = 254 }\n");
    connect_retry_without_a_unit => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\nconnect-retry = \"5\"\n");
    reserved_as => with_head("[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 23456\n");
    ipv6_vtep_without_router_id => errors("[vtep]\naddress = \"2001:db8::1\"\nasn = 65000\n");
    vtep_address_that_nobody_can_reach => errors("[vtep]\naddress = \"127.0.0.1\"\nasn = 65000\n");
    router_id_zero => errors("[vtep]\naddress = \"10.255.0.1\"\nasn = 65000\nrouter-id = \"0.0.0.0\"\n");
    auto_rfc8365_with_a_four_octet_as => errors("[vtep]\naddress = \"10.255.0.1\"\nasn = 4200000000\n\n[[vni]]\nvni = 100\nroute-targets = { export = \"auto-rfc8365\" }\n");
    route_target_malformed => with_head("[[vni]]\nvni = 100\nroute-targets = { import = [\"65000:x\", \"65000:1\", \"65000:1\"] }\n");
    route_target_without_brackets => with_head("[[vni]]\nvni = 100\nroute-targets = { import = \"65000:100\" }\n");
    route_targets_not_a_table => with_head("[[vni]]\nvni = 100\nroute-targets = [\"65000:100\"]\n");
    sticky_macs_and_gateways_with_faults => with_head("[[vni]]\nvni = 100\nsticky = { \"52:54:00:00:00:01\" = \"p1\", \"52:54:00:00:01\" = \"p1\", \"01:00:5e:00:00:01\" = \"p1\", \"52:54:00:00:00:02\" = 1 }\ngateway-macs = [\"52-54-00-00-00-01\"]\n");
    allowed_addresses_with_faults => with_head("[[vni]]\nvni = 100\nallowed = { p1 = [\"10.0.0.1\", \"10.0.0.0/33\", 5], p2 = \"10.0.0.2\", \"a/b\" = [] }\n");
    sticky_macs_not_a_table => with_head("[[vni]]\nvni = 100\nsticky = [\"52:54:00:00:00:01\"]\n");
    static_hosts_not_a_table => with_head("[[vni]]\nvni = 100\nstatic-hosts = [\"10.1.0.5\"]\n");
    static_hosts_with_faults => with_head("[[vni]]\nvni = 100\nstatic-hosts = { \"10.1.0.256\" = \"52:54:00:00:00:01\", \"224.0.0.1\" = \"52:54:00:00:00:01\", \"10.1.0.5\" = [\"52:54:00:00:01\", \"01:00:5e:00:00:01\"], \"10.1.0.6\" = [], \"10.1.0.7\" = 5, \"2001:db8::1\" = \"52:54:00:00:00:01\", \"2001:db8::0:1\" = \"52:54:00:00:00:02\" }\n");
    static_host_with_the_gateways_address => with_head("[[vni]]\nvni = 100\ngateway = { addresses = [\"10.1.0.1/24\"] }\nstatic-hosts = { \"10.1.0.1\" = \"52:54:00:00:00:01\" }\n");
    gateway_without_address => with_head("[[vni]]\nvni = 100\ngateway = { mac = \"00:00:5e:00:01:01\" }\n");
    gateway_not_a_table => with_head("[[vni]]\nvni = 100\ngateway = \"10.1.0.1/24\"\n");
    gateway_with_faults => with_head("[[vni]]\nvni = 100\nsticky = { \"00:00:5e:00:01:01\" = \"p1\" }\narp-suppression = false\ngateway = { addresses = [\"10.1.0.1\", \"10.1.0.1/33\", \"224.0.0.1/24\", \"10.255.0.1/24\", \"10.1.0.1/24\", \"10.1.0.1/16\"], mac = \"00:00:5e:00:01:01\" }\n");
    gateway_that_advertises_nothing => with_head("[[vni]]\nvni = 100\ngateway = { addresses = [\"10.1.0.1/24\"], ra = true }\n");
    gateway_with_a_group_as_mac => with_head("[[vni]]\nvni = 100\ngateway = { addresses = [\"10.1.0.1/24\"], mac = \"01:00:5e:00:01:01\" }\n");
    mtu_too_small => with_head("[[vni]]\nvni = 100\nmtu = 1000\n");
    qmp_without_socket => with_head("[[qmp]]\nactivate-at = \"resume\"\n");
    qmp_pattern_in_a_directory => with_head("[[qmp]]\nsocket = \"/run/*/qmp.sock\"\n");
    qmp_relative_socket => with_head("[[qmp]]\nsocket = \"qmp.sock\"\n");
    qmp_socket_twice => with_head("[[qmp]]\nsocket = \"/run/a\"\n[[qmp]]\nsocket = \"/run/a\"\n");
    qmp_activate_at_unknown => with_head("[[qmp]]\nsocket = \"/run/a\"\nactivate-at = \"resumed\"\n");
    qmp_port_name_too_long => with_head("[[qmp]]\nsocket = \"/run/a\"\nports = { net0 = \"a-name-that-is-too-long\" }\n");
    qmp_ports_not_a_table => with_head("[[qmp]]\nsocket = \"/run/a\"\nports = [\"tap0\"]\nmax-sockets = 0\n");
    metrics_without_a_port => with_head("[metrics]\nlisten = \"127.0.0.1\"\n");
    metrics_on_port_zero => with_head("[metrics]\nlisten = \"127.0.0.1:0\"\n");
    libvirt_activate_at_unknown => with_head("[libvirt]\nactivate-at = \"start\"\n");
    libvirt_without_a_program => with_head("[libvirt]\nevents = true\nvirsh = \"\"\nuri = \"-c\"\n");
    socket_path_too_long => with_head(&format!("[api]\nsocket = \"/{}\"\n", "x".repeat(120)));
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let report = config::load(Path::new("/nonexistent/vtepd.toml")).expect_err("absent");
    insta::assert_snapshot!(report.render(false));
}

#[test]
fn a_directory_is_not_a_configuration() {
    let report = config::load(Path::new("/")).expect_err("a directory");
    insta::assert_snapshot!(report.render(false));
}

#[test]
fn a_file_that_is_not_utf8_names_the_line() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("vtepd.toml");
    std::fs::write(&file, b"[vtep]\naddress = \"\xff\"\n").expect("written");
    let report = config::load(&file).expect_err("not UTF-8");
    assert!(report.render(false).contains("it is not UTF-8 (line 2, octet 18)"), "{report}");
}

#[test]
fn colour_is_only_added_when_asked_for() {
    let report = config::parse(Path::new("vtepd.toml"), "x = 1\n".into()).expect_err("wrong");
    assert!(!report.render(false).contains('\x1b'));
    assert!(report.render(true).contains('\x1b'));
}

#[test]
fn a_port_that_the_host_lacks_is_named_with_its_line() {
    let text = format!(
        "{HEAD}[[vni]]\nvni = 100\nports = [\"p1\", \"p2\"]\n\n[[vni]]\nvni = 200\nports = [\"p3\"]\nlate-ports = true\n"
    );
    let settings = read(&text).expect("valid");
    assert_eq!(settings.missing_ports(|_| true), None);
    let report = settings.missing_ports(|name| name == "p1").expect("p2 is missing");
    insta::assert_snapshot!(report.render(false));
}
