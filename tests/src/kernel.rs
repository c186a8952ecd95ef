//! Features of the running kernel, found out by trying them in a namespace.

use crate::ns::Netns;

/// Features that can be asked for, with the command that works only where they are there.
pub const FEATURES: [(&str, &str); 5] = [
    ("netem", "ip link set lo up && tc qdisc add dev lo root netem delay 1ms"),
    (
        "vlan-filtering",
        "ip link add b0 type bridge vlan_filtering 1 && ip link add v0 type veth peer name v1 && ip link set v0 master b0 && bridge vlan add dev v0 vid 5",
    ),
    ("vlan", "ip link add v0 type veth peer name v1 && ip link add link v0 name v0.5 type vlan id 5"),
    ("vrf", "ip link add r0 type vrf table 10"),
    ("dummy", "ip link add d0 type dummy"),
];

/// Whether the kernel has a feature.
///
/// # Panics
/// When the name is not in [`FEATURES`].
pub fn has(feature: &str) -> bool {
    let (_, probe) = FEATURES.iter().find(|(f, _)| *f == feature).expect("a feature of the list");
    Netns::new("probe").try_sh(probe).is_ok()
}

/// Features that `tests/known-absent.toml` lists as missing on the CI machine.
pub fn known_absent() -> Vec<String> {
    let text =
        std::fs::read_to_string(crate::tree::root().join("tests/known-absent.toml")).unwrap_or_default();
    // Lines of the form `name = "why"`.
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once('=').map(|(k, _)| k.trim().to_owned()))
        .filter(|k| !k.is_empty())
        .collect()
}
