//! Ports that make MACs up, on a thread of its own: writing the filter of such a port takes the kernel milliseconds, and
//! counting what it drops is never urgent.

use super::worker::{Job, Outbox, Worker};
use evpn::node::{GuardChange, GuardNews};
use evpn::types::{IfIndex, Mac};
use netlink::linux::FloodGuard;
use std::collections::BTreeMap;
use std::io;

/// The core's end of the thread.
pub(super) type Guards = Worker<PortGuard>;

/// What is to become of a port, since the thread last looked. What comes meanwhile is one thing for each MAC, however
/// often it changes.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Guarded from now on, with these; or not any more.
    anew: Option<Option<(String, Vec<Mac>)>>,
    /// Whether they come in.
    macs: BTreeMap<Mac, bool>,
}

impl Order {
    /// This, too.
    pub(super) fn add(&mut self, change: GuardChange) {
        match change {
            GuardChange::On { device, allowed } => {
                *self = Self { anew: Some(Some((device, allowed))), macs: BTreeMap::new() };
            }
            GuardChange::Off => *self = Self { anew: Some(None), macs: BTreeMap::new() },
            GuardChange::Macs { add, remove } => {
                self.macs.extend(add.into_iter().map(|m| (m, true)));
                self.macs.extend(remove.into_iter().map(|m| (m, false)));
            }
        }
    }
}

/// What the thread holds: the filter, while a port is guarded.
#[derive(Debug, Default)]
pub(super) struct PortGuard(Option<FloodGuard>);

impl Job for PortGuard {
    const NAME: &'static str = "guards";
    type Order = Order;
    type News = GuardNews;

    fn obey(&mut self, orders: BTreeMap<IfIndex, Order>, out: &mut Outbox<GuardNews>) {
        for (port, order) in orders {
            self.obey_one(port, order, out);
        }
    }

    fn count(&mut self, out: &mut Outbox<GuardNews>) {
        let Some(f) = &mut self.0 else { return };
        for port in f.ports().collect::<Vec<_>>() {
            if let Ok(n) = f.dropped(port) {
                out.may_say(port, GuardNews::Dropped(n));
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    fn refused(e: &io::Error) -> GuardNews {
        GuardNews::Refused(format!("{e}; load nf_tables with its netdev family, or set `flood-guard = 0`"))
    }
}

impl PortGuard {
    fn obey_one(&mut self, port: IfIndex, order: Order, out: &mut Outbox<GuardNews>) {
        match order.anew {
            Some(Some((device, allowed))) => {
                let done = self.guard(port, &device, &allowed);
                out.say(port, done.map_or_else(|e| Self::refused(&e), |()| GuardNews::On));
            }
            Some(None) => {
                if let Some(f) = &mut self.0 {
                    f.open(port);
                }
            }
            None => {}
        }
        let of = |come_in| order.macs.iter().filter(move |(_, c)| **c == come_in).map(|(m, _)| *m);
        let (add, remove): (Vec<Mac>, Vec<Mac>) = (of(true).collect(), of(false).collect());
        if let Some(f) = &mut self.0
            && let Err(e) = f.allow(port, &add, &remove)
        {
            // Better all than not even those that are known.
            f.open(port);
            out.say(port, Self::refused(&e));
        }
        if self.0.as_ref().is_some_and(|f| f.ports().next().is_none()) {
            self.0 = None;
        }
    }

    fn guard(&mut self, port: IfIndex, device: &str, allowed: &[Mac]) -> io::Result<()> {
        if self.0.is_none() {
            self.0 = Some(FloodGuard::install()?);
        }
        self.0.as_mut().map_or(Ok(()), |f| f.guard(port, device, allowed))
    }
}
