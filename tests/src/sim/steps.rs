//! What the steps of a plan do to guests, kernels, daemons and paths.

use super::frr::is_frr;
use super::guest::Place;
use super::plan::{By, What};
use super::truth::MacTruth;
use super::world::{Ev, Fault, World};
use evpn::fabric::BridgeFdb;
use evpn::types::{Mac, Span, Time};
use netlink::op::{Kernel as _, Op};
use std::net::IpAddr;

impl World {
    pub(super) fn step(&mut self, n: usize) {
        let what = self.plan.steps[n].what;
        if self.is_nowhere(&what) {
            return;
        }
        let nodes = self.vteps.len();
        if self.trace.is_some() {
            self.note(&format!("step {what:?}"));
        }
        self.act_until(Span::ZERO);
        match what {
            What::Start { guest, node, by } => {
                if self.vms[guest].here.is_none() {
                    let by = self.said_by(guest, by, true);
                    self.boots(guest, Place { node, slot: guest }, by);
                }
            }
            What::Hot { guest, node, by, late, over, unplug } => {
                let by = self.said_by(guest, by, false);
                self.hot(guest, node, by, late, Span::micros(over), unplug);
            }
            What::Cold { guest, node, by, gap, unplug } => {
                self.leave(guest, unplug);
                self.act_until(Span::micros(gap));
                let by = self.said_by(guest, by, true);
                self.push(Span::micros(gap), Ev::Begin(guest, Place { node, slot: guest }, by));
            }
            What::Remac { guest, node, by, gap, unplug } => {
                self.leave(guest, unplug);
                self.vms[guest].change_mac();
                let mac = self.vms[guest].mac;
                self.macs.insert(mac, MacTruth { guest, ..MacTruth::default() });
                self.act_until(Span::micros(gap));
                let by = self.said_by(guest, by, true);
                self.push(Span::micros(gap), Ev::Begin(guest, Place { node, slot: guest }, by));
            }
            What::Prepared { guest, node, lead, .. } | What::CalledOff { guest, node, lead, .. } => {
                self.prepare(n, guest, node, Span::micros(lead));
            }
            What::NewIp { guest } => self.new_ip(guest),
            What::TakeIp { guest, from } => self.take_ip(guest, from),
            What::Port { guest, by } => self.other_port(guest, self.said_by(guest, by, false)),
            What::Say { guest, by } => {
                if let Some(at) = self.vms[guest].here {
                    self.announce(guest, at, self.said_in_between(guest, by));
                }
            }
            What::Ask { guest, other } => self.ask(guest, other),
            What::Talk { guest, other } => self.talk(guest, other),
            What::Stop { guest, unplug } => self.leave(guest, unplug),
            What::Split { guest, node, time, first } => self.split(guest, node, Span::micros(time), first),
            What::Reset { a, b } => {
                self.upsets += 1;
                self.strays(|n| n == a || n == b || a.max(b) >= nodes);
                self.reset(a, b);
            }
            What::Cut { a, b, time } => self.cut(a, b, Span::micros(time)),
            What::Wan { node, time } => {
                for a in self.all_hosts() {
                    for b in self.all_hosts().filter(|b| a < *b) {
                        if self.site(a, node) != self.site(b, node) {
                            self.cut(a, b, Span::micros(time));
                        }
                    }
                }
            }
            What::Kill { node, time } if is_frr(node) => self.frr_killed(node, Span::micros(time)),
            What::Kill { node, time } if node >= self.vteps.len() => {
                self.upsets += 1;
                self.strays(|_| true);
                self.rr_kill(node, Span::micros(time));
            }
            What::Kill { node, time } => {
                self.upsets += 1;
                self.leaps += if self.plan.fabric.memory { 16 } else { 0 };
                self.strays(|n| n == node);
                if self.vteps[node].daemon.is_some() {
                    self.kill(node);
                    self.addresses_forgotten(node);
                }
                self.begin(Fault::Down(node), Span::micros(time));
            }
            What::Overrun { node, time, queue } => {
                self.vteps[node].kernel.set_queue(queue as usize);
                self.begin(Fault::Queue(node), Span::micros(time));
            }
            What::Fail { node, count } => {
                self.disturbed(node);
                for _ in 0..count {
                    self.vteps[node].kernel.fail_next(libc::ENOBUFS);
                }
                self.begin(Fault::Writes(node), Span::secs(2));
            }
            What::Broken { node, time, neigh } => {
                self.disturbed(node);
                let v = &mut self.vteps[node];
                let dev = if neigh { v.bridge } else { v.vxlan };
                v.kernel.fail_device(dev, Some(libc::EBUSY));
                self.begin(Fault::Broken(node, dev), Span::micros(time));
            }
            What::Slow { node, time, lag } => {
                self.disturbed(node);
                self.vteps[node].slow = lag;
                self.begin(Fault::Slow(node), Span::micros(time));
            }
            What::Foreign { node } => self.add_foreign(node),
            What::Wipe { node, n } => self.wipe(node, n as usize),
            What::Flush { node } => {
                let v = &mut self.vteps[node];
                let bridge = v.bridge;
                let mac = v.kernel.link(bridge).map(|l| l.mac).unwrap_or_default();
                let other = Mac([2, 0, 0, 2, mac.0[4], mac.0[5].wrapping_add(1)]);
                v.kernel.change(bridge, |l| l.mac = other);
                self.begin(Fault::Repair, Span::secs(1));
                self.kernel_changed(node);
            }
            What::Short { node, time, one_in } => {
                let seed = self.rng.next();
                let v = &mut self.vteps[node];
                v.kernel.set_short_dumps(one_in as u32, seed);
                if let Some(d) = &mut v.daemon {
                    d.rec.resync(netlink::reconcile::Scope::All);
                }
                self.begin(Fault::Short(node), Span::micros(time));
                self.turn(node);
            }
        }
    }

