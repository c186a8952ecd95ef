//! Whether a neighbour is on a link of ours: by the route that leads to it, as the kernel lists it in `/proc/net`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Goes through a gateway (`RTF_GATEWAY`).
const GATEWAY: u32 = 2;
/// Leads nowhere (`RTF_REJECT`).
const REJECT: u32 = 0x200;

/// Whether packets to this address go through no router. `None`: there is no route, or nothing can be read.
pub(super) fn on_link(to: IpAddr) -> Option<bool> {
    match to {
        IpAddr::V4(to) => v4(&std::fs::read_to_string("/proc/net/route").ok()?, to),
        IpAddr::V6(to) if to.is_unicast_link_local() => Some(true),
        IpAddr::V6(to) => v6(&std::fs::read_to_string("/proc/net/ipv6_route").ok()?, to),
    }
}

/// The longest of the routes that match. `(length of the prefix, no gateway)`
fn longest(routes: impl Iterator<Item = (u32, bool)>) -> Option<bool> {
    // Of equal lengths the first: the kernel lists them by metric.
    routes.fold(None, |best: Option<(u32, bool)>, r| best.filter(|b| b.0 >= r.0).or(Some(r))).map(|r| r.1)
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses as the machine holds them.
fn v4(table: &str, to: Ipv4Addr) -> Option<bool> {
    let to = u32::from_ne_bytes(to.octets());
    let hex = |s: &str| u32::from_str_radix(s, 16).ok();
    longest(table.lines().skip(1).filter_map(|l| {
        let f: Vec<&str> = l.split_whitespace().collect();
        let (net, flags, mask) = (hex(f.get(1)?)?, hex(f.get(3)?)?, hex(f.get(7)?)?);
        let fits = to & mask == net && flags & REJECT == 0;
        fits.then_some((mask.count_ones(), flags & GATEWAY == 0))
    }))
}

/// `destination length source length next-hop metric refcnt use flags device`.
fn v6(table: &str, to: Ipv6Addr) -> Option<bool> {
    let to = u128::from(to);
    longest(table.lines().filter_map(|l| {
        let f: Vec<&str> = l.split_whitespace().collect();
        let net = u128::from_str_radix(f.first()?, 16).ok()?;
        let length = u32::from_str_radix(f.get(1)?, 16).ok().filter(|n| *n <= 128)?;
        let flags = u32::from_str_radix(f.get(8)?, 16).ok()?;
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        (to & mask == net && flags & REJECT == 0).then_some((length, flags & GATEWAY == 0))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_longest_ipv4_route_decides() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n\
            eth0 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
            eth0 0500000A 0100000A 0007 0 0 0 FFFFFFFF 0 0 0\n\
            * 0000FFC0 00000000 0200 0 0 0 0000FFFF 0 0 0\n";
        let of = |a: [u8; 4]| v4(table, a.into());
        assert_eq!(of([10, 0, 0, 2]), Some(true));
        assert_eq!(of([10, 0, 0, 5]), Some(false), "a host route over a router");
        assert_eq!(of([10, 0, 1, 2]), Some(false), "the default route");
        let alone = table.lines().filter(|l| !l.contains("00000000 0100000A")).collect::<Vec<_>>().join("\n");
        assert_eq!(v4(&alone, [10, 9, 0, 2].into()), None);
        assert_eq!(v4(&alone, [192, 255, 0, 1].into()), None, "a route that leads nowhere");
    }

    #[test]
    fn the_longest_ipv6_route_decides() {
        let zero = "0".repeat(32);
        let gw = "20010db8000000000000000000000001";
        let table = format!(
            "20010db8000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n\
             {zero} 00 {zero} 00 {gw} 00000400 00000001 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
        );
        let of = |a: &str| v6(&table, a.parse().expect("an address"));
        assert_eq!(of("2001:db8::2"), Some(true));
        assert_eq!(of("2001:db8:1::2"), Some(false));
        let alone = table.lines().filter(|l| !l.contains("00000400")).collect::<Vec<_>>().join("\n");
        assert_eq!(v6(&alone, "2001:db8:1::2".parse().expect("an address")), None);
        assert_eq!(on_link("fe80::1".parse().expect("an address")), Some(true));
    }
}
