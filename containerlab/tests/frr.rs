//! A real FRR in a namespace.

use std::time::{Duration, Instant};
use vtep_lab::frr::FrrNode;

mod common;

#[test]
fn an_frr_starts_answers_and_leaves_nothing_behind() {
    if !common::ready(&["root", "frr"]) {
        return;
    }
    let ns = common::Namespace::new("frr");
    let dir = tempfile::tempdir().unwrap();
    let config = "hostname a\nrouter bgp 65000\n bgp router-id 10.255.0.1\n no bgp default ipv4-unicast\n \
                  neighbor 10.255.0.2 remote-as 65000\n address-family l2vpn evpn\n  neighbor 10.255.0.2 activate\n  \
                  advertise-all-vni\n exit-address-family\n";
    let mut node = FrrNode::start(&ns.name, &dir.path().join("frr"), config).unwrap();
    let summary = node.vtysh_json("show bgp l2vpn evpn summary json").unwrap();
    assert_eq!(summary["peers"]["10.255.0.2"]["remoteAs"], 65000, "{summary:#}");
    let processes = node.processes().to_vec();
    assert_eq!(processes.len(), 2);
    node.kill_bgpd();
    node.restart_bgpd().unwrap();
    let processes = [processes, node.processes().to_vec()].concat();
    drop(node);
    let deadline = Instant::now() + Duration::from_secs(5);
    while processes.iter().any(vtep_lab::process::Process::alive) {
        assert!(Instant::now() < deadline, "still there: {processes:?}");
    }
    assert_eq!(vtep_lab::process::in_namespace(&ns.name), []);
}
