//! Steps of prepared moves in any order, at any node, while kernels stall and refuse, peers lag, sessions break and
//! daemons are killed: every step is answered once, and once all is called off nothing is left of it.

#![allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have

mod world;

use bytes::Bytes;
use evpn::fabric::Row;
use evpn::node::{Input, MoveStep, Reply};
use evpn::types::{IfIndex, Span};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use world::{P1, P2, VXLAN, World, frames, mac, vtep};

const NODES: usize = 3;

fn ip(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, n))
}

/// Gratuitous ARP request of the guest.
fn garp() -> Bytes {
    frames::garp(mac(1), Ipv4Addr::new(10, 1, 0, 1))
}

/// Something that happens. Node and port are small numbers, times are milliseconds.
#[derive(Clone, Debug)]
enum Happening {
    Prepare {
        node: usize,
        port: u8,
        timeout: Option<u64>,
    },
    Activate {
        node: usize,
        port: Option<u8>,
        timeout: Option<u64>,
    },
    Abort {
        node: usize,
    },
    Release {
        node: usize,
        timeout: Option<u64>,
    },
    Pass {
        ms: u64,
    },
    /// The kernel's answers wait, or come again.
    Stall {
        node: usize,
        on: bool,
    },
    /// The kernel refuses the guest's row on a port, or takes it again.
    Refuse {
        node: usize,
        on: bool,
    },
    /// One peer takes nothing, or takes everything again.
    Lag {
        node: usize,
        to: usize,
        on: bool,
    },
    Cut {
        a: usize,
        b: usize,
    },
    /// The bridge forgets the guest.
    Forget {
        node: usize,
    },
    Kill {
        node: usize,
    },
    /// The guest speaks.
    Speak {
        node: usize,
        port: u8,
    },
}

fn port_name(p: u8) -> String {
    format!("p{}", p + 1)
}

fn port_index(p: u8) -> IfIndex {
    if p == 0 { P1 } else { P2 }
}

/// `speaks`: the guest is heard anywhere, and not only where it lives.
fn happening(speaks: bool) -> impl Strategy<Value = Happening> {
    use Happening::{Abort, Activate, Cut, Forget, Kill, Lag, Pass, Prepare, Refuse, Release, Speak, Stall};
    let node = || 0..NODES;
    let timeout = || proptest::option::of(prop_oneof![Just(5u64), Just(500), Just(5_000)]);
    let spoken = if speaks { 0..NODES } else { 0..1 };
    prop_oneof![
        4 => (node(), 0..2u8, timeout()).prop_map(|(node, port, timeout)| Prepare { node, port, timeout }),
        6 => (node(), proptest::option::of(0..2u8), timeout())
            .prop_map(|(node, port, timeout)| Activate { node, port, timeout }),
        3 => node().prop_map(|node| Abort { node }),
        3 => (node(), timeout()).prop_map(|(node, timeout)| Release { node, timeout }),
        8 => prop_oneof![Just(1u64), Just(30), Just(700), Just(3_000)].prop_map(|ms| Pass { ms }),
        2 => (node(), any::<bool>()).prop_map(|(node, on)| Stall { node, on }),
        2 => (node(), any::<bool>()).prop_map(|(node, on)| Refuse { node, on }),
        2 => (node(), node(), any::<bool>()).prop_map(|(node, to, on)| Lag { node, to, on }),
        1 => (node(), node()).prop_map(|(a, b)| Cut { a, b }),
        2 => (1..NODES).prop_map(|node| Forget { node }),
        1 => node().prop_map(|node| Kill { node }),
        6 => (spoken, 0..2u8)
            .prop_map(move |(node, port)| Speak { node, port: if speaks { port } else { 0 } }),
    ]
}

struct Play {
    w: World,
    /// Steps that were asked for, unless their daemon was killed since.
    asked: Vec<(usize, u64)>,
}

impl Play {
    fn new() -> Self {
        let mut w = World::converged(NODES, Span::millis(1));
        w.frame(0, P1, mac(1), Some(garp()));
        w.run_for(Span::millis(10));
        Self { w, asked: Vec::new() }
    }

    fn step(&mut self, node: usize, ips: &[IpAddr], step: MoveStep) {
        let id = self.w.step(node, mac(1), ips, step);
        self.asked.push((node, id));
    }

    fn happen(&mut self, h: &Happening) {
        let span = |t: &Option<u64>| t.map(Span::millis);
        match h {
            Happening::Prepare { node, port, timeout } => {
                self.step(*node, &[], MoveStep::Prepare { port: port_name(*port), timeout: span(timeout) });
            }
            Happening::Activate { node, port, timeout } => {
                let step = MoveStep::Activate { port: port.map(port_name), timeout: span(timeout) };
                self.step(*node, &[ip(7)], step);
            }
            Happening::Abort { node } => self.step(*node, &[], MoveStep::Abort),
            Happening::Release { node, timeout } => {
                self.step(*node, &[], MoveStep::Release { timeout: span(timeout) });
            }
            Happening::Pass { ms } => self.w.run_for(Span::millis(*ms)),
            Happening::Stall { node, on } => self.stall(*node, *on),
            Happening::Refuse { node, on } => self.refuse(*node, *on),
            Happening::Lag { node, to, on } if *on => self.w.stall(*node, *to),
            Happening::Lag { node, to, .. } => self.w.unstall(*node, *to),
            Happening::Cut { a, b } => self.w.cut(*a, *b),
            // A row of our own that somebody deletes is the reconciler's business.
            Happening::Forget { node } if self.w.hosts[*node].fdb.get(&mac(1)) != Some(&VXLAN) => {
                self.w.forget(*node, mac(1));
            }
            Happening::Forget { .. } => {}
            Happening::Kill { node } => {
                self.stall(*node, false);
                for to in 0..NODES {
                    self.w.unstall(*node, to);
                }
                self.w.kill(*node);
                self.asked.retain(|(n, _)| n != node);
                self.w.start(*node, true);
            }
            Happening::Speak { node, port } => self.w.frame(*node, port_index(*port), mac(1), Some(garp())),
        }
    }

