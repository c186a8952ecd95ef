//! Route targets as written in the configuration.

use evpn::wire::{ExtCommunity, RouteTarget};
use std::net::Ipv4Addr;

/// Parses `65000:100` (RFC 4360 §4: two-octet AS), `4200000000:100` (RFC 5668: four-octet AS) or
/// `10.0.0.1:100` (IPv4 address).
///
/// # Errors
/// What is wrong, for people.
pub(super) fn parse(s: &str) -> Result<RouteTarget, String> {
    const FORM: &str = "not a route target; write \"65000:100\" or \"10.0.0.1:100\"";
    let (admin, number) = s.rsplit_once(':').ok_or(FORM)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) || number.is_empty() {
        return Err(FORM.into());
    }
    let number: u64 = number.parse().map_err(|_| "the number after the colon is too large")?;
    if let Ok(ip) = admin.parse::<Ipv4Addr>() {
        let n = u16::try_from(number).map_err(|_| "the number after an IPv4 address must be below 65536")?;
        let ([a, b, c, d], [x, y]) = (ip.octets(), n.to_be_bytes());
        return Ok(ExtCommunity([0x01, 0x02, a, b, c, d, x, y]));
    }
    if admin.is_empty() || !admin.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM.into());
    }
    let admin: u32 = admin.parse().map_err(|_| "the AS number before the colon is too large")?;
    if let Ok(asn) = u16::try_from(admin) {
        let n = u32::try_from(number).map_err(|_| "the number after the colon must be below 4294967296")?;
        let ([a, b], [w, x, y, z]) = (asn.to_be_bytes(), n.to_be_bytes());
        return Ok(ExtCommunity([0x00, 0x02, a, b, w, x, y, z]));
    }
    let n = u16::try_from(number).map_err(|_| "the number after a four-octet AS must be below 65536")?;
    let ([a, b, c, d], [x, y]) = (admin.to_be_bytes(), n.to_be_bytes());
    Ok(ExtCommunity([0x02, 0x02, a, b, c, d, x, y]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_have_their_own_types() {
        assert_eq!(parse("65000:100").expect("as2").0, [0, 2, 0xfd, 0xe8, 0, 0, 0, 100]);
        assert_eq!(parse("4200000000:7").expect("as4").0, [2, 2, 0xfa, 0x56, 0xea, 0, 0, 7]);
        assert_eq!(parse("10.0.0.1:9").expect("ip").0, [1, 2, 10, 0, 0, 1, 0, 9]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            "",
            "65000",
            ":1",
            "1:",
            "x:1",
            "1:x",
            "1:-1",
            "4200000000:65536",
            "10.0.0.1:65536",
            "5000000000:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
