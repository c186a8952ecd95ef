//! Hold ports: what arrives for guests that stand still is kept, sent on and given back as the node says (PIT-26). Each
//! port is drained with a budget, so that nobody who sends to such a guest holds up the core.

use super::clock;
use super::watch::Watch;
use evpn::node::{Held, HoldWord, MobilityConfig};
use evpn::types::{IfIndex, Mac, Span, Time, Vni};
use netlink::linux::{HoldPort, LONGEST_FRAME, Tap};
use netlink::shelf::{Shelf, ShelfLimits};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::task::Context;

/// Frames of one port per turn.
const BUDGET: usize = 64;
/// After its row has gone elsewhere, frames that were on their way to the hold port still come out of it for so long.
const LINGER: Span = Span::millis(100);
/// What all guests together may have waiting, as a multiple of what one may.
const ALL: usize = 16;

/// Fields in the order of their end: the watch goes before the descriptor.
#[derive(Debug)]
struct Open {
    watch: Watch,
    port: HoldPort,
    shelf: Shelf,
    macs: BTreeMap<Mac, Mode>,
}

#[derive(Debug)]
struct Mode {
    word: HoldWord,
    /// The way out of the VXLAN device.
    out: Option<Tap>,
    held: Held,
    /// When it is forgotten.
    until: Option<Time>,
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
        let shelf = Shelf::new(self.limits);
        self.ports.insert(vni, Open { watch, port, shelf, macs: BTreeMap::new() });
        Ok(index)
    }

    /// Lets a port go, with all that waits.
    pub(super) fn remove(&mut self, vni: Vni) {
        self.ports.remove(&vni);
    }

    /// What is to become of a MAC's frames.
    pub(super) fn word(&mut self, port: IfIndex, mac: Mac, word: HoldWord) {
        let Some(o) = self.ports.values_mut().find(|o| o.port.port() == port) else { return };
        let mode = Mode { word, out: None, held: Held::default(), until: None };
        let m = o.macs.entry(mac).or_insert(mode);
        (m.word, m.until) = (word, None);
        match word {
            HoldWord::Keep => return,
            HoldWord::Relay(vxlan) => {
                m.out = HoldPort::way_out(vxlan)
                    .inspect_err(|e| tracing::warn!(%mac, error = %e, "cannot send on what is held"))
                    .ok();
            }
            HoldWord::Return => m.until = Some(clock::now() + LINGER),
        }
        for frame in o.shelf.take(mac) {
            match m.send(&o.port, &frame) {
                Ok(()) => m.held.kept += 1,
                Err(_) => m.held.dropped += 1,
            }
        }
    }

    /// Takes in frames up to the budget, and hands out what became of MACs that are forgotten. Returns whether there were
    /// any frames, or more wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, ended: &mut Vec<(IfIndex, Mac, Held)>) -> bool {
        let mut busy = false;
        let mut gone = Vec::new();
        for (vni, o) in &mut self.ports {
            if o.watch.is_ready(cx) {
                busy = true;
                for _ in 0..BUDGET {
                    match o.port.recv(&mut self.buf) {
                        Ok(Some(n)) => {
                            if let Some(frame) = self.buf.get(..n) {
                                o.take_in(frame);
                            }
                        }
                        Ok(None) if o.watch.drained(cx) => break,
                        Ok(None) => {}
                        Err(e) => {
                            tracing::debug!(%vni, error = %e, "a hold port failed");
                            gone.push(*vni);
                            break;
                        }
                    }
                }
            }
            let over = |m: &Mode| m.until.is_some_and(|t| t <= clock::now());
            let port = o.port.port();
            o.macs.retain(|mac, m| {
                let over = over(m);
                if over {
                    ended.push((port, *mac, m.held));
                }
                !over
            });
        }
        for vni in gone {
            self.ports.remove(&vni);
        }
        busy
    }

    /// When a MAC is to be forgotten next.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.ports.values().flat_map(|o| o.macs.values()).filter_map(|m| m.until).min()
    }
}

impl Mode {
    fn send(&self, port: &HoldPort, frame: &[u8]) -> io::Result<()> {
        match (self.word, &self.out) {
            (HoldWord::Relay(_), Some(out)) => out.send(frame),
            (HoldWord::Relay(_), None) => Err(io::ErrorKind::NotConnected.into()),
            (HoldWord::Keep | HoldWord::Return, _) => port.give_back(frame),
        }
    }
}

impl Open {
    fn take_in(&mut self, frame: &[u8]) {
        let Some(mac) = frame.first_chunk::<6>().map(|m| Mac(*m)) else { return };
        // Nothing else is meant for this port: what the bridge itself says to all its ports, for instance.
        let Some(m) = self.macs.get_mut(&mac) else { return };
        match m.word {
            HoldWord::Keep => m.held.dropped += u64::from(!self.shelf.keep(mac, frame)),
            HoldWord::Relay(_) | HoldWord::Return => match m.send(&self.port, frame) {
                Ok(()) => m.held.relayed += 1,
                Err(_) => m.held.dropped += 1,
            },
        }
    }
}
