//! What the documents say about the configuration is true.

use std::path::{Path, PathBuf};
use vtepd::config;

fn read(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The TOML blocks of a document, each with the line it begins on.
fn toml_blocks(text: &str) -> Vec<String> {
    let after = text.split("```toml\n").skip(1);
    after.filter_map(|t| t.split_once("```").map(|(block, _)| block.to_owned())).collect()
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    for name in ["docs/configuration.md", "README.md"] {
        let blocks = toml_blocks(&read(name));
        assert!(!blocks.is_empty(), "{name} shows no configuration");
        for block in blocks {
            if let Err(report) = config::parse(Path::new(name), block) {
                panic!("{report}");
            }
        }
    }
}

#[test]
fn the_reference_shows_every_key_with_its_default() {
    let text = toml_blocks(&read("docs/configuration.md")).remove(0);
    // A mistyped key lists all that are known in its section.
    for section in [
        "vtep",
        "bgp",
        "mobility",
        "arp",
        "neighbor",
        "neighbor-group.spines",
        "neighbor-range",
        "vni",
        "qmp",
        "libvirt",
        "api",
        "metrics",
        "log",
    ] {
        let list = matches!(section, "neighbor" | "neighbor-range" | "vni" | "qmp");
        let head = if list { format!("[[{section}]]") } else { format!("[{section}]") };
        let report =
            config::parse(Path::new("x"), format!("{head}\nzzzzzzzzzzzz = 1\n")).expect_err("unknown");
        let help = report.problems.iter().find_map(|p| p.help.as_deref()?.strip_prefix("known here: "));
        for key in help.expect("the known keys").split(", ") {
            let line = format!("\n{} =", key.trim_matches('`'));
            assert!(text.contains(&line), "{section}.{key} is not in docs/configuration.md");
        }
    }
}

#[test]
fn the_service_file_names_the_capabilities_that_the_daemon_asks_for() {
    let unit = read("vtepd/packaging/vtepd.service");
    assert!(vtepd::driver::host::CAPABILITY_HELP.contains("CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE"));
    assert!(unit.contains("\nAmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE\n"));
}

/// PIT-20: the warden needs less than the daemon, and has no more.
#[test]
fn the_wardens_service_has_the_privilege_to_delete_rows_and_stays() {
    let unit = read("vtepd/packaging/vtepd-warden.service");
    assert!(unit.contains("\nExecStart=/usr/bin/vtepd warden --config /etc/vtepd/vtepd.toml --stay\n"));
    assert!(unit.contains("\nCapabilityBoundingSet=CAP_NET_ADMIN\n"));
    assert!(read("vtepd/packaging/vtepd.service").contains("vtepd-warden.service"));
}
