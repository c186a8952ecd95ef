//! Query parameters of the tables, strict: a parameter that is not understood is an error, not ignored.

use evpn::node::{MacFilter, Query, Show};
use evpn::types::Vni;

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
        "kernel" => Show::Kernel,
        _ => return None,
    })
}

/// Reads `vni`, `mac`, `ip`, `cursor` and `limit`.
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
            "cursor" if value.len() <= 256 => query.cursor = Some(value.clone()),
            "cursor" => return Err("cursor: not one of ours".into()),
            "limit" => {
                query.limit = match value.parse() {
                    Ok(n) if (1..=SLICE).contains(&n) => n,
                    _ => return Err(format!("limit: must be between 1 and {SLICE}")),
                }
            }
            _ => return Err(format!("unknown parameter `{key}`; known: vni, mac, ip, cursor, limit")),
        }
    }
    Ok(query)
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
}
