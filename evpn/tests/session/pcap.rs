//! Just enough of pcap, Ethernet, IPv4 and TCP to get the octets of a recorded connection.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// One direction of a TCP connection. The two directions of a connection follow each other.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    /// Sent the SYN.
    pub(crate) initiator: bool,
    /// Payloads in order, retransmissions removed.
    pub(crate) segments: Vec<Vec<u8>>,
}

impl Stream {
    pub(crate) fn octets(&self) -> Vec<u8> {
        self.segments.concat()
    }
}

#[derive(Default)]
struct Half {
    initiator: bool,
    /// Sequence number of the first octet.
    first: Option<u32>,
    parts: BTreeMap<u32, Vec<u8>>,
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}
fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// All TCP directions of a little-endian pcap file with Ethernet frames.
pub(crate) fn streams(file: &[u8]) -> Vec<Stream> {
    assert_eq!(&file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "little-endian pcap");
    let mut halves: BTreeMap<(SocketAddrV4, SocketAddrV4), Half> = BTreeMap::new();
    let mut rest = &file[24..];
    while rest.len() >= 16 {
        let len = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        segment(&rest[16..16 + len], &mut halves);
        rest = &rest[16 + len..];
    }
    let mut out = Vec::new();
    for ((from, to), half) in &halves {
        if from < to
            && let Some(other) = halves.get(&(*to, *from))
        {
            out.push(finish(*from, half));
            out.push(finish(*to, other));
        }
    }
    out
}

fn segment(frame: &[u8], halves: &mut BTreeMap<(SocketAddrV4, SocketAddrV4), Half>) {
    if frame.len() < 54 || be16(frame, 12) != 0x0800 || frame[23] != 6 {
        return;
    }
    let ip = &frame[14..14 + usize::from(be16(frame, 16))];
    let tcp = &ip[usize::from(ip[0] & 15) * 4..];
    let addr = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let from = SocketAddrV4::new(addr(12), be16(tcp, 0));
    let to = SocketAddrV4::new(addr(16), be16(tcp, 2));
    let half = halves.entry((from, to)).or_default();
    let (seq, flags) = (be32(tcp, 4), tcp[13]);
    if flags & 2 != 0 {
        half.first = Some(seq.wrapping_add(1));
        half.initiator = flags & 16 == 0;
    }
    let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
    if let Some(first) = half.first
        && !payload.is_empty()
    {
        half.parts.entry(seq.wrapping_sub(first)).or_insert_with(|| payload.to_vec());
    }
}

fn finish(from: SocketAddrV4, half: &Half) -> Stream {
    let mut at = 0;
    let mut segments = Vec::new();
    for (offset, part) in &half.parts {
        assert!(*offset <= at, "{from}: a gap at {at}");
        if let Some(new) = part.get((at - offset) as usize..).filter(|p| !p.is_empty()) {
            at += new.len() as u32;
            segments.push(new.to_vec());
        }
    }
    Stream { name: from.to_string(), initiator: half.initiator, segments }
}
