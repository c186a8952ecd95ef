//! What ports drop where it comes in (PIT-10), on a thread of its own: writing rules takes the kernel milliseconds, and
//! counting what they drop is never urgent.

use super::worker::{Job, Outbox, Worker};
use evpn::node::{PortDrops, PortNews, PortRules};
use evpn::types::IfIndex;
use netlink::linux::IngressRules;
use std::collections::BTreeMap;
use std::io;

/// Devices in one message to the kernel, which takes some 200 KB at once.
const AT_ONCE: usize = 64;

/// The core's end of the thread. An order is the latest wish for a device, by its name.
pub(super) type Rules = Worker<PortFilter>;

/// What the thread holds.
#[derive(Debug, Default)]
pub(super) struct PortFilter {
    /// There while a device has rules.
    filter: Option<IngressRules>,
    /// What was last told of each.
    told: BTreeMap<IfIndex, PortDrops>,
}

impl Job for PortFilter {
    const NAME: &'static str = "port-rules";
    type Order = (String, PortRules);
    type News = PortNews;

    fn obey(&mut self, orders: BTreeMap<IfIndex, Self::Order>, out: &mut Outbox<PortNews>) {
        let wants: Vec<_> = orders.into_iter().map(|(port, (device, rules))| (port, device, rules)).collect();
        for some in wants.chunks(AT_ONCE) {
            self.write(some, out);
        }
    }

    fn count(&mut self, out: &mut Outbox<PortNews>) {
        let Some(drops) = self.filter.as_mut().and_then(|f| f.drops().ok()) else { return };
        for (port, n) in drops {
            if self.told.get(&port).copied().unwrap_or_default() != n
                && out.may_say(port, PortNews::Dropped(n))
            {
                self.told.insert(port, n);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.filter.is_none()
    }

    fn refused(e: &io::Error) -> PortNews {
        PortNews::Refused(format!(
            "{e}; load nf_tables with its netdev family (what does not go out of the VXLAN device takes Linux 5.16), or set \
             `tagged = \"transparent\"` and leave out `storm-limits`"
        ))
    }
}

impl PortFilter {
    fn write(&mut self, wants: &[(IfIndex, String, PortRules)], out: &mut Outbox<PortNews>) {
        if self.filter.is_none() {
            match IngressRules::install() {
                Ok(f) => self.filter = Some(f),
                Err(e) => {
                    for (port, ..) in wants.iter().filter(|(.., r)| !r.is_empty()) {
                        out.say(*port, Self::refused(&e));
                    }
                    return;
                }
            }
        }
        let Some(f) = &mut self.filter else { return };
        let ended = f.set(wants);
        if f.is_empty() {
            self.filter = None;
        }
        for (port, ..) in wants {
            self.told.remove(port);
        }
        for (port, done) in ended {
            out.say(port, done.map_or_else(|e| Self::refused(&e), |()| PortNews::On));
        }
    }
}
