//! Telling hosts that the MAC of an address has changed (a cold move with a new MAC, a failover, VRRP), because
//! suppression swallows what the new owner says (PIT-17, PROXY-LEARN-05, HOST-GARP-01).
//!
//! Every VTEP tells the hosts behind its own ports, once the kernel has the new rows. The new owner also tells those behind
//! VTEPs that do not: all whose IMET does not carry [`ExtCommunity::TELLS`](crate::wire::ExtCommunity::TELLS).
//!
//! - IPv4: gratuitous ARP in request form. Linux, the BSDs and Windows replace what they hold on either form, and RFC 5227
//!   §3 gives the reasons for the request; Linux counts a reply as gratuitous only if its target MAC is the sender's, and
//!   else ignores it for a second after the last change. IPv6: unsolicited NA with O=1 and R as learned, to all nodes.
//! - The Ethernet source is the bound MAC, as in all that is said in an owner's name (PROXY-REPLY-01): a bridge inside a
//!   guest learns that it is on this side, which is so, and hosts that inspect ARP find source and sender equal. It is
//!   never sent on the port that the owner is behind, where it would teach the wrong side; our own bridge does not see
//!   what a packet socket sends.
//! - Four times, because frames are lost and hosts are busy. The first time, hosts that are known to hold the address are
//!   told by unicast and ports without any by broadcast; after that, all by broadcast: a host may have learned it unheard,
//!   or have come here with its cache.
//! - The host that had the address before is not told so while its MAC is on one of our ports: an address conflict that is
//!   heard twice within 10 s makes a host give it up (RFC 5227 §2.4), and whether it still has it is for others to find out.
//!   Known holders behind that port are told by unicast, and if there are other MACs there is one broadcast for the rest.

use super::holders::{Holders, Overheard};
use super::past::Latest;
use super::segment::Segment;
use super::{Node, Output, TellPeers};
use crate::fabric::RowKey;
use crate::hosts::{Hosts, Owner};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// From each time to the next: 0, 50 ms, 500 ms and 2 s after the change.
const AGAIN: [Span; 3] = [Span::millis(50), Span::millis(450), Span::millis(1500)];
/// The round of the only broadcast behind the port of the host that had the address.
const ONCE: usize = 1;
/// The kernel refuses a row or is far behind: the hosts are told all the same, it floods what it does not know.
const PATIENCE: Span = Span::millis(500);
/// A round that comes so much later than it should is counted.
const LATE: Span = Span::millis(10);
/// Addresses that are being told. Above it those that have been told at least once are told no more.
const JOBS: usize = 65_536;
/// Addresses that went before all was told; the oldest give way.
const UNFINISHED: usize = 4096;
/// Addresses of which it is remembered what was told; the oldest give way.
const TOLD: usize = 4096;
/// Frames per flush.
const PER_FLUSH: usize = 512;
/// Addresses per flush.
const JOBS_PER_FLUSH: usize = 256;

type Key = (Vni, IpAddr);

#[derive(Debug)]
struct Job {
    mac: Mac,
    /// Who had it.
    before: Mac,
    /// Rows that the kernel has not acknowledged yet.
    waits: Vec<RowKey>,
    /// Times told.
    round: usize,
    /// When it is due next.
    due: Time,
}

/// A rate with some room for bursts, by virtual scheduling.
#[derive(Debug, Default)]
pub(super) struct Pace {
    spent: Time,
}

impl Pace {
    /// A tenth of a second's frames may come at once, 32 in any case.
    fn burst(each: Span) -> Span {
        Span::millis(100).max(Span(each.0 * 32))
    }

    /// When the next one may go.
    pub(super) fn next(&self, each: Span) -> Time {
        Time(self.spent.0.saturating_sub(Self::burst(each).0))
    }