    fn stall(&mut self, node: usize, on: bool) {
        self.w.hosts[node].paused = on;
        if !on {
            self.poke(node);
        }
    }

    fn refuse(&mut self, node: usize, on: bool) {
        if on {
            self.w.hosts[node].refused.insert(mac(1));
        } else {
            self.w.hosts[node].refused.clear();
        }
    }

    /// Has a node look at what waits to be written.
    fn poke(&mut self, node: usize) {
        let unix = self.w.now.0 / 1_000_000_000;
        self.w.input(node, Input::Wall { unix });
    }

    /// Everything that was broken works again, all moves are called off, and all sessions are up.
    fn calm(&mut self) {
        for node in 0..NODES {
            self.stall(node, false);
            self.refuse(node, false);
            for to in 0..NODES {
                self.w.unstall(node, to);
            }
        }
        for _ in 0..2 {
            for node in 0..NODES {
                self.step(node, &[], MoveStep::Abort);
            }
            self.w.run_for(Span::secs(2));
        }
        // A connection that was cut while it came up is noticed by its hold time only.
        for _ in 0..60 {
            if (0..NODES).all(|i| self.w.status(i).converged) {
                return;
            }
            self.w.run_for(Span::secs(5));
        }
    }

    /// The guest at this port says that it is there, as a live one does now and then.
    fn live_at(&mut self, node: usize, port: IfIndex, secs: u64) {
        for _ in 0..secs {
            self.w.frame(node, port, mac(1), Some(garp()));
            self.w.run_for(Span::secs(1));
        }
    }

    fn check_answers(&self) -> Result<(), TestCaseError> {
        for (node, id) in &self.asked {
            let answer = self.w.hosts[*node].answers.get(id);
            prop_assert!(
                matches!(answer, Some(Reply::Move(_) | Reply::MoveRefused { .. })),
                "step {} at node {}: {:?}",
                id,
                node,
                answer
            );
        }
        Ok(())
    }

    /// One owner, and everybody knows.
    fn check_owner(&self, owner: usize, port: IfIndex) -> Result<(), TestCaseError> {
        for i in 0..NODES {
            let row = self.w.mac_row(i, mac(1));
            let place = self.w.hosts[i].fdb.get(&mac(1)).copied();
            if i == owner {
                prop_assert_eq!(place, Some(port), "node {}, its own guest", i);
                prop_assert!(matches!(row, None | Some(Row::Local { .. })), "node {}: {:?}", i, row);
            } else {
                prop_assert_eq!(
                    row,
                    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(owner), sticky: false }),
                    "node {}",
                    i
                );
                prop_assert_eq!(place, Some(VXLAN), "node {}", i);
                let answer = self.w.neigh_row(i, ip(1));
                prop_assert_eq!(answer, Some(Row::Neigh { mac: mac(1), router: false }), "node {}", i);
            }
            let wants = self.w.hosts[i].node.want();
            let cleared = wants.iter().filter(|(_, r)| matches!(r, Row::Cleared { .. })).count();
            prop_assert_eq!(cleared, 0, "node {}", i);
        }
        Ok(())
    }
}

fn cases() -> u32 {
    std::env::var("VTEPD_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// The guest never leaves: nothing of all the steps is left at the other nodes once they are called off.
    #[test]
    fn what_is_called_off_leaves_no_trace(script in proptest::collection::vec(happening(false), 1..40)) {
        let mut p = Play::new();
        for h in &script {
            p.happen(h);
        }
        p.calm();
        // Timeouts of what a killed daemon had activated, and connect-retry.
        p.live_at(0, P1, 12);
        p.check_answers()?;
        p.check_owner(0, P1)?;
        // And no timer of all that comes back to it.
        p.w.run_for(Span::secs(90));
        p.live_at(0, P1, 2);
        p.check_owner(0, P1)?;
    }

    /// The guest speaks here and there meanwhile; in the end everybody knows where it is.
    #[test]
    fn the_guest_is_found_wherever_it_ends(
        script in proptest::collection::vec(happening(true), 1..40), node in 0..NODES, port in 0..2u8,
    ) {
        let mut p = Play::new();
        for h in &script {
            p.happen(h);
        }
        p.calm();
        // Releases where the guest has been heard since are not called off by an abort.
        p.w.run_for(Span::secs(70));
        p.live_at(node, port_index(port), 12);
        p.check_answers()?;
        p.check_owner(node, port_index(port))?;
        p.w.run_for(Span::secs(90));
        p.live_at(node, port_index(port), 2);
        p.check_owner(node, port_index(port))?;
    }
}