    /// Guests or kernels will be busy until then.
    pub(super) fn act_until(&mut self, after: Span) {
        self.last_act = self.last_act.max(self.now + after);
    }

    /// A daemon that starts learns MACs from its kernel, and the addresses of local guests when they speak, or answer because
    /// they were kept.
    fn addresses_forgotten(&mut self, node: usize) {
        let kept = self.plan.fabric.memory;
        for t in self.ips.values_mut() {
            let owner = t.mac.and_then(|m| self.macs.get(&m));
            // Also those whose guest has stopped there without anybody's knowing.
            if owner.is_some_and(|m| m.place.is_none_or(|p| p.node == node && !kept)) {
                t.must = false;
            }
        }
    }

    fn disturbed(&mut self, node: usize) {
        self.slowed.insert(node);
        self.upsets += 1;
    }

    /// On which side of the WAN a host is: reflectors take turns.
    fn site(&self, host: usize, border: usize) -> bool {
        let nodes = self.plan.fabric.nodes;
        if host < nodes { host < border } else { (host - nodes).is_multiple_of(2) }
    }

    fn cut(&mut self, a: usize, b: usize, time: Span) {
        if a != b {
            self.upsets += 1;
            let nodes = self.vteps.len();
            self.strays(|n| n == a || n == b || a.max(b) >= nodes);
            self.cuts.insert((a.min(b), a.max(b)));
            self.begin(Fault::Cut(a.min(b), a.max(b)), time);
        }
    }

