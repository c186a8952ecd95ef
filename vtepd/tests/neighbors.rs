//! Neighbours in the configuration file: groups, whom a neighbour may be, how it is reached; every error as a person
//! sees it.
//!
//! Snapshots live in `tests/snapshots`; `INSTA_UPDATE=always cargo test -p vtepd --test neighbors` rewrites them.

use evpn::node::{Hops, NeighborConfig};
use evpn::types::{Asn, RemoteAs, Span};
use std::path::Path;
use vtepd::config::{self, Settings};

const HEAD: &str = "[vtep]\naddress = \"10.255.0.1\"\nasn = 65000\n\n";

fn read(text: &str) -> Result<Settings, String> {
    config::parse(Path::new("vtepd.toml"), format!("{HEAD}{text}")).map_err(|r| r.render(false))
}

fn neighbors(text: &str) -> Vec<NeighborConfig> {
    read(text).unwrap_or_else(|e| panic!("{e}")).node.neighbors
}

fn errors(text: &str) -> String {
    read(text).expect_err("this configuration is wrong")
}

#[test]
fn a_neighbour_has_what_its_group_says_and_its_own_keys_win() {
    let group = "[neighbor-group.spines]\nasn = 65001\nport = 1179\nhold-time = 9\nconnect-retry = 5\n\
                 passive = true\nlocal-address = \"10.0.0.1\"\nmultihop = 3\n";
    let n = neighbors(&format!(
        "[[neighbor]]\naddress = \"10.0.0.2\"\ngroup = \"spines\"\n\
         [[neighbor]]\naddress = \"10.0.0.3\"\ngroup = \"spines\"\nasn = \"internal\"\nhold-time = 30\npassive = false\n\
         ttl-security = 1\n[[neighbor]]\naddress = \"10.0.0.4\"\nasn = 65004\n{group}"
    ));
    let of_group = NeighborConfig {
        port: 1179,
        hold_time: 9,
        connect_retry: Span::secs(5),
        passive: true,
        local_address: "10.0.0.1".parse().ok(),
        multihop: Some(3),
        ..NeighborConfig::new("10.0.0.2".parse().expect("an address"), Asn(65001).into())
    };
    assert_eq!(n[0], of_group);
    // `multihop` and `ttl-security` are one choice: the group's is not left beside its own.
    let own = NeighborConfig {
        address: "10.0.0.3".parse().expect("an address"),
        asn: RemoteAs::Internal,
        hold_time: 30,
        passive: false,
        multihop: None,
        ttl_security: Some(1),
        ..of_group
    };
    assert_eq!(n[1], own);
    assert_eq!(n[2], NeighborConfig::new("10.0.0.4".parse().expect("an address"), Asn(65004).into()));
}

/// BGP-UNN-02; BGP-SEC-02 follows from it.
#[test]
fn a_neighbours_as_is_a_number_internal_or_external() {
    let of = |asn: &str| neighbors(&format!("[[neighbor]]\naddress = \"10.0.0.2\"\nasn = {asn}\n")).remove(0);
    assert_eq!(of("65001").asn, RemoteAs::Exactly(Asn(65001)));
    let (internal, external) = (of("\"internal\""), of("\"external\""));
    assert_eq!((internal.asn, external.asn), (RemoteAs::Internal, RemoteAs::External));
    // iBGP runs between the VTEPs' own addresses.
    assert_eq!((internal.local_address, external.local_address), ("10.255.0.1".parse().ok(), None));
    let hops = |n: &NeighborConfig| n.hops(Asn(65000));
    assert_eq!((hops(&internal), hops(&external)), (Hops::default(), Hops { ttl: Some(1), least: None }));
}

/// BGP-SEC-01: sent is 255, accepted is what so many hops leave of it.
#[test]
fn ttl_security_counts_hops() {
    let of = |hops: &str| {
        let text = format!("[[neighbor]]\naddress = \"10.0.0.2\"\nasn = 65001\nttl-security = {hops}\n");
        neighbors(&text)[0].hops(Asn(65000))
    };
    assert_eq!(of("1"), Hops { ttl: Some(255), least: Some(255) });
    assert_eq!(of("3"), Hops { ttl: Some(255), least: Some(253) });
    assert_eq!(of("254"), Hops { ttl: Some(255), least: Some(2) });
}

macro_rules! wrong {
    ($($name:ident => $text:expr;)*) => { $(
        #[test]
        fn $name() {
            insta::assert_snapshot!(errors($text));
        }
    )* };
}

wrong! {
    a_group_that_is_not_there => "[neighbor-group.spines]\nasn = 65001\n[[neighbor]]\naddress = \"10.0.0.2\"\ngroup = \"spine\"\n[[neighbor]]\naddress = \"10.0.0.3\"\ngroup = \"leaves\"\n";
    a_group_with_faults_is_told_once => "[neighbor-group.a]\nasn = 65001\nhold-time = 2\naddress = \"10.0.0.1\"\n[[neighbor]]\naddress = \"10.0.0.2\"\ngroup = \"a\"\n[[neighbor]]\naddress = \"10.0.0.3\"\ngroup = \"a\"\n";
    a_group_that_is_no_table => "[neighbor-group]\nasn = 65001\n";
    an_as_in_words => "[[neighbor]]\naddress = \"10.0.0.2\"\nasn = \"extern\"\n[[neighbor]]\naddress = \"10.0.0.3\"\nasn = \"65000\"\n";
    neither_the_neighbour_nor_its_group_has_an_as => "[neighbor-group.a]\nport = 1179\n[[neighbor]]\naddress = \"10.0.0.2\"\ngroup = \"a\"\n";
    multihop_and_ttl_security => "[[neighbor]]\naddress = \"10.0.0.2\"\nasn = 65001\nmultihop = 2\nttl-security = 2\n";
    a_groups_local_address_of_another_family => "[neighbor-group.a]\nasn = 65001\nlocal-address = \"10.0.0.1\"\n[[neighbor]]\naddress = \"2001:db8::2\"\ngroup = \"a\"\n";
}

