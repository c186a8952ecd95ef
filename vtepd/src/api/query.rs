//! Query parameters of the tables, strict: a parameter that is not understood is an error, not ignored.

use crate::config::walk::parse_duration;
use crate::driver::clock;
use evpn::node::view::{MoveKind, MoveView};
use evpn::node::{About, MacFilter, Query, Show, WhyRequest};
use evpn::types::{Span, Vni};

/// Rows of a slice unless asked for; also the most that a slice has.
pub const SLICE: usize = 256;

/// The table of a path segment.
pub fn table(name: &str) -> Option<Show> {
    Some(match name {
        "status" => Show::Status,
        "neighbors" => Show::Neighbors,
        "vnis" => Show::Vnis,
        "macs" => Show::Macs,
        "hosts" => Show::Hosts,
        "routes" => Show::Routes,
        "moves" => Show::Moves,
        "duplicates" => Show::Duplicates,
        "kernel" => Show::Kernel,
        _ => return None,
    })
}

/// Reads `vni`, `mac`, `ip`, `cursor` and `limit`; of MACs and hosts also `port` and `vtep`; of moves also `kind`, `cause`, `role`, `since` and `slow`.
///
/// # Errors
/// What is wrong, for people.
pub fn parse(show: Show, parameters: &[(String, String)]) -> Result<Query, String> {
    let mut query = Query { show, filter: MacFilter::default(), cursor: None, limit: SLICE };
    for (i, (key, value)) in parameters.iter().enumerate() {
        if parameters[..i].iter().any(|(k, _)| k == key) {
            return Err(format!("parameter `{key}` is given twice"));
        }
        match key.as_str() {
            "vni" => query.filter.vni = Some(vni(value)?),
            "mac" => query.filter.mac = Some(value.parse().map_err(|e| format!("mac: {e}"))?),
            "ip" => {
                let ip = value.parse().map_err(|_| format!("ip: `{value}` is not an IP address"))?;
                query.filter.ip = Some(ip);
            }
            "port" if has_places(show) => query.filter.place.port = Some(value.clone()),
            "vtep" if has_places(show) => {
                let vtep = value.parse().map_err(|_| format!("vtep: `{value}` is not an IP address"))?;
                query.filter.place.vtep = Some(vtep);
            }
            "cursor" if value.len() <= 256 => query.cursor = Some(value.clone()),
            "cursor" => return Err("cursor: not one of ours".into()),
            "limit" => {
                query.limit = match value.parse() {
                    Ok(n) if (1..=SLICE).contains(&n) => n,
                    _ => return Err(format!("limit: must be between 1 and {SLICE}")),
                }
            }
            "kind" | "cause" | "role" | "since" | "slow" if show == Show::Moves => {
                move_filter(&mut query, key, value)?;
            }
            _ => {
                let more = match show {
                    Show::Moves => ", kind, cause, role, since, slow",
                    _ if has_places(show) => ", port, vtep",
                    _ => "",
                };
                return Err(format!("unknown parameter `{key}`; known: vni, mac, ip, cursor, limit{more}"));
            }
        }
    }
    Ok(query)
}

/// Its rows are at a port or behind a VTEP.
fn has_places(show: Show) -> bool {
    matches!(show, Show::Macs | Show::Hosts)
}

/// Reads the path of a `why`. `None`: it asks neither for a MAC nor for an IP.
///
/// # Errors
/// What is wrong, for people.
pub fn why(kind: &str, vni_text: &str, address: &str) -> Result<Option<WhyRequest>, String> {
    let about = match kind {
        "mac" => About::Mac(address.parse().map_err(|e| format!("mac: {e}"))?),
        "ip" => About::Ip(address.parse().map_err(|_| format!("ip: `{address}` is not an IP address"))?),
        _ => return Ok(None),
    };
    Ok(Some(WhyRequest { vni: vni(vni_text)?, about }))
}

