//! Questions and answers of ARP and ND as hosts put them and give them, built and read by hand.

use crate::frame::{arp_reply, arp_request, ethernet, icmpv6, neighbor_solicitation};
use evpn::types::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host's MAC and one of its addresses.
pub type Party = (Mac, IpAddr);

/// An ARP request or a neighbour solicitation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// Source of the frame.
    pub mac: Mac,
    /// Its address; `None`: it has none yet, or does not say (an ARP probe, a duplicate check).
    pub ip: Option<IpAddr>,
    /// The address that is asked for.
    pub wanted: IpAddr,
    /// To one host alone.
    pub unicast: bool,
}

/// Asks everybody for an address.
///
/// # Panics
/// When the two addresses are of different families.
pub fn ask((mac, ip): Party, wanted: IpAddr) -> Vec<u8> {
    match (ip, wanted) {
        (IpAddr::V4(ip), IpAddr::V4(wanted)) => arp_request(mac, ip, wanted),
        (IpAddr::V6(ip), IpAddr::V6(wanted)) => neighbor_solicitation(mac, ip, wanted),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("{ip} asks for {wanted}"),
    }
}

/// Asks everybody whether an address is in use: an ARP probe (RFC 5227 §2.1.1), or duplicate address detection
/// (RFC 4862 §5.4.2).
pub fn check(mac: Mac, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp_request(mac, Ipv4Addr::UNSPECIFIED, ip),
        IpAddr::V6(ip) => {
            let mut m = vec![135, 0, 0, 0, 0, 0, 0, 0];
            m.extend(ip.octets());
            let [.., x, y, z] = ip.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
            let to = Mac([0x33, 0x33, 0xff, x, y, z]);
            ethernet(to, mac, 0x86dd, &icmpv6(Ipv6Addr::UNSPECIFIED, group, m))
        }
    }
}

/// The answer of a host to this question, as Linux gives it; `None` where it gives none: to a question of another family.
pub fn answer((mac, ip): Party, q: &Question) -> Option<Vec<u8>> {
    match (ip, q.ip) {
        (IpAddr::V4(own), Some(IpAddr::V4(asker))) => Some(arp_reply((mac, own), (q.mac, asker))),
        (IpAddr::V4(own), None) => Some(arp_reply((mac, own), (q.mac, Ipv4Addr::UNSPECIFIED))),
        (IpAddr::V6(own), Some(IpAddr::V6(asker))) => Some(advertisement((mac, own), (q.mac, asker), 0x60)),
        (IpAddr::V6(own), None) => {
            let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            Some(advertisement((mac, own), (Mac([0x33, 0x33, 0, 0, 0, 1]), all), 0x20))
        }
        (IpAddr::V4(_), Some(IpAddr::V6(_))) | (IpAddr::V6(_), Some(IpAddr::V4(_))) => None,
    }
}

fn advertisement((mac, ip): (Mac, Ipv6Addr), to: (Mac, Ipv6Addr), flags: u8) -> Vec<u8> {
    let mut m = vec![136, 0, 0, 0, flags, 0, 0, 0];
    m.extend(ip.octets());
    m.extend([2, 1]);
    m.extend(mac.0);
    ethernet(to.0, mac, 0x86dd, &icmpv6(ip, to.1, m))
}

/// The question in this frame; an announcement is none.
pub fn as_question(f: &[u8]) -> Option<Question> {
    let (mac, unicast) = (Mac::from_slice(f.get(6..12)?)?, f.first()? & 1 == 0);
    match f.get(12..14)? {
        [8, 6] if f.get(20..22)? == [0, 1] => {
            let (sender, wanted) = (v4(f, 28)?, v4(f, 38)?);
            let ip = Some(IpAddr::V4(sender)).filter(|_| !sender.is_unspecified());
            (sender != wanted).then_some(Question { mac, ip, wanted: wanted.into(), unicast })
        }
        [0x86, 0xdd] if *f.get(20)? == 58 && *f.get(54)? == 135 => {
            let (sender, wanted) = (v6(f, 22)?, v6(f, 62)?);
            let ip = Some(IpAddr::V6(sender)).filter(|_| !sender.is_unspecified());
            Some(Question { mac, ip, wanted: wanted.into(), unicast })
        }
        _ => None,
    }
}

/// The MAC and the address that a frame ties together for whoever hears it: ARP reply, announcement, neighbour
/// advertisement.
pub fn as_answer(f: &[u8]) -> Option<Party> {
    match f.get(12..14)? {
        [8, 6] => {
            let (op, sender, target) = (f.get(20..22)?, v4(f, 28)?, v4(f, 38)?);
            let says = op == [0, 2] || (op == [0, 1] && sender == target);
            let mac = Mac::from_slice(f.get(22..28)?)?;
            (says && !sender.is_unspecified()).then_some((mac, sender.into()))
        }
        [0x86, 0xdd] => crate::frame::as_neighbor_advertisement(f).map(|(m, ip)| (m, ip.into())),
        _ => None,
    }
}

fn v4(f: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(f.get(at..at + 4)?).ok()?.into())
}

fn v6(f: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(f.get(at..at + 16)?).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn pairs() -> [(IpAddr, IpAddr); 2] {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        [(ip("10.0.0.1"), ip("10.0.0.2")), (ip("fd00::1"), ip("fd00::2"))]
    }

    #[test]
    fn a_question_is_read_back_and_its_answer_names_the_owner() {
        for (a, b) in pairs() {
            let q = as_question(&ask((A, a), b)).expect("a question");
            assert_eq!(q, Question { mac: A, ip: Some(a), wanted: b, unicast: false });
            let f = answer((B, b), &q).expect("of the same family");
            assert_eq!(as_answer(&f), Some((B, b)));
            assert_eq!((f[..6].to_vec(), as_question(&f)), (A.0.to_vec(), None));
        }
    }

    #[test]
    fn a_duplicate_check_has_no_sender() {
        for (a, _) in pairs() {
            let f = check(A, a);
            let q = as_question(&f).expect("a question");
            assert_eq!((q.mac, q.ip, q.wanted), (A, None, a));
            assert_eq!(as_answer(&f), None);
            assert_eq!(as_answer(&answer((B, a), &q).expect("an answer")), Some((B, a)));
        }
    }

    #[test]
    fn an_announcement_is_an_answer_and_no_question() {
        let f = frame::garp(A, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!((as_question(&f), as_answer(&f)), (None, Some((A, "10.0.0.1".parse().unwrap()))));
        assert_eq!(as_answer(&frame::data(A, B, 1)), None);
        assert_eq!((as_question(&[0; 13]), as_answer(&[8; 20])), (None, None));
    }
}
