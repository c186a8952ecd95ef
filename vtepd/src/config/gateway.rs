//! `gateway` of `[[vni]]`: the first hop of its hosts (EVPN-IRB-10).

use super::vtep::is_unicast;
use super::walk::{At, Collector, Place, Section};
use evpn::node::{Gateway, GatewayAddress};
use evpn::types::Mac;
use std::collections::BTreeMap;
use std::net::IpAddr;

const HELP: &str = "write it as `gateway = { addresses = [\"10.1.0.1/24\", \"2001:db8::1/64\"], mac = \"00:00:5e:00:01:01\" }`";
/// What RFC 9135 §4.1 derives for VRID 1.
const DEFAULT_MAC: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);

/// The gateway of a VNI, if it has one. `vtep` is our own address in the underlay, `sticky` the MACs that have ports.
pub(super) fn gateway(
    s: &Section<'_>,
    vtep: Option<IpAddr>,
    sticky: &BTreeMap<Mac, String>,
    arp_suppression: bool,
    c: &mut Collector,
) -> Option<Gateway> {
    let (_, at) = s.get("gateway")?;
    let t = s.section("gateway", &["addresses", "mac", "ra"], c);
    if !t.present() {
        return None;
    }
    if !arp_suppression {
        let what = "a gateway needs `arp-suppression`";
        c.push(s.problem("gateway", at.clone(), what).label("without it, questions for the gateway cross the underlay").help(
            "leave `arp-suppression` out: every VTEP would answer for the same address, and hosts would be routed at any of them",
        ));
    }
    let addresses = addresses(&t, at, vtep, c);
    let ra = t.boolean("ra", c).unwrap_or(false);
    if ra
        && !addresses.is_empty()
        && addresses.iter().all(|a| a.ip.is_ipv4())
        && let Some((_, place)) = t.get("ra")
    {
        let what = "router advertisements need an IPv6 address";
        c.push(t.problem("ra", place, what).help("add one to `addresses`, or leave `ra` out"));
    }
    let mac = mac(&t, sticky, c)?;
    (!addresses.is_empty()).then_some(Gateway { addresses, mac, ra })
}

fn addresses(t: &Section<'_>, at: Place, vtep: Option<IpAddr>, c: &mut Collector) -> Vec<GatewayAddress> {
    let mut out: Vec<GatewayAddress> = Vec::new();
    let texts = t.texts("addresses", c);
    if t.get("addresses").is_none() || texts.as_ref().is_some_and(Vec::is_empty) {
        c.push(t.problem("addresses", at, "a gateway needs an address").help(HELP));
    }
    for At { value, place } in texts.unwrap_or_default() {
        let read = value
            .split_once('/')
            .and_then(|(ip, bits)| GatewayAddress::new(ip.parse().ok()?, bits.parse().ok()?));
        let Some(a) = read.filter(|a| is_unicast(a.ip) && !a.ip.is_loopback() && a.bits > 0) else {
            let what = format!("`{value}` is not a host's address with the length of its subnet's prefix");
            c.push(t.problem("addresses", place, what).help(HELP));
            continue;
        };
        if Some(a.ip) == vtep {
            let what = format!("{} is this VTEP's own address in the underlay", a.ip);
            c.push(
                t.problem("addresses", place, what).help("a gateway has the same addresses at every VTEP"),
            );
        } else if out.iter().any(|b| b.ip == a.ip) {
            c.push(t.problem("addresses", place, format!("{} given twice", a.ip)));
        } else {
            out.push(a);
        }
    }
    out
}

fn mac(t: &Section<'_>, sticky: &BTreeMap<Mac, String>, c: &mut Collector) -> Option<Mac> {
    let Some(At { value, place }) = t.text("mac", c) else {
        return t.get("mac").is_none().then_some(DEFAULT_MAC);
    };
    match value.parse::<Mac>() {
        Ok(mac) if !mac.is_host() => {
            let what = format!("{mac} is no host's address");
            c.push(t.problem("mac", place, what).label("a group address, or zero"));
            None
        }
        Ok(mac) => {
            if let Some(port) = sticky.get(&mac) {
                let what = format!("{mac} is `sticky` on {port}");
                c.push(
                    t.problem("mac", place, what)
                        .help("a gateway's MAC is on the bridge of every VTEP, and on no port"),
                );
            }
            Some(mac)
        }
        Err(e) => {
            c.push(t.problem("mac", place, e.to_string()).help(HELP));
            None
        }
    }
}
