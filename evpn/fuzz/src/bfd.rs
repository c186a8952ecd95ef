//! BFD sessions fed by anybody: what the target `bfd` does with its input.
//!
//! The input is a row of steps, each an octet that chooses and what it takes: a datagram (its length in an octet, then
//! its octets), from one of two neighbours or a stranger; a while; an operator's word.

use evpn::bfd::{Arrival, Config, Hops, Output, Packet, Path, State, Table};
use evpn::types::{PeerId, Span, Time};
use std::net::IpAddr;

/// Steps in one input.
const STEPS: usize = 400;

fn path(n: u32) -> Path {
    let hops = if n == 0 { Hops::Single } else { Hops::Multi { min_ttl: 200 } };
    Path { peer: IpAddr::from([10, 0, 0, n as u8]), scope: 0, hops }
}

/// Steps of an input on two sessions. Nothing is sent but sound packets of ours, no faster than one per step and timer; a
/// datagram that is refused changes nothing; every timer moves on.
pub fn bfd(data: &[u8]) {
    let mut rest = data;
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n.min(rest.len()));
        rest = tail;
        head
    };
    let mut table = Table::new(u64::from(take(1).first().copied().unwrap_or(0)));
    let mut now = Time(0);
    let mut out = Vec::new();
    for n in 0..2 {
        let config = Config { desired_tx: Span::millis(50), required_rx: Span::millis(50), multiplier: 3 };
        table.set(PeerId(n), path(n), config, now, &mut out);
    }
    for _ in 0..STEPS {
        let [step] = take(1) else { break };
        out.clear();
        let id = PeerId(u32::from(step >> 3 & 1));
        match step & 7 {
            0..=3 => {
                let len = usize::from(take(1).first().copied().unwrap_or(0)).min(64);
                let mut octets = take(len).to_vec();
                // With luck alone nobody finds a discriminator.
                if step & 7 == 1
                    && let (Some(word), Some((_, s))) = (octets.get_mut(8..12), table.get(id))
                {
                    word.copy_from_slice(&s.discriminators().0.to_be_bytes());
                }
                let arrival = Arrival {
                    from: if step & 0x40 == 0 { path(id.0).peer } else { [192, 0, 2, 1].into() },
                    scope: 0,
                    multihop: (id.0 == 1) != (step & 0x20 != 0),
                    ttl: Some(if step & 0x10 == 0 { 255 } else { 1 }),
                };
                let before: Vec<_> = states(&table);
                match table.receive(&arrival, &octets, now, &mut out) {
                    Ok(()) => assert!(Packet::decode(&octets).is_ok(), "taken: {octets:?}"),
                    Err(why) => {
                        assert!(out.is_empty() && states(&table) == before, "{why}");
                    }
                }
                // The answer, or what tells of a change.
                assert!(out.iter().filter(|o| matches!(o, Output::Send(..))).count() <= 1);
            }
            4 => now = now + Span::millis(u64::from(take(1).first().copied().unwrap_or(1))),
            5 => now = table.poll_timeout().unwrap_or(now).max(now),
            6 => table.disable(id, now, &mut out),
            _ => {
                let ms = u64::from(take(1).first().copied().unwrap_or(0)) + 1;
                let config = Config {
                    desired_tx: Span::millis(ms),
                    required_rx: Span::millis(ms * 2),
                    multiplier: (step >> 4).max(1),
                };
                table.set(id, path(id.0), config, now, &mut out);
            }
        }
        table.due(now, &mut out);
        assert!(table.poll_timeout().is_none_or(|t| t > now), "a timer in the past");
        for o in &out {
            let Output::Send(id, octets) = o else { continue };
            let Ok(p) = Packet::decode(octets) else { panic!("we sent {octets:?}") };
            assert_eq!(Some(p.my), table.get(*id).map(|(_, s)| s.discriminators().0));
            assert!(!p.demand && (!p.poll || !p.finale));
            assert!(p.state == State::Up || p.desired_tx >= Span::secs(1));
        }
    }
}

fn states(table: &Table) -> Vec<(State, u64, (u32, u32))> {
    table.iter().map(|(_, _, s)| (s.state(), s.stats().received, s.discriminators())).collect()
}