    /// A fault is over.
    pub(super) fn healed(&mut self, fault: Fault) {
        if self.trace.is_some() {
            self.note(&format!("over: {fault:?}"));
        }
        match fault {
            Fault::Cut(a, b) => self.heal(a, b),
            Fault::Down(node) if is_frr(node) => self.frr_boot(node),
            Fault::Down(node) if node >= self.vteps.len() => self.rr_boot(node),
            Fault::Down(node) => self.boot(node),
            Fault::Queue(node) => {
                self.vteps[node].kernel.set_queue(200_000);
                self.begin(Fault::Repair, Span::secs(1));
            }
            Fault::Broken(node, dev) => {
                self.vteps[node].kernel.fail_device(dev, None);
            }
            Fault::Slow(node) => {
                let lag = std::mem::take(&mut self.vteps[node].slow);
                self.begin(Fault::Repair, Span::micros(2 * lag));
            }
            Fault::Writes(node) => self.vteps[node].kernel.fail_no_more(),
            Fault::Short(node) => self.vteps[node].kernel.set_short_dumps(0, 0),
            Fault::Repair => {}
        }
    }

    // ---- guests ------------------------------------------------------------------------------------------

    /// A guest begins to run at a place, and says so.
    pub(super) fn arrive_at(&mut self, g: usize, at: Place, by: By) {
        self.settle_in(g, at, matches!(by, By::Rarp | By::Qemu | By::Garp));
        self.migrated(g, by);
        self.welcome(g, at);
        if by == By::Qemu {
            self.act_until(Span::millis(600));
        }
        self.announce(g, at, by);
    }

    /// A guest runs here from now on; `strong`: it will be told in a way that nobody mistakes.
    pub(super) fn settle_in(&mut self, g: usize, at: Place, strong: bool) {
        self.plug(at);
        self.vms[g].here = Some(at);
        self.vms[g].since = self.now;
        self.vms[g].twin = None;
        let ips: Vec<IpAddr> = self.vms[g].ips().collect();
        let (now, settle, calm) = (self.now, self.settle(), self.calm_since.is_some());
        self.frr_arrival(g, at);
        if !self.listens(at.node) {
            // No daemon sees it come, to take along what is known of it.
            for ip in &ips {
                if let Some(t) = self.ips.get_mut(ip) {
                    t.must = false;
                }
            }
        }
        if let Some(m) = self.macs.get_mut(&self.vms[g].mac) {
            let muddled = m.muddled;
            m.place = Some(at);
            // The port of a copy that is simply not there any more still has carrier.
            m.residue.extend(m.twin.take());
            m.spoken = None;
            m.muddled |= m.twinned;
            m.muddled &=
                m.twinned || !strong || !calm || m.speaker.is_some_and(|(_, t)| now.since(t) < settle);
            m.muddled |= now < m.stray;
            m.unplugged = false;
            m.residue.remove(&at);
            m.events += 1;
            for ip in ips.iter().filter(|_| muddled) {
                if let Some(t) = self.ips.get_mut(ip) {
                    t.must = false;
                }
            }
        }
    }

    /// A guest stops where it runs.
    fn leave(&mut self, g: usize, unplug: bool) {
        let slowed = &self.slowed;
        let vm = &mut self.vms[g];
        let places: Vec<Place> = vm.here.take().into_iter().chain(vm.twin.take()).collect();
        let (mac, now) = (vm.mac, self.now);
        let ips: Vec<IpAddr> = vm.ips().collect();
        if places.is_empty() {
            return;
        }
        if let Some(m) = self.macs.get_mut(&mac) {
            m.place = None;
            m.twin = None;
            m.unplugged = unplug;
            m.events += 1;
            m.goes_astray(now, slowed);
            for at in &places {
                m.left.insert(at.node, now);
                m.residue.insert(*at);
            }
        }
        for ip in ips {
            if unplug {
                self.nobodys(ip);
            }
        }
        for at in places {
            if unplug && !self.vms.iter().any(|v| v.here == Some(at) || v.twin == Some(at)) {
                self.unplug(at);
            }
        }
    }