    pub(super) fn spend(&mut self, frames: usize, each: Span, at: Time) {
        self.spent = self.spent.max(at) + Span(each.0.saturating_mul(frames as u64));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tell {
    jobs: BTreeMap<Key, Job>,
    /// To be told for the first time: they go before all others.
    fresh: BTreeSet<(Time, Key)>,
    repeats: BTreeSet<(Time, Key)>,
    waiting: BTreeSet<(RowKey, Key)>,
    pace: Pace,
    /// Of addresses that nobody has now: if the same MAC comes back, the rest is still to be told.
    unfinished: Latest<Key, Job>,
    /// The last flush left some that were due.
    more: bool,
    pub(super) holders: Holders,
    pub(super) overheard: Overheard,
    /// Frames sent to hosts, by port.
    pub(super) ports: BTreeMap<(Vni, IfIndex), u64>,
    /// What was told of an address last; for people.
    pub(super) told: Latest<Key, Told>,
}

/// What was told of an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) mac: Mac,
    pub(super) at: Time,
    pub(super) rounds: usize,
    pub(super) broadcasts: usize,
    pub(super) unicasts: usize,
    pub(super) vteps: usize,
}

impl Told {
    /// Rounds that there are.
    pub(super) const ROUNDS: usize = AGAIN.len() + 1;
}

impl Default for Tell {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            fresh: BTreeSet::new(),
            repeats: BTreeSet::new(),
            waiting: BTreeSet::new(),
            pace: Pace::default(),
            unfinished: Latest::new(UNFINISHED),
            more: false,
            holders: Holders::default(),
            overheard: Overheard::default(),
            ports: BTreeMap::new(),
            told: Latest::new(TOLD),
        }
    }
}

impl Tell {
    fn queue(&mut self, key: Key, round: usize, due: Time) {
        if round == 0 {
            self.fresh.insert((due, key))
        } else {
            self.repeats.insert((due, key))
        };
    }

    fn take(&mut self, key: Key) -> Option<Job> {
        let job = self.jobs.remove(&key)?;
        self.fresh.remove(&(job.due, key));
        self.repeats.remove(&(job.due, key));
        for row in &job.waits {
            self.waiting.remove(&(*row, key));
        }
        Some(job)
    }

    fn put(&mut self, key: Key, job: Job) {
        self.take(key);
        self.queue(key, job.round, job.due);
        self.waiting.extend(job.waits.iter().map(|row| (*row, key)));
        self.jobs.insert(key, job);
    }

    /// The next one that is due.
    fn due(&self, at: Time) -> Option<Key> {
        let first = |set: &BTreeSet<(Time, Key)>| set.first().filter(|(t, _)| *t <= at).map(|(_, k)| *k);
        first(&self.fresh).or_else(|| first(&self.repeats))
    }

    /// A port is gone: its index may come back as another one's.
    pub(super) fn forget_port(&mut self, vni: Vni, port: IfIndex) {
        self.ports.remove(&(vni, port));
    }
}

/// Frames for one address: to everybody, or to one host.
struct Words {
    mac: Mac,
    ip: IpAddr,
    router: bool,
}

impl Words {
    fn to(&self, host: Option<Mac>) -> Bytes {
        match self.ip {
            IpAddr::V4(ip) => frame::arp_probe(self.mac, host.unwrap_or(Mac::BROADCAST), ip, ip),
            IpAddr::V6(ip) => frame::unsolicited_advertisement(self.mac, ip, host, self.router),
        }
    }
}

/// Whether this is our own gateway, and the bridge has its MAC.
fn is_gateway(seg: &Segment, ip: IpAddr, mac: Mac) -> bool {
    seg.own.contains(&mac) && seg.config.hosts.gateway.as_ref().is_some_and(|g| g.mac == mac && g.has(ip))
}

