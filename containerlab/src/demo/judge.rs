//! From what was seen to what it means. No I/O here.

use super::observe::{FrameSeen, RowSeen};
use crate::traffic::{ClientReport, ServerReport};
use std::net::IpAddr;

/// EtherType of RARP.
const RARP: u16 = 0x8035;
/// EtherType of ARP.
const ARP: u16 = 0x0806;

fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Longest time between two arrivals, of those where the second came after `from` and the first before `to`.
/// `None` without any.
pub(super) fn longest_gap(arrivals: &[(u64, u64)], from: u64, to: u64) -> Option<u64> {
    let mut times: Vec<_> = arrivals.iter().map(|a| a.1).collect();
    times.sort_unstable();
    times.windows(2).filter(|w| w[1] > from && w[0] < to).map(|w| w[1] - w[0]).max()
}

/// Median round trip of the answered probes sent in a span of time, in milliseconds.
pub(super) fn round_trip(probes: &[(u64, u64)], from: u64, to: u64) -> f64 {
    let answered = probes.iter().filter(|p| p.1 != 0 && p.0 >= from && p.0 < to);
    let mut times: Vec<_> = answered.map(|p| p.1 - p.0).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().map_or(0.0, ms)
}

/// When the forwarding row at an observing VTEP was right: the last change that it needed after `since`.
/// `moved_away` is the old site, where the bridge's own row has to leave the VM's port too.
pub(super) fn row_time(
    rows: &[RowSeen],
    vtep: usize,
    vxlan: u32,
    mac: [u8; 6],
    target: IpAddr,
    since: u64,
    moved_away: bool,
) -> Option<u64> {
    let mine =
        || rows.iter().filter(|r| r.vtep == vtep && r.at >= since && r.bridge && r.mac == Some(mac) && r.new);
    let device = mine().find(|r| r.index == vxlan && !r.master && r.ip == Some(target))?.at;
    if !moved_away {
        return Some(device);
    }
    let bridge = mine().find(|r| r.index == vxlan && r.master)?.at;
    Some(device.max(bridge))
}

/// The first frame of the VM at its new port.
pub(super) fn first_frame(frames: &[FrameSeen], port: usize, mac: [u8; 6], since: u64) -> Option<u64> {
    frames
        .iter()
        .filter(|f| f.tap == port && !f.outgoing && f.from == mac && f.at >= since)
        .map(|f| f.at)
        .min()
}

/// PIT-21: what came from the VM at its new port before the first frame *for* it did. Only announcements may.
pub(super) fn before_served(
    frames: &[FrameSeen],
    port: usize,
    mac: [u8; 6],
    since: u64,
) -> Result<(usize, u64), String> {
    let served = frames
        .iter()
        .filter(|f| f.tap == port && f.outgoing && f.to == mac && f.at >= since)
        .map(|f| f.at)
        .min()
        .ok_or("the VM was never served at its new place")?;
    let said: Vec<_> = frames
        .iter()
        .filter(|f| f.tap == port && !f.outgoing && f.at >= since && f.at < served)
        .map(|f| f.kind)
        .collect();
    if let Some(other) = said.iter().find(|k| **k != RARP) {
        return Err(format!("the guest itself sent a frame of type {other:#06x} before it was served"));
    }
    if said.is_empty() {
        return Err("no announcement came from the VM's port".to_owned());
    }
    Ok((said.len(), served))
}

/// Longest frame and number of fragments of a tap in a span of time.
pub(super) fn lengths(frames: &[FrameSeen], taps: &[usize], from: u64, to: u64) -> (usize, usize) {
    let these = || frames.iter().filter(|f| taps.contains(&f.tap) && f.at >= from && f.at < to);
    (these().map(|f| f.len).max().unwrap_or(0), these().filter(|f| f.fragment).count())
}

/// TCP: every octet once and in order, and more of them after the move.
pub(super) fn tcp(server: &ServerReport, client: &ClientReport, before: u64) -> Result<String, String> {
    if let Some(e) = &client.error {
        return Err(e.clone());
    }
    if let Some(at) = server.wrong_at {
        return Err(format!("octet {at} arrived wrong"));
    }
    if server.connections != 1 {
        return Err(format!("{} connections instead of one", server.connections));
    }
    if server.bytes != client.bytes || !server.ended || !client.ended {
        return Err(format!("{} octets sent, {} arrived", client.bytes, server.bytes));
    }
    let after = server.bytes.saturating_sub(before);
    if after == 0 {
        return Err("nothing arrived after the move".to_owned());
    }
    Ok(format!("{} octets in order, {after} after the move, one connection", server.bytes))
}

