//! The API's requests on the core's side: numbered, handed to the node, answered. What only the driver knows
//! (what the kernel holds, what is wrong with devices) is added to the node's answer here.

use crate::api::core::{CoreEnd, EventLine, Request};
use crate::driver::clock;
use crate::state::Keeper;
use evpn::node::view::{AnsweredBy, HostView, KernelView, Rows, WhyView};
use evpn::node::{Event, Input, Reply};
use evpn::types::{IfIndex, Mac, Time};
use netlink::Mirror;
use netlink::setup::DeviceProblem;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Requests per turn.
const BUDGET: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Requests {
    end: CoreEnd,
    waiting: BTreeMap<u64, oneshot::Sender<Reply>>,
    next: u64,
    /// What to add to boot-clock time for milliseconds since 1970.
    wall_offset_ms: u64,
}

impl Requests {
    pub(super) fn new(end: CoreEnd) -> Self {
        let mut r = Self { end, waiting: BTreeMap::new(), next: 1, wall_offset_ms: 0 };
        r.set_wall();
        r
    }

    /// Reads the wall clock anew; somebody may have set it.
    pub(super) fn set_wall(&mut self) {
        let now = clock::now();
        self.wall_offset_ms = crate::api::core::unix_ms(now).saturating_sub(now.0 / 1_000_000);
    }

