//! A small pcap reader: Ethernet, IPv4, TCP, with the streams put together again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

/// Both ends of one direction of a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Flow {
    pub src: (Ipv4Addr, u16),
    pub dst: (Ipv4Addr, u16),
}

/// In-order octets of a flow as they become known with one packet.
pub struct Arrival {
    pub flow: Flow,
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Stream {
    /// Sequence number expected next, once a SYN or first segment was seen.
    next: Option<u32>,
    /// Segments ahead of it.
    ahead: BTreeMap<u32, Vec<u8>>,
}

impl Stream {
    /// What this segment makes available.
    fn take(&mut self, seq: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
        if syn {
            self.next = Some(seq.wrapping_add(1));
            return Vec::new();
        }
        if payload.is_empty() {
            return Vec::new();
        }
        self.next.get_or_insert(seq);
        self.ahead.insert(seq, payload.to_vec());
        let mut out = Vec::new();
        while let Some((&seq, segment)) = self.ahead.first_key_value() {
            let next = self.next.unwrap();
            // How far this segment begins before the expected octet; a gap is a huge number.
            let known = next.wrapping_sub(seq) as usize;
            if known > segment.len() {
                if known < 1 << 31 {
                    self.ahead.pop_first();
                    continue;
                }
                break;
            }
            out.extend_from_slice(&segment[known..]);
            self.next = Some(next.wrapping_add((segment.len() - known) as u32));
            self.ahead.pop_first();
        }
        out
    }
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn ip_at(b: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3])
}

/// Every in-order piece of TCP payload, in the order of the packets.
pub fn tcp(path: &Path) -> Vec<Arrival> {
    let file = std::fs::read(path).unwrap();
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "little-endian pcap");
    assert_eq!(file[20..24], [1, 0, 0, 0], "Ethernet");
    let mut streams: BTreeMap<Flow, Stream> = BTreeMap::new();
    let mut out = Vec::new();
    let mut rest = &file[24..];
    while !rest.is_empty() {
        let n = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], rest[12..16], "packet is cut");
        let (packet, after) = rest[16..].split_at(n);
        rest = after;
        // Ethernet, IPv4, TCP; anything else is of no interest.
        if u16_at(packet, 12) != 0x0800 || packet[14 + 9] != 6 {
            continue;
        }
        let ip = &packet[14..];
        let ip = &ip[..usize::from(u16_at(ip, 2))];
        let tcp = &ip[usize::from(ip[0] & 15) * 4..];
        let flow = Flow { src: (ip_at(ip, 12), u16_at(tcp, 0)), dst: (ip_at(ip, 16), u16_at(tcp, 2)) };
        if flow.src.1 != 179 && flow.dst.1 != 179 {
            continue;
        }
        let seq = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
        let bytes = streams.entry(flow).or_default().take(seq, tcp[13] & 2 != 0, payload);
        if !bytes.is_empty() {
            out.push(Arrival { flow, bytes });
        }
    }
    let left: usize = streams.values().map(|s| s.ahead.len()).sum();
    assert_eq!(left, 0, "segments that never became contiguous");
    out
}