    fn hot(&mut self, g: usize, node: usize, by: By, late: u64, over: Span, unplug: bool) {
        let Some(from) = self.vms[g].here.filter(|p| p.node != node) else { return };
        let mac = self.vms[g].mac;
        self.move_out(g, from, late);
        self.frr_departure(mac, from, late);
        self.untold(g, by, self.now - Span::micros(self.plan.fabric.lag));
        let unclear = late > 0 && self.macs.get(&mac).is_some_and(|m| m.muddled);
        self.arrive_at(g, Place { node, slot: g }, by);
        if let Some(m) = self.macs.get_mut(&mac) {
            // Where nobody knows whose it is, a late frame is as good as an early one.
            m.muddled |= unclear;
        }
        // What is known moves along only if all was quiet; otherwise nobody can know.
        let ips: Vec<IpAddr> = self.vms[g].ips().collect();
        if self.calm_since.is_none() || by == By::Data {
            for ip in ips {
                if let Some(t) = self.ips.get_mut(&ip) {
                    t.must = false;
                }
            }
        } else if unplug && over <= Span::micros(self.plan.fabric.lag) {
            // The source may have withdrawn them before the target has heard of the guest.
            self.untold(g, by, Time(0));
        }
        let until = self.now + over + self.longest() + Span::micros(self.plan.fabric.lag);
        if let Some(m) = self.macs.get_mut(&mac).filter(|_| late > 0) {
            m.late_until = until;
        }
        for k in 0..late {
            let after = over.scaled(k + 1, late + 1);
            self.push(after, Ev::Late(from, mac));
        }
        if unplug {
            self.push(over + Span(1), Ev::Unplug(from));
        }
        self.act_until(over + Span(2));
    }

    /// A guest runs elsewhere from now on; its port here is as it was.
    pub(super) fn move_out(&mut self, g: usize, from: Place, late: u64) {
        let now = self.now;
        if let Some(m) = self.macs.get_mut(&self.vms[g].mac) {
            m.left.insert(from.node, now);
            m.residue.insert(from);
            m.contested += u32::from(late > 0);
        }
    }

    fn new_ip(&mut self, g: usize) {
        let Some(at) = self.vms[g].here else { return };
        if let Some(own) = self.vms[g].v4 {
            self.nobodys(own.into());
        }
        self.vms[g].change_ip();
        self.bump(g);
        if !self.configures(g) {
            self.say(g, at, By::Garp);
        }
    }

    fn take_ip(&mut self, g: usize, from: usize) {
        if g == from {
            return;
        }
        let (Some(at), Some(_), Some(ip)) = (self.vms[g].here, self.vms[g].v4, self.vms[from].v4) else {
            return;
        };
        self.shared = true;
        if let Some(own) = self.vms[g].v4 {
            self.nobodys(own.into());
        }
        self.new_ip(from);
        if self.vms[from].here.is_none() {
            // It comes back with another one, and nobody answers for this any more unless its new owner says so.
            self.nobodys(ip.into());
            self.vms[from].change_ip();
        }
        self.vms[g].v4 = Some(ip);
        self.vms[g].changes += 1;
        self.bump(g);
        self.bump(from);
        if !self.configures(g) {
            self.say(g, at, By::Garp);
        }
    }

    fn bump(&mut self, g: usize) {
        if let Some(m) = self.macs.get_mut(&self.vms[g].mac) {
            m.events += 1;
        }
    }

    fn other_port(&mut self, g: usize, by: By) {
        let Some(at) = self.vms[g].here else { return };
        let spare = self.vms.len();
        let to = Place { node: at.node, slot: if at.slot == spare { g } else { spare } };
        if let Some(m) = self.macs.get_mut(&self.vms[g].mac) {
            m.residue.insert(at);
        }
        // The tap of the port that it leaves may tell too late what it said there just now.
        self.untold(g, by, self.now - Span::micros(self.plan.fabric.lag));
        self.arrive_at(g, to, by);
    }

    /// Addresses of a guest that were told after `since` and that its next announcement does not tell: nobody has to
    /// know them.
    fn untold(&mut self, g: usize, by: By, since: Time) {
        let vm = &self.vms[g];
        let told = |ip: &IpAddr| vm.stack.uses(*ip) && (by == By::Garp || by == By::Ask && ip.is_ipv4());
        let ips: Vec<IpAddr> = vm.ips().filter(|ip| !told(ip)).collect();
        for ip in ips {
            if let Some(t) = self.ips.get_mut(&ip)
                && t.said.is_none_or(|s| s >= since)
            {
                t.must = false;
            }
        }
    }

