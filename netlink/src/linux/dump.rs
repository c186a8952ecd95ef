//! Reads whole tables, and single rows to confirm what a table did not show (PIT-13).

use super::codec::{
    AF_BRIDGE, LinkMsg, NDA_DST, NDA_LLADDR, NDA_MASTER, NTF_SELF, Ndmsg, RTM_GETLINK, RTM_GETNEIGH,
    RTM_NEWLINK, RTM_NEWNEIGH, complete_bridge, link_msg, neigh_event, put_ip,
};
use super::monitor::Interest;
use super::nl::{Many, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Out, ask, request_socket};
use crate::op::OpError;
use crate::reconcile::Scope;
use evpn::fabric::{FdbRow, KernelEvent, Link, LinkKind};
use evpn::types::IfIndex;
use netlink_sys::Socket;
use std::collections::BTreeMap;
use std::io;

/// Rows per chunk handed to the callback.
pub const CHUNK: usize = 256;
/// Dumps that the kernel marks as interrupted are begun again, at most so many times: under steady churn none
/// is ever whole, and what is missing is confirmed row by row anyway.
const ATTEMPTS: usize = 3;
/// `AF_UNSPEC`, `AF_INET`, `AF_INET6`.
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// A reader with its own socket.
#[derive(Debug)]
pub struct Reader {
    socket: Socket,
    many: Many,
    out: Out,
    seq: u32,
}