/// Largest difference between observer and record that passes, in milliseconds.
pub(super) const AGREE_MS: f64 = 1.0;

/// Milliseconds from `from` to `to`, negative if `to` is earlier.
pub(super) fn between(from: u64, to: u64) -> f64 {
    if to >= from { ms(to - from) } else { -ms(from - to) }
}

/// PIT-02: an ARP request "who has `ask`", from a VM.
pub(super) fn arp_request(mac: [u8; 6], own: [u8; 4], ask: [u8; 4]) -> [u8; 60] {
    let mut f = [0; 60];
    f[..6].fill(0xff);
    f[6..12].copy_from_slice(&mac);
    f[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    f[22..28].copy_from_slice(&mac);
    f[28..32].copy_from_slice(&own);
    f[38..42].copy_from_slice(&ask);
    f
}

/// Whether a frame is the answer to that question.
pub(super) fn is_arp_answer(frame: &[u8], ask: [u8; 4]) -> bool {
    let kind = frame.get(12..14).map(|b| u16::from_be_bytes([b[0], b[1]]));
    kind == Some(ARP) && frame.get(20..22) == Some(&[0, 2]) && frame.get(28..32) == Some(&ask)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn row(vtep: usize, at: u64, master: bool, ip: Option<&str>) -> RowSeen {
        let ip = ip.map(|i| i.parse().unwrap());
        RowSeen { vtep, at, new: true, bridge: true, index: 5, mac: Some(MAC), ip, master }
    }

    fn frame(at: u64, outgoing: bool, kind: u16) -> FrameSeen {
        let (to, from) = if outgoing { (MAC, [9; 6]) } else { ([0xff; 6], MAC) };
        FrameSeen { tap: 1, at, outgoing, len: 60, kind, to, from, fragment: false }
    }

    #[test]
    fn a_gap_that_spans_the_move_counts_whole() {
        let arrivals = [(0, 10), (1, 11), (9, 41), (10, 42), (11, 92)];
        assert_eq!(longest_gap(&arrivals, 20, 30), Some(30));
        assert_eq!(longest_gap(&arrivals, 0, 11), Some(1));
        assert_eq!(longest_gap(&[], 0, 11), None);
    }

    #[test]
    fn the_old_site_is_right_when_both_its_rows_are() {
        let target = "10.0.0.3".parse().unwrap();
        let rows = [
            row(0, 5, false, Some("10.0.0.3")),
            row(0, 20, false, Some("10.0.0.2")),
            row(0, 30, false, Some("10.0.0.3")),
            row(0, 35, true, None),
            row(1, 25, false, Some("10.0.0.3")),
        ];
        assert_eq!(row_time(&rows, 0, 5, MAC, target, 10, true), Some(35));
        assert_eq!(row_time(&rows, 1, 5, MAC, target, 10, false), Some(25));
        assert_eq!(row_time(&rows, 1, 5, MAC, target, 10, true), None);
        assert_eq!(row_time(&rows, 1, 6, MAC, target, 10, false), None);
    }

    #[test]
    fn a_guest_that_speaks_before_it_is_served_noticed_the_move() {
        let quiet =
            [frame(5, false, ARP), frame(12, false, RARP), frame(20, true, 0x0800), frame(21, false, 0x0800)];
        assert_eq!(before_served(&quiet, 1, MAC, 10), Ok((1, 20)));
        let loud = [frame(12, false, RARP), frame(13, false, ARP), frame(20, true, 0x0800)];
        assert!(before_served(&loud, 1, MAC, 10).unwrap_err().contains("0x0806"));
        assert!(before_served(&quiet[..2], 1, MAC, 10).unwrap_err().contains("never served"));
        assert!(before_served(&quiet[2..], 1, MAC, 10).unwrap_err().contains("no announcement"));
    }

    #[test]
    fn tcp_is_judged_by_every_octet() {
        let server = ServerReport { bytes: 100, ended: true, connections: 1, ..ServerReport::default() };
        let client = ClientReport { bytes: 100, ended: true, ..ClientReport::default() };
        assert!(tcp(&server, &client, 40).unwrap().contains("60 after the move"));
        assert!(tcp(&server, &client, 100).is_err());
        assert!(tcp(&ServerReport { bytes: 99, ..server.clone() }, &client, 40).is_err());
        assert!(tcp(&ServerReport { wrong_at: Some(7), ..server.clone() }, &client, 40).is_err());
        assert!(tcp(&ServerReport { connections: 2, ..server }, &client, 40).is_err());
    }
}