    /// Routes of a node go, or may go: see [`MacTruth::goes_astray`].
    pub(super) fn strays(&mut self, on: impl Fn(usize) -> bool) {
        for m in self.macs.values_mut().filter(|m| m.place.is_some_and(|p| on(p.node))) {
            m.goes_astray(self.now, &self.slowed);
        }
    }

    fn split(&mut self, g: usize, node: usize, time: Span, first: bool) {
        let Some(here) = self.vms[g].here.filter(|p| p.node != node && !is_frr(p.node)) else { return };
        let twin = Place { node, slot: g };
        // A third copy is no story of its own.
        if self.is_released(node, self.vms[g].mac) || self.vms[g].twin.is_some() {
            return;
        }
        self.plug(twin);
        self.vms[g].twin = Some(twin);
        if let Some(m) = self.macs.get_mut(&self.vms[g].mac) {
            m.twin = Some(twin);
            m.twinned = true;
            m.events += 1;
        }
        let every = Span::millis(300);
        let mut t = Span::ZERO;
        while t < time {
            self.push(t, Ev::Say(g, twin, By::Garp));
            self.push(t + Span::millis(140), Ev::Say(g, here, By::Garp));
            t += every;
        }
        self.act_until(time + every);
        self.push(time + every, Ev::Single(g, first));
    }

    /// One of two copies stops, and its port goes down.
    pub(super) fn single(&mut self, g: usize, first: bool) {
        let (Some(a), Some(b)) = (self.vms[g].here, self.vms[g].twin) else { return };
        let (stays, goes) = if first { (b, a) } else { (a, b) };
        (self.vms[g].here, self.vms[g].twin) = (Some(stays), None);
        let now = self.now;
        if let Some(m) = self.macs.get_mut(&self.vms[g].mac) {
            (m.place, m.twin) = (Some(stays), None);
            m.muddled = true;
            m.events += 1;
            m.left.insert(goes.node, now);
            m.residue.insert(goes);
        }
        // The port may be another guest's by now, who keeps it up.
        if !self.vms.iter().any(|v| v.here == Some(goes) || v.twin == Some(goes)) {
            self.unplug(goes);
        }
    }

    // ---- kernels -----------------------------------------------------------------------------------------

    fn add_foreign(&mut self, node: usize) {
        let n = self.foreign.len() as u8;
        let mac = Mac([0x52, 0x54, 0, 1, node as u8, n]);
        let v = &mut self.vteps[node];
        let port = v.ports[usize::from(n) % v.ports.len()];
        v.kernel.put_bridge_row(BridgeFdb {
            bridge: v.bridge,
            port,
            mac,
            vlan: 0,
            ext_learned: false,
            sticky: false,
            is_static: true,
            permanent: false,
        });
        self.foreign.insert((node, mac));
        self.kernel_changed(node);
    }

    /// Somebody deletes rows of ours behind our back.
    fn wipe(&mut self, node: usize, n: usize) {
        let mut ops = Vec::new();
        let v = &mut self.vteps[node];
        for mac in self.macs.keys() {
            let vteps = v.kernel.remotes(v.vxlan, *mac).to_vec();
            ops.extend(vteps.into_iter().map(|vtep| Op::DelRemote { vxlan: v.vxlan, mac: *mac, vtep }));
        }
        ops.extend(v.kernel.neighbours().map(|r| Op::DelNeigh { dev: r.dev, ip: r.ip }));
        let ops: Vec<Op> = ops.into_iter().skip(n).step_by(3).collect();
        v.kernel.apply(&ops, &mut Vec::new());
        self.begin(Fault::Repair, Span::secs(1));
        self.kernel_changed(node);
    }
}