    /// Takes in requests up to the budget, as inputs. Returns whether there were any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<Input>) -> bool {
        for n in 0..BUDGET {
            match self.end.requests.poll_recv(cx) {
                Poll::Ready(Some(Request { command, reply })) => {
                    let id = self.next;
                    self.next += 1;
                    self.waiting.insert(id, reply);
                    out.push(Input::Command { id, command });
                }
                Poll::Ready(None) | Poll::Pending => return n > 0,
            }
        }
        true
    }

    /// Hands an answer over. The asker may have gone.
    pub(super) fn answer(
        &mut self,
        id: u64,
        mut reply: Reply,
        mirror: &Mirror,
        problems: &[DeviceProblem],
        counters: &[(&'static str, u64)],
    ) {
        let Some(to) = self.waiting.remove(&id) else { return };
        if let Reply::Page(page) = &mut reply {
            match &mut page.rows {
                Rows::Kernel(rows) => rows.iter_mut().for_each(|r| r.has = held(mirror, r)),
                Rows::Vnis(rows) => {
                    for row in rows {
                        let devices = [&row.bridge, &row.vxlan].into_iter().chain(&row.ports);
                        let names: Vec<String> = devices.cloned().collect();
                        let of_it = problems.iter().filter(|p| names.contains(&p.device));
                        row.problems.extend(of_it.map(|p| format!("{}: {}", p.device, p.problem)));
                        row.problems.dedup();
                    }
                }
                Rows::Status(rows) => {
                    for row in rows {
                        let named = |(name, n): &(&'static str, u64)| ((*name).to_owned(), *n);
                        let can_fall = |(name, _): &&(&'static str, u64)| Keeper::GAUGES.contains(name);
                        row.counters.extend(counters.iter().map(named));
                        row.gauges.extend(counters.iter().filter(can_fall).map(named));
                    }
                }
                Rows::Hosts(rows) => rows.iter_mut().for_each(|r| rows_say(mirror, r)),
                Rows::Neighbors(_)
                | Rows::Macs(_)
                | Rows::Routes(_)
                | Rows::Moves(_)
                | Rows::Duplicates(_) => {}
            }
        }
        if let Reply::Why(why) = &mut reply {
            why.kernel.iter_mut().for_each(|r| r.has = held(mirror, r));
            explain(mirror, why);
        }
        let _ = to.send(reply);
    }

    /// Tells the watchers, if there are any. Never waits: who is behind loses events.
    pub(super) fn publish(&self, at: Time, n: u64, event: &Event) {
        if self.end.events.receiver_count() > 0 {
            let unix_ms = self.wall_offset_ms + at.0 / 1_000_000;
            let _ = self.end.events.send(Arc::new(EventLine { n, at, unix_ms, event: event.clone() }));
        }
    }
}

/// The kernel answers what its rows say, whatever is wanted (PIT-20).
fn rows_say(mirror: &Mirror, host: &mut HostView) {
    let has = answers_with(mirror, &host.bridge, host.ip);
    if let Some((by, why)) = answered(has, host.mac, host.answered_by) {
        (host.answered_by, host.answered_why) = (by, why);
    }
}

/// The same for the binding that `why ip` explains; its sentence follows.
fn explain(mirror: &Mirror, why: &mut WhyView) {
    let (Some(b), Some(ip)) = (&mut why.binding, why.ip) else { return };
    let Some(device) = why.kernel.iter().find(|k| k.kind == "neigh").map(|k| &k.device) else { return };
    let has = answers_with(mirror, device, ip);
    if let Some((by, text)) = answered(has, b.mac, b.answered_by) {
        let wrong = b.answered();
        (b.answered_by, b.answered_why) = (by, text);
        for s in why.because.iter_mut().filter(|s| **s == wrong) {
            *s = b.answered();
        }
    }
}

/// The MAC that the kernel answers with: that of a row of ours whose forwarding row leads into the overlay. With a row on a
/// port, as routing needs it for local hosts, or with none, it is silent (PROXY-REPLY-02).
fn answers_with(mirror: &Mirror, bridge: &str, ip: IpAddr) -> Option<Mac> {
    let dev = mirror.link_by_name(bridge)?.index;
    let mac = mirror.neigh_row(dev, ip).filter(|r| r.is_ours())?.mac?;
    mirror.bridge_row(dev, mac).filter(|r| mirror.manages_vxlan(r.port)).map(|_| mac)
}

/// Who answers, if the kernel's rows make it another than was thought.
fn answered(has: Option<Mac>, mac: Mac, thought: AnsweredBy) -> Option<(AnsweredBy, String)> {
    match (thought, has) {
        (AnsweredBy::Kernel, None) => Some((AnsweredBy::Owner, "the kernel has lost a row of it".into())),
        (AnsweredBy::Kernel, Some(m)) if m != mac => {
            Some((AnsweredBy::Kernel, format!("its row says {m}, not {mac}")))
        }
        (AnsweredBy::Owner | AnsweredBy::Nobody, Some(m)) => {
            Some((AnsweredBy::Kernel, format!("it has a row that says {m}, which is not wanted any more")))
        }
        (AnsweredBy::Kernel, Some(_)) | (AnsweredBy::Owner | AnsweredBy::Nobody, None) => None,
    }
}

/// What the kernel holds for a wanted row, in the words of [`KernelView::want`].
fn held(mirror: &Mirror, row: &KernelView) -> Option<String> {
    let dev = mirror.link_by_name(&row.device)?.index;
    match row.kind.as_str() {
        "mac" => mac_held(mirror, dev, row.key.parse().ok()?),
        "flood" => mirror.flood_row(dev, row.key.parse().ok()?).map(|_| "replicate".to_owned()),
        "neigh" => {
            let neigh = mirror.neigh_row(dev, row.key.parse().ok()?)?;
            let mac = neigh.mac.map_or_else(|| "-".to_owned(), |m| m.to_string());
            Some(if neigh.router { format!("{mac} router") } else { mac })
        }
        _ => None,
    }
}

/// Where the bridge sends frames for a MAC, and if that is the VXLAN device, to whom it sends them.
fn mac_held(mirror: &Mirror, bridge: IfIndex, mac: Mac) -> Option<String> {
    let row = mirror.bridge_row(bridge, mac)?;
    let port = mirror.name(row.port);
    if !mirror.manages_vxlan(row.port) {
        return Some(format!("{port} local"));
    }
    let sticky = if row.sticky() { " sticky" } else { "" };
    Some(match mirror.self_row(row.port, mac).and_then(|s| s.vtep) {
        Some(vtep) => format!("{port} to {vtep}{sticky}"),
        None => format!("{port} without a destination"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn the_kernels_rows_have_the_last_word_on_who_answers() {
        use AnsweredBy::{Kernel, Nobody, Owner};
        let of = |has, thought| answered(has, MAC, thought).map(|(by, _)| by);
        assert_eq!(of(Some(MAC), Kernel), None);
        assert_eq!(of(None, Kernel), Some(Owner));
        assert_eq!(of(Some(OTHER), Kernel), Some(Kernel));
        let wrong = answered(Some(OTHER), MAC, Kernel).map(|(_, why)| why);
        assert!(wrong.is_some_and(|why| why.contains("says 02:00:00:00:00:02")));
        assert_eq!((of(None, Owner), of(None, Nobody)), (None, None));
        assert_eq!((of(Some(MAC), Owner), of(Some(OTHER), Nobody)), (Some(Kernel), Some(Kernel)));
    }
}