impl Node {
    /// The MAC of an address has changed. Returns whether local hosts will be told.
    pub(super) fn tell_changed(&mut self, vni: Vni, ip: IpAddr, mac: Mac, before: Mac, at: Time) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        let here = self.listening_ports(vni, &seg.hosts, mac).next().is_some();
        if !here && self.deaf_peers(vni, mac).is_empty() {
            self.tell.take((vni, ip));
            return false;
        }
        let rows = [seg.neigh_key(ip), seg.mac_key(mac)];
        let waits: Vec<RowKey> = rows.into_iter().flatten().filter(|k| self.want.is_dirty(k)).collect();
        let due = if waits.is_empty() { at } else { at + PATIENCE };
        self.tell.unfinished.remove((vni, ip));
        self.tell.put((vni, ip), Job { mac, before, waits, round: 0, due });
        if self.tell.jobs.len() > JOBS {
            let oldest = self.tell.repeats.first().or_else(|| self.tell.fresh.last()).map(|(_, k)| *k);
            if let Some(key) = oldest {
                self.tell.take(key);
                self.journal.count("tells_dropped");
            }
        }
        here
    }

    /// The bridge has got the gateway's MAC, now or since the start: hosts may hold an earlier one. All VTEPs do the same
    /// for their own hosts, and nothing of it crosses the underlay (PIT-18).
    pub(super) fn tell_gateway(&mut self, vni: Vni, at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let Some(g) = seg.config.hosts.gateway.as_ref().filter(|g| seg.own.contains(&g.mac)) else { return };
        let mac = g.mac;
        for (ip, _) in g.wanted().addresses {
            self.tell.put((vni, ip), Job { mac, before: mac, waits: Vec::new(), round: 0, due: at });
        }
    }

    /// An address is bound to the MAC again that it had before.
    pub(super) fn tell_resumed(&mut self, vni: Vni, ip: IpAddr, mac: Mac, at: Time) {
        if let Some(mut job) = self.tell.unfinished.remove((vni, ip)).filter(|j| j.mac == mac) {
            job.due = at;
            job.waits.clear();
            self.tell.put((vni, ip), job);
        }
    }

    /// The kernel has a row.
    pub(super) fn tell_written(&mut self, row: &RowKey, at: Time) {
        if self.tell.waiting.is_empty() || self.want.is_dirty(row) {
            return;
        }
        let least = (Vni::new(1).expect("it is in range"), IpAddr::from([0, 0, 0, 0]));
        let all = self.tell.waiting.range((*row, least)..).take_while(|(r, _)| r == row);
        let keys: Vec<Key> = all.map(|(_, k)| *k).collect();
        for key in keys {
            let Some(mut job) = self.tell.take(key) else { continue };
            job.waits.retain(|w| w != row);
            if job.waits.is_empty() {
                job.due = at;
            }
            self.tell.put(key, job);
        }
    }

    /// Ports of a VNI whose hosts are told of this MAC: all that work, but not the one that it is behind.
    pub(super) fn listening_ports<'a>(
        &'a self,
        vni: Vni,
        hosts: &'a Hosts,
        mac: Mac,
    ) -> impl Iterator<Item = IfIndex> + 'a {
        let owner = hosts.macs.get(&mac).and_then(|e| e.local()).map(|l| l.port);
        let vxlan = self.segments.get(&vni).and_then(|s| s.vxlan);
        self.taps.iter().filter(move |(_, v)| **v == vni).map(|(p, _)| *p).filter(move |p| {
            let works = |l: &crate::fabric::Link| {
                l.up && l.carrier && l.port.as_ref().is_none_or(|flags| flags.forwarding)
            };
            Some(*p) != owner && Some(*p) != vxlan && self.links.get(p).is_some_and(works)
        })
    }

    /// VTEPs whose hosts the owner of this MAC tells, with the VNI to send with: none if that is not us.
    fn deaf_peers(&self, vni: Vni, mac: Mac) -> Vec<(IpAddr, Vni)> {
        let Some(seg) = self.segments.get(&vni) else { return Vec::new() };
        let policy = seg.config.hosts.tell_peers;
        let ours = matches!(seg.hosts.macs.get(&mac).map(|e| e.owner), Some(Owner::Local(_)));
        if !ours || policy == TellPeers::Never || !seg.ready {
            return Vec::new();
        }
        let told = |vtep: &IpAddr| policy == TellPeers::Always || !self.rib.tells_hosts(vni, *vtep);
        self.all_vteps(vni).into_iter().filter(|(vtep, _)| told(vtep)).collect()
    }

    /// VTEPs that have this VNI, with the VNI to send with.
    pub(super) fn all_vteps(&self, vni: Vni) -> BTreeMap<IpAddr, Vni> {
        let flood = self.rib.flood_targets(vni).map(|(vtep, label)| (vtep, label.vni().unwrap_or(vni)));
        let hosts = self.segments.get(&vni).into_iter().flat_map(|s| s.hosts.vteps());
        let mut all: BTreeMap<IpAddr, Vni> = hosts.map(|vtep| (vtep, vni)).collect();
        all.extend(flood);
        all
    }

    /// Tells what is due, as far as the rate allows.
    pub(super) fn due_tells(&mut self, at: Time) {
        self.tell.more = false;
        let each = Span(1_000_000_000 / u64::from(self.config.arp.tell_rate.max(1)));
        let mut room = PER_FLUSH;
        for _ in 0..JOBS_PER_FLUSH {
            let Some(key) = self.tell.due(at) else { return };
            if self.tell.pace.next(each) > at {
                return;
            }
            let Some(mut job) = self.tell.take(key) else { return };
            let Some((here, frames)) = self.tell_once(key, &job) else {
                self.tell.unfinished.insert(key, job);
                continue;
            };
            self.tell.pace.spend(frames, each, at);
            if at.since(job.due) > LATE {
                self.journal.count("tells_late");
            }
            if job.round == 0 && here {
                self.moves.told(key.0, key.1, at, &mut self.journal);
            }
            if let Some(again) = AGAIN.get(job.round) {
                (job.round, job.due) = (job.round + 1, at + *again);
                job.waits.clear();
                self.tell.put(key, job);
            }
            room = room.saturating_sub(frames);
            if room == 0 {
                break;
            }
        }
        self.tell.more = true;
    }

    /// One round for one address. `None`: it is not so any more. Otherwise whether hosts here were told, and the number of
    /// frames.
    fn tell_once(&mut self, (vni, ip): Key, job: &Job) -> Option<(bool, usize)> {
        let seg = self.segments.get(&vni)?;
        let bound = seg.hosts.binding(ip).filter(|b| b.mac == job.mac).map(|b| b.router);
        let router = bound.or_else(|| is_gateway(seg, ip, job.mac).then_some(true))?;
        let words = Words { mac: job.mac, ip, router };
        let behind = |mac: &Mac| seg.hosts.macs.get(mac).and_then(|e| e.local()).map(|l| l.port);
        let former = behind(&job.before);
        let mut holders: BTreeMap<IfIndex, Vec<Mac>> = BTreeMap::new();
        for mac in self.tell.holders.of((vni, ip)).iter().filter(|m| **m != job.mac && **m != job.before) {
            if let Some(port) = behind(mac) {
                holders.entry(port).or_default().push(*mac);
            }
        }
        let (mut first, mut then) = (Vec::new(), Vec::new());
        let all = words.to(None);
        for port in self.listening_ports(vni, &seg.hosts, job.mac) {
            let known = holders.remove(&port).unwrap_or_default();
            if job.round > 0 && self.checks.hushes(vni, ip, port, self.clock) {
                continue;
            }
            let to_all = if former == Some(port) {
                job.round == ONCE && seg.hosts.on_port(port) > 1
            } else {
                job.round > 0 || known.is_empty()
            };
            if to_all {
                then.push((port, all.clone()));
            } else {
                first.extend(known.into_iter().map(|mac| (port, words.to(Some(mac)))));
            }
        }
        let peers = self.deaf_peers(vni, job.mac);
        let here = first.len() + then.len();
        self.note_told((vni, ip), job, [then.len(), first.len(), peers.len()]);
        for (port, frame) in first.into_iter().chain(then) {
            *self.tell.ports.entry((vni, port)).or_default() += 1;
            self.journal.push(Output::Emit { port, frame });
        }
        self.journal.add("hosts_told", here as u64);
        self.journal.add("peers_told", peers.len() as u64);
        let frames = here + peers.len();
        for (vtep, vni) in peers {
            self.journal.push(Output::Encap { vni, vtep, frame: all.clone() });
        }
        Some((here > 0, frames))
    }

    fn note_told(&mut self, key: Key, job: &Job, [broadcasts, unicasts, vteps]: [usize; 3]) {
        let (mac, at) = (job.mac, self.clock);
        let before = self.tell.told.get(key).filter(|t| job.round > 0 && t.mac == mac).copied();
        let before = before.unwrap_or(Told { mac, at, rounds: 0, broadcasts: 0, unicasts: 0, vteps: 0 });
        let told = Told {
            mac,
            at,
            rounds: job.round + 1,
            broadcasts: before.broadcasts + broadcasts,
            unicasts: before.unicasts + unicasts,
            vteps: before.vteps + vteps,
        };
        self.tell.told.insert(key, told);
    }

    /// When hosts are to be told next.
    pub(super) fn tell_timeout(&self) -> Option<Time> {
        if self.tell.more {
            return Some(Time(0));
        }
        let sets = [self.tell.fresh.first(), self.tell.repeats.first()];
        let first = sets.into_iter().flatten().map(|(t, _)| *t).min()?;
        let each = Span(1_000_000_000 / u64::from(self.config.arp.tell_rate.max(1)));
        Some(first.max(self.tell.pace.next(each)))
    }
}
