//! Hold ports: what arrives for guests that stand still is kept, sent on and given back as the node says (PIT-26). Each
//! port is drained, and what was kept is handed out, with a budget: neither who sends to such a guest nor what waits for it
//! holds up the core.

use super::clock;
use super::desk::{Desk, Mode};
use super::watch::Watch;
use evpn::node::{Held, HoldWord, MobilityConfig};
use evpn::types::{IfIndex, Mac, Time, Vni};
use netlink::linux::{HoldPort, LONGEST_FRAME, Tap};
use netlink::shelf::ShelfLimits;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::task::Context;

/// Frames of one port per turn, in and out.
const BUDGET: usize = 64;
/// What all guests together may have waiting, as a multiple of what one may.
const ALL: usize = 16;

/// Fields in the order of their end: the watch goes before the descriptor.
#[derive(Debug)]
struct Open {
    watch: Watch,
    port: HoldPort,
    desk: Desk<Tap>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Holds {
    ports: BTreeMap<Vni, Open>,
    limits: ShelfLimits,
    buf: Vec<u8>,
}

impl Holds {
    /// With the limits of the configuration.
    pub(super) fn new(config: &MobilityConfig) -> Self {
        let octets = config.hold_octets as usize;
        let limits = ShelfLimits { frames: config.hold_frames as usize, octets, all: ALL * octets };
        Self { ports: BTreeMap::new(), limits, buf: vec![0; LONGEST_FRAME] }
    }

    /// Takes a port over; its index.
    pub(super) fn add(&mut self, vni: Vni, port: HoldPort) -> io::Result<IfIndex> {
        let watch = Watch::new(port.as_raw_fd())?;
        let index = port.port();
        self.ports.insert(vni, Open { watch, port, desk: Desk::new(self.limits) });
        Ok(index)
    }

    /// Lets a port go, with all that waits.
    pub(super) fn remove(&mut self, vni: Vni) {
        self.ports.remove(&vni);
    }

    /// What is to become of a MAC's frames. The first of those that wait go at once.
    pub(super) fn word(&mut self, port: IfIndex, mac: Mac, word: HoldWord) {
        let Some(o) = self.ports.values_mut().find(|o| o.port.port() == port) else { return };
        let out = match word {
            HoldWord::Relay(vxlan) => HoldPort::way_out(vxlan)
                .inspect_err(|e| tracing::warn!(%mac, error = %e, "cannot send on what is held"))
                .ok(),
            HoldWord::Keep | HoldWord::Return => None,
        };
        o.desk.word(mac, word, out);
        let port = &o.port;
        o.desk.hand_out(BUDGET, clock::now(), |m, frame| send(port, m, frame));
    }

    /// Takes in frames up to the budget, sends as many of those that wait, and hands out what became of MACs that are
    /// forgotten. Returns whether there were any frames, or more wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, ended: &mut Vec<(IfIndex, Mac, Held)>) -> bool {
        let mut busy = false;
        let mut gone = Vec::new();
        for (vni, Open { watch, port, desk }) in &mut self.ports {
            let send = |m: &Mode<Tap>, frame: &[u8]| send(port, m, frame);
            if watch.is_ready(cx) {
                busy = true;
                for _ in 0..BUDGET {
                    match port.recv(&mut self.buf) {
                        Ok(Some(n)) => {
                            if let Some(frame) = self.buf.get(..n) {
                                desk.take_in(frame, send);
                            }
                        }
                        Ok(None) if watch.drained(cx) => break,
                        Ok(None) => {}
                        Err(e) => {
                            tracing::debug!(%vni, error = %e, "a hold port failed");
                            gone.push(*vni);
                            break;
                        }
                    }
                }
            }
            let now = clock::now();
            busy |= desk.hand_out(BUDGET, now, send);
            desk.over(now, |mac, held| ended.push((port.port(), mac, held)));
        }
        for vni in gone {
            self.ports.remove(&vni);
        }
        busy
    }

    /// When a MAC is to be forgotten next.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.ports.values().filter_map(|o| o.desk.deadline()).min()
    }
}

/// Sends a frame of a MAC as the node has said.
fn send(port: &HoldPort, m: &Mode<Tap>, frame: &[u8]) -> io::Result<()> {
    match (m.word, &m.out) {
        (HoldWord::Relay(_), Some(out)) => out.send(frame),
        (HoldWord::Relay(_), None) => Err(io::ErrorKind::NotConnected.into()),
        (HoldWord::Keep | HoldWord::Return, _) => port.give_back(frame),
    }
}
