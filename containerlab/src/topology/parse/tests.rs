use super::*;

fn faults(text: &str) -> String {
    match parse(Path::new("lab.clab.yml"), text) {
        Ok(_) => "none".to_owned(),
        Err(f) => f.to_string(),
    }
}

#[test]
fn properties_come_from_defaults_kind_group_and_node_in_this_order() {
    let t = parse(
        Path::new("lab.clab.yml"),
        r#"
name: inherit
mgmt: {network: x}
topology:
  defaults:
    env: {A: "1", B: "1", C: "1", D: "1"}
    exec: ["echo defaults"]
  kinds:
    linux:
      image: kind:latest
      env: {B: "2", C: "2", D: "2"}
  groups:
    vtep:
      kind: linux
      cmd: vtepd run --config "/etc/my vtepd.toml"
      env: {C: "3", D: "3"}
      exec: ["echo group"]
  nodes:
    a:
      group: vtep
      env: {D: "4"}
      exec: ["echo 'own words'"]
      sysctls: {net.ipv4.ip_forward: 1}
    br: {kind: bridge}
  links:
    - endpoints: ["a:eth1", "br:p1"]
    - endpoints: ["a:eth2", "br:p2"]
      mtu: 9000
"#,
    )
    .unwrap();
    let a = t.node("a").unwrap();
    assert_eq!(a.env.values().collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    assert_eq!(a.exec, [vec!["echo", "defaults"], vec!["echo", "group"], vec!["echo", "own words"]]);
    assert_eq!(a.cmd.as_deref().unwrap(), ["vtepd", "run", "--config", "/etc/my vtepd.toml"]);
    assert_eq!(a.image.as_deref(), Some("kind:latest"));
    assert_eq!(a.sysctls["net.ipv4.ip_forward"], "1");
    assert_eq!(t.node("br").unwrap().kind, Kind::Bridge);
    assert_eq!(t.links.iter().map(|l| l.mtu).collect::<Vec<_>>(), [DEFAULT_MTU, 9000]);
}

#[test]
fn a_vm_knows_its_plug_its_sockets_and_its_home() {
    let t = parse(
        Path::new("lab.clab.yml"),
        r#"
name: vm
topology:
  nodes:
    v1: {kind: linux}
    v2: {kind: linux}
    board: {kind: linux, labels: {vtep-lab.role: switchboard}}
    vm: {kind: linux, labels: {vtep-lab.at: v2}}
  links:
    - endpoints: ["vm:eth1", "board:vm"]
    - endpoints: ["board:vm-v1", "v1:p1"]
    - endpoints: ["v2:p1", "board:vm-v2"]
"#,
    )
    .unwrap();
    let vm = &t.vms["vm"];
    assert_eq!((vm.interface.as_str(), vm.plug.as_str(), vm.home.as_str()), ("eth1", "vm", "v2"));
    assert_eq!(vm.sockets.iter().map(|s| s.port.to_string()).collect::<Vec<_>>(), ["v1:p1", "v2:p1"]);
    assert_eq!(vm.socket_at("v2").unwrap().socket, "vm-v2");
}

#[test]
fn every_fault_is_told_at_once_with_line_and_column() {
    let text = r#"name: bad name
topology:
  nodes:
    a:
      kind: linux
      ports: ["80:80"]
      colour: red
    b: {kind: srl}
    c:
      kind: linux
      exec:
        - sh -c 'oops
        - sleep 5 &
      binds:
        - /nowhere/at/all:/etc/x
        - /etc
  links:
    - endpoints: ["a:eth1", "d:eth1"]
    - endpoints: ["a:eth0", "c:eth1"]
    - endpoints: ["a:eth2", "c:eth2"]
    - endpoints: ["a:eth2", "c:eth3"]
      mtu: 10
    - endpoints: ["a:eth4"]
"#;
    assert_eq!(
        faults(text),
        "\
lab.clab.yml:1:7: `name`: use letters, digits, `-` and `_` only
lab.clab.yml:6:7: `ports` is not supported in network namespaces; remove it or use containerlab
lab.clab.yml:7:7: unknown key `colour` in node `a`; known here: kind, group, cmd, exec, binds, env, sysctls, labels
lab.clab.yml:8:9: kind `srl` of node `b` needs containers; namespaces can be `linux` or `bridge`
lab.clab.yml:12:11: a quote without its end in `sh -c 'oops`
lab.clab.yml:13:11: no shell runs this, so `&` has no meaning; use `cmd` for what keeps running
lab.clab.yml:15:11: bind source /nowhere/at/all does not exist
lab.clab.yml:16:11: bind `/etc`: write `source:target` or `source:target:ro`
lab.clab.yml:18:29: endpoint `d:eth1`: there is no node `d`
lab.clab.yml:19:19: `eth0` is containerlab's management interface; links begin at `eth1`
lab.clab.yml:21:7: `a:eth2` is used by two links
lab.clab.yml:22:7: mtu `10` is not a number from 68 to 65535
lab.clab.yml:23:7: a link has two endpoints, this has 1"
    );
}

#[test]
fn what_is_not_yaml_is_told_with_its_place() {
    assert_eq!(faults("- a\n"), "lab.clab.yml:1:1: a topology file is a mapping with `name` and `topology`");
    assert_eq!(faults("name: a\nname: b\n"), "lab.clab.yml:2:1: `name` is set twice; first on line 1");
    assert!(faults("name: \"a\n").starts_with("lab.clab.yml:1:7: not YAML: "), "{}", faults("name: \"a\n"));
    assert_eq!(faults("name: a\n"), "lab.clab.yml:1:1: `topology` is missing or empty");
    assert_eq!(
        faults("name: a\ntopology:\n  nodes:\n    x: &y {kind: linux}\n"),
        "lab.clab.yml:4:11: YAML anchors are not supported"
    );
}

#[test]
fn a_vm_without_a_place_is_refused() {
    let text = r#"name: vm
topology:
  nodes:
    v1: {kind: linux}
    board: {kind: linux, labels: {vtep-lab.role: switchboard}}
    vm: {kind: linux, labels: {vtep-lab.at: v1}}
  links:
    - endpoints: ["vm:eth1", "board:vm"]
"#;
    assert_eq!(
        faults(text),
        "lab.clab.yml:6:5: VM `vm` starts at `v1`, but no link joins `board:vm-…` with it"
    );
}

#[test]
fn words_are_split_as_a_shell_would() {
    assert_eq!(split_words(r#"  a "b c" d\ e 'f "g"' "" "#).unwrap(), ["a", "b c", "d e", "f \"g\"", ""]);
    assert!(split_words("a 'b").is_err());
}