fn move_filter(query: &mut Query, key: &str, value: &str) -> Result<(), String> {
    let one_of = |names: &[&'static str]| {
        let found = names.iter().copied().find(|n| *n == value);
        found.ok_or_else(|| format!("{key}: `{value}` is none of {}", names.join(", ")))
    };
    let length = || {
        let micros = value.strip_suffix("us").and_then(|n| n.parse::<u32>().ok());
        let span = micros.map(|n| Span::micros(u64::from(n))).or_else(|| parse_duration(value).map(Span));
        span.ok_or_else(|| {
            format!("{key}: `{value}` is no length of time such as `500us`, `5ms`, `30s`, `10m`")
        })
    };
    let moves = &mut query.filter.moves;
    match key {
        "kind" => {
            one_of(&MoveKind::ALL.map(MoveKind::as_str))?;
            moves.kind = MoveKind::ALL.into_iter().find(|k| k.as_str() == value);
        }
        "cause" => moves.cause = Some(one_of(&MoveView::CAUSES)?),
        "role" => moves.role = Some(one_of(&MoveView::ROLES)?),
        "since" => moves.since = Some(clock::now() - length()?),
        _ => moves.slow = Some(length()?),
    }
    Ok(())
}

fn vni(value: &str) -> Result<Vni, String> {
    let n = value.parse().ok().and_then(Vni::new);
    n.ok_or_else(|| format!("vni: `{value}` is not a number between 1 and 16777215"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Query, String> {
        let owned: Vec<_> = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        parse(Show::Macs, &owned)
    }

    #[test]
    fn all_parameters_are_read() {
        let q = read(&[
            ("vni", "100"),
            ("mac", "52:54:00:00:00:01"),
            ("ip", "10.0.0.1"),
            ("limit", "7"),
            ("cursor", "x"),
        ])
        .expect("valid");
        assert_eq!((q.filter.vni, q.limit, q.cursor.as_deref()), (Vni::new(100), 7, Some("x")));
        assert!(q.filter.mac.is_some() && q.filter.ip.is_some());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            [("vni", "0")],
            [("vni", "16777216")],
            [("mac", "x")],
            [("ip", "10.0.0.1/24")],
            [("limit", "0")],
            [("limit", "257")],
            [("colour", "red")],
        ] {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
        assert!(read(&[("vni", "1"), ("vni", "2")]).is_err());
    }

    #[test]
    fn moves_have_filters_of_their_own() {
        let of = |show, key: &str, value: &str| parse(show, &[(key.to_owned(), value.to_owned())]);
        let moves = |key, value| of(Show::Moves, key, value).map(|q| q.filter.moves);
        assert_eq!(moves("kind", "changed-mac").expect("valid").kind, Some(MoveKind::ChangedMac));
        assert_eq!(moves("cause", "qmp").expect("valid").cause, Some("qmp"));
        assert_eq!(moves("role", "left").expect("valid").role, Some("left"));
        assert_eq!(moves("slow", "5ms").expect("valid").slow, Some(Span::millis(5)));
        let since = moves("since", "10m").expect("valid").since.expect("a time");
        let ago = clock::now().since(since);
        assert!(ago >= Span::secs(600) && ago < Span::secs(660), "{ago}");
        for (key, bad) in
            [("kind", "quick"), ("cause", ""), ("role", "lost"), ("slow", "fast"), ("since", "-1")]
        {
            let why = moves(key, bad).expect_err(bad);
            assert!(why.starts_with(&format!("{key}: `{bad}`")), "{why}");
        }
        let why = of(Show::Vnis, "kind", "hot").expect_err("of moves only");
        assert_eq!(why, "unknown parameter `kind`; known: vni, mac, ip, cursor, limit");
    }

    #[test]
    fn macs_and_hosts_are_filtered_by_place() {
        let of = |show, key: &str, value: &str| parse(show, &[(key.to_owned(), value.to_owned())]);
        for show in [Show::Macs, Show::Hosts] {
            let port = of(show, "port", "vnet3").expect("valid").filter.place.port;
            assert_eq!(port.as_deref(), Some("vnet3"));
            let vtep = of(show, "vtep", "10.0.0.2").expect("valid").filter.place.vtep;
            assert_eq!(vtep, Some("10.0.0.2".parse().expect("address")));
        }
        let why = of(Show::Hosts, "vtep", "p1").expect_err("no address");
        assert_eq!(why, "vtep: `p1` is not an IP address");
        let why = of(Show::Routes, "port", "p1").expect_err("routes have no port");
        assert!(why.starts_with("unknown parameter `port`"), "{why}");
        let why = of(Show::Hosts, "kind", "hot").expect_err("of moves only");
        assert_eq!(why, "unknown parameter `kind`; known: vni, mac, ip, cursor, limit, port, vtep");
    }
}
