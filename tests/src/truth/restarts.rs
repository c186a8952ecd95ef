//! Daemons that are started again, one after the other: ended in order, or killed.

use super::judge::Outage;
use super::world::{VTEPS, World};
use super::{Plan, Shared, lock, pause};
use crate::packet::now;
use crate::poll::{LATER, eventually, same};
use crate::vtepd::Vtepd;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What was said last has been heard by then.
const HEARD: Duration = Duration::from_millis(300);

pub(super) fn run(
    world: &World,
    daemons: Vec<Vtepd>,
    plan: &Plan,
    shared: &Mutex<Shared>,
    stop: &AtomicBool,
) {
    let mut daemons: Vec<_> = daemons.into_iter().map(Some).collect();
    let mut turn = 0;
    while pause(stop, plan.restart) {
        let vtep = turn % VTEPS;
        lock(shared).away.insert(vtep);
        std::thread::sleep(HEARD);
        lock(shared).ledger.outages.push(Outage { vtep, from: now(), to: u64::MAX });
        let (v, conf) = (&world.fabric.vteps[vtep], &world.confs[vtep]);
        let old = daemons[vtep].take().expect("all run");
        let kill = turn % 2 == 1;
        let dir = if kill { old.kill() } else { old.stop() };
        daemons[vtep] = Some(Vtepd::start_again(&v.ns, conf, dir));
        for (v, d) in world.fabric.vteps.iter().zip(&daemons) {
            d.as_ref().expect("all run").converge();
            eventually(LATER, "everybody floods to everybody", || same(v.flood_list(100).len(), VTEPS - 1));
        }
        let mut s = lock(shared);
        s.away.remove(&vtep);
        if let Some(o) = s.ledger.outages.last_mut() {
            o.to = now();
        }
        s.count(if kill { "daemon killed" } else { "daemon started again" });
        drop(s);
        turn += 1;
    }
}