/// BGP-SEC-03: a group's key is every neighbour's; nothing that is printed has it.
#[test]
fn keys_come_from_files_and_are_in_no_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (a, b) = (key("a", "alpha-7\n"), key("b", "beta-7\n"));
    let s = read(&format!(
        "[neighbor-group.g]\nasn = 65001\npassword-file = \"{a}\"\n\
         [[neighbor]]\naddress = \"10.0.0.2\"\ngroup = \"g\"\n\
         [[neighbor]]\naddress = \"10.0.0.3\"\ngroup = \"g\"\npassword-file = \"{b}\"\n\
         [[neighbor]]\naddress = \"10.0.0.4\"\nasn = 65001\n"
    ))
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(s.node.neighbors.iter().map(|n| n.signed).collect::<Vec<_>>(), [true, true, false]);
    let keys = s.keys().unwrap_or_else(|e| panic!("{e}"));
    let of = |last: u8| keys.key([10, 0, 0, last].into()).map(|k| k.octets().to_vec());
    assert_eq!((of(2), of(3), of(4)), (Some(b"alpha-7".to_vec()), Some(b"beta-7".to_vec()), None));
    let printed = format!("{s:?}{keys:?}{}", serde_json::to_string(&s.node).expect("JSON"));
    assert!(!printed.contains("-7"), "{printed}");
}

/// The errors of keys come at the start and from `vtepd check`, with the line that names the place.
#[test]
fn a_key_that_is_not_there_is_told_with_its_line_and_once_for_a_group() {
    let s = read(
        "[neighbor-group.g]\nasn = 65001\npassword-file = \"/nowhere/key\"\n\
         [[neighbor]]\naddress = \"10.0.0.2\"\ngroup = \"g\"\n[[neighbor]]\naddress = \"10.0.0.3\"\ngroup = \"g\"\n\
         [[neighbor]]\naddress = \"10.0.0.4\"\nasn = 65001\npassword-env = \"VTEPD_NO_SUCH_VARIABLE\"\n",
    )
    .unwrap_or_else(|e| panic!("{e}"));
    insta::assert_snapshot!(s.keys().expect_err("not there").render(false));
}

wrong! {
    two_places_for_a_key => "[[neighbor]]\naddress = \"10.0.0.2\"\nasn = 65001\npassword-file = \"/k\"\npassword-env = \"K\"\n";
    no_place_for_a_key => "[[neighbor]]\naddress = \"10.0.0.2\"\nasn = 65001\npassword-file = \"\"\n[[neighbor]]\naddress = \"10.0.0.3\"\nasn = 65001\npassword-env = \"A=B\"\n";
}

#[test]
fn a_range_has_the_terms_of_its_group_and_its_key_is_the_prefixes() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("key");
    std::fs::write(&key, "k").expect("written");
    let s = read(&format!(
        "[neighbor-group.leaves]\nasn = \"external\"\nhold-time = 9\npassword-file = \"{}\"\n\
         [[neighbor-range]]\nprefix = \"10.0.0.0/24\"\ngroup = \"leaves\"\nlimit = 7\nmultihop = 2\n\
         [[neighbor-range]]\nprefix = \"2001:db8::/64\"\nasn = \"internal\"\n",
        key.display()
    ))
    .unwrap_or_else(|e| panic!("{e}"));
    let [a, b] = &s.node.neighbor_ranges[..] else { panic!("{:?}", s.node.neighbor_ranges) };
    assert_eq!((a.prefix.to_string(), a.limit), ("10.0.0.0/24".to_owned(), 7));
    assert_eq!((a.terms.asn, a.terms.hold_time, a.terms.multihop), (RemoteAs::External, 9, Some(2)));
    assert!(a.terms.passive && a.terms.signed && !b.terms.signed);
    assert_eq!((b.prefix.to_string(), b.limit), ("2001:db8::/64".to_owned(), 100));
    let keys = s.keys().unwrap_or_else(|e| panic!("{e}"));
    let of: Vec<_> = keys.of.iter().map(|(p, _)| (p.ip.to_string(), p.bits)).collect();
    assert_eq!(of, [("10.0.0.0".to_owned(), Some(24))]);
}

#[test]
fn what_is_asked_of_a_neighbours_open_is_read() {
    let n = neighbors(
        "[[neighbor]]\naddress = \"10.0.0.2\"\nasn = 65001\nmin-hold-time = 30\nrequire-evpn = true\nextended-open = true\n",
    );
    assert_eq!((n[0].min_hold_time, n[0].require_evpn, n[0].extended_open), (30, true, true));
}

wrong! {
    ranges_with_faults => "[[neighbor-range]]\nasn = 65001\n[[neighbor-range]]\nprefix = \"10.0.0.1/24\"\nasn = 65001\n[[neighbor-range]]\nprefix = \"10.0.0.0\"\nasn = 65001\n[[neighbor-range]]\nprefix = \"0.0.0.0/0\"\nasn = 65001\n[[neighbor-range]]\nprefix = \"10.0.0.0/16\"\nasn = 65001\nlimit = 0\n[[neighbor-range]]\nprefix = \"10.0.3.0/24\"\nasn = 65001\n[[neighbor-range]]\nprefix = \"10.1.0.0/24\"\n";
}