impl Reader {
    /// In the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: request_socket()?, many: Many::new(8, 64 << 10), out: Out::default(), seq: 0 })
    }

    fn begin(&mut self, kind: u16, flags: u16) {
        self.out.clear();
        self.seq = self.seq.wrapping_add(1);
        self.out.begin(kind, NLM_F_REQUEST | flags, self.seq);
    }

    fn ask(&mut self, each: impl FnMut(&super::nl::Msg<'_>)) -> Result<bool, OpError> {
        self.out.end();
        ask(&self.socket, &self.out.v, self.seq, &mut self.many, each)
    }

    /// All devices, bridges completed.
    pub fn links(&mut self) -> Result<Vec<Link>, OpError> {
        self.whole_links().map(|(links, _)| links)
    }

    /// The same, and whether the kernel called it complete.
    fn whole_links(&mut self) -> Result<(Vec<Link>, bool), OpError> {
        let mut out = BTreeMap::new();
        let mut whole = false;
        for _ in 0..ATTEMPTS {
            self.begin(RTM_GETLINK, NLM_F_DUMP);
            self.out.bytes(&[0; 16]);
            let interrupted = self.ask(|m| {
                if m.kind == RTM_NEWLINK
                    && let Some(LinkMsg::Whole(l)) = link_msg(m)
                {
                    out.insert(l.index, l);
                }
            })?;
            if !interrupted {
                whole = true;
                break;
            }
        }
        let all: Vec<Link> = out.values().cloned().collect();
        for l in out.values_mut().filter(|l| matches!(l.kind, LinkKind::Bridge(_))) {
            complete_bridge(l, all.iter());
        }
        Ok((out.into_values().collect(), whole))
    }

    /// Forwarding rows of bridges and VXLAN devices, in chunks. Returns whether the kernel called it complete;
    /// it may be short even then.
    pub fn fdb(
        &mut self,
        interest: &Interest,
        each: &mut dyn FnMut(&[KernelEvent]),
    ) -> Result<bool, OpError> {
        self.neighbours(AF_BRIDGE, interest, each)
    }

    /// Neighbour rows, in chunks.
    pub fn neigh(
        &mut self,
        interest: &Interest,
        each: &mut dyn FnMut(&[KernelEvent]),
    ) -> Result<bool, OpError> {
        let mut whole = true;
        for family in FAMILIES {
            whole &= self.neighbours(family, interest, each)?;
        }
        Ok(whole)
    }

    fn neighbours(
        &mut self,
        family: u8,
        interest: &Interest,
        each: &mut dyn FnMut(&[KernelEvent]),
    ) -> Result<bool, OpError> {
        for _ in 0..ATTEMPTS {
            self.begin(RTM_GETNEIGH, NLM_F_DUMP);
            self.out.bytes(&Ndmsg { family, ifindex: 0, state: 0, flags: 0 }.octets());
            let mut chunk = Vec::with_capacity(CHUNK);
            let interrupted = self.ask(|m| {
                if m.kind == RTM_NEWNEIGH
                    && let Some(ev) = neigh_event(m, |i| interest.wants(i))
                {
                    chunk.push(ev);
                    if chunk.len() == CHUNK {
                        each(&chunk);
                        chunk.clear();
                    }
                }
            })?;
            if !chunk.is_empty() {
                each(&chunk);
            }
            if !interrupted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everything in scope, links first. Links follow the interest as they are read. Returns whether the kernel
    /// called all of it complete; it may be short even then (PIT-13).
    pub fn read(
        &mut self,
        scope: Scope,
        interest: &mut Interest,
        each: &mut dyn FnMut(&[KernelEvent]),
    ) -> Result<bool, OpError> {
        match scope {
            Scope::All => {
                let (links, mut whole) = self.whole_links()?;
                for l in &links {
                    interest.note(l);
                }
                let events: Vec<KernelEvent> = links.into_iter().map(KernelEvent::Link).collect();
                for chunk in events.chunks(CHUNK) {
                    each(chunk);
                }
                whole &= self.fdb(interest, each)?;
                whole &= self.neigh(interest, each)?;
                Ok(whole)
            }
            Scope::Neigh(_) => self.neigh(interest, each),
        }
    }

    /// Asks for each of these suspected losses by itself: the row as it is, or the event unchanged if the kernel
    /// says that it is gone. Rows that cannot be asked for are left out, so they stay.
    pub fn confirm(&mut self, suspects: &[KernelEvent], interest: &Interest) -> Vec<KernelEvent> {
        suspects.iter().filter_map(|s| self.confirm_one(s, interest)).collect()
    }

    fn confirm_one(&mut self, suspect: &KernelEvent, interest: &Interest) -> Option<KernelEvent> {
        match suspect {
            KernelEvent::LinkGone(i) => match self.link(*i) {
                Ok(Some(l)) => Some(KernelEvent::Link(l)),
                Ok(None) => Some(suspect.clone()),
                Err(e) => gone_if(e.errno == libc::ENODEV, suspect),
            },
            KernelEvent::FdbGone(FdbRow::Vxlan(r)) if r.mac.is_zero() => {
                self.confirm_flood(suspect, interest)
            }
            KernelEvent::FdbGone(row) => {
                self.begin(RTM_GETNEIGH, NLM_F_ACK);
                match row {
                    FdbRow::Bridge(r) => {
                        self.out.bytes(&Ndmsg { family: AF_BRIDGE, ifindex: 0, state: 0, flags: 0 }.octets());
                        self.out.attr(NDA_LLADDR, &r.mac.0);
                        self.out.attr(NDA_MASTER, &r.bridge.0.to_ne_bytes());
                    }
                    FdbRow::Vxlan(r) => {
                        let head = Ndmsg { family: AF_BRIDGE, ifindex: r.dev.0, state: 0, flags: NTF_SELF };
                        self.out.bytes(&head.octets());
                        self.out.attr(NDA_LLADDR, &r.mac.0);
                    }
                }
                self.answer(suspect)
            }
            KernelEvent::NeighGone(r) => {
                let family = if r.ip.is_ipv4() { FAMILIES[0] } else { FAMILIES[1] };
                self.begin(RTM_GETNEIGH, NLM_F_ACK);
                self.out.bytes(&Ndmsg { family, ifindex: r.dev.0, state: 0, flags: 0 }.octets());
                put_ip(&mut self.out, NDA_DST, r.ip);
                self.answer(suspect)
            }
            KernelEvent::Link(_)
            | KernelEvent::Fdb(_)
            | KernelEvent::Neigh(_)
            | KernelEvent::Synced
            | KernelEvent::NeighAsked { .. }
            | KernelEvent::Overrun => None,
        }
    }

    fn answer(&mut self, suspect: &KernelEvent) -> Option<KernelEvent> {
        let mut found = None;
        match self.ask(|m| found = neigh_event(m, |_| true).or(found.take())) {
            Ok(_) => found,
            Err(e) => gone_if(matches!(e.errno, libc::ENOENT | libc::ENODEV | libc::ESRCH), suspect),
        }
    }

    /// A single read shows one destination of the zero-MAC row only, so its table is read again instead: a row
    /// that three reads do not show is gone. Were it not, the worst is an addition that changes nothing.
    fn confirm_flood(&mut self, suspect: &KernelEvent, interest: &Interest) -> Option<KernelEvent> {
        let KernelEvent::FdbGone(row) = suspect else { return None };
        let FdbRow::Vxlan(want) = row else { return None };
        for _ in 0..ATTEMPTS {
            let mut found = None;
            let read = self.fdb(interest, &mut |rows| {
                for ev in rows {
                    if let KernelEvent::Fdb(FdbRow::Vxlan(r)) = ev
                        && (r.dev, r.mac, r.vtep) == (want.dev, want.mac, want.vtep)
                    {
                        found = Some(ev.clone());
                    }
                }
            });
            read.ok()?;
            if found.is_some() {
                return found;
            }
        }
        Some(suspect.clone())
    }

    /// One device.
    pub fn link(&mut self, index: IfIndex) -> Result<Option<Link>, OpError> {
        self.begin(RTM_GETLINK, NLM_F_ACK);
        let mut head = [0; 16];
        head[4..8].copy_from_slice(&index.0.to_ne_bytes());
        self.out.bytes(&head);
        let mut found = None;
        self.ask(|m| {
            if let Some(LinkMsg::Whole(l)) = link_msg(m) {
                found = Some(l);
            }
        })?;
        Ok(found)
    }
}

fn gone_if(gone: bool, suspect: &KernelEvent) -> Option<KernelEvent> {
    gone.then(|| suspect.clone())
}
