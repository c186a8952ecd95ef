//! Graceful restart as one session sees it (RFC 4724, RFC 8538, RFC 9494): what our OPEN says, what both OPENs mean
//! together, and after which ends of a session the peer's routes stand. Keeping and sweeping them is the node's.

use super::Session;
use super::conn::{Conn, Phase};
use super::event::FsmEvent;
use super::fsm::{End, Next, Turn};
use crate::types::Span;
use crate::wire::{Capability, Family, GrFamily, LlgrFamily, Notification, Open, cease};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// An Established session that is younger than this is not given up for a new connection of the peer: that one may have
/// been under way while ours came up.
const SETTLED: Span = Span::secs(1);

/// Which part we take.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GracefulMode {
    /// We keep a restarting peer's routes, and ask it to keep ours.
    #[default]
    On,
    /// We keep its routes and do not ask for the same (BGP-GR-03).
    Helper,
    /// Neither. Capability 64 is offered without families all the same: FRR sends End-of-RIB only to those who offer it.
    Off,
}

/// What a session is told at start about graceful restart.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Graceful {
    /// Our part.
    pub mode: GracefulMode,
    /// For how many seconds the peer keeps our routes while we are away; at most 4095 (BGP-GR-01).
    pub restart_time: u16,
    /// For how many seconds beyond the restart time routes are kept as long-lived stale; 0: not at all, the capability is
    /// not offered (BGP-LLGR-01). At most 2²⁴ − 1.
    pub long_lived: u32,
    /// An administrative reset flushes the peer's tables, too (RFC 8538 §5.2: the operator's choice).
    pub hard_reset: bool,
}

impl Default for Graceful {
    fn default() -> Self {
        Self { mode: GracefulMode::On, restart_time: 120, long_lived: 0, hard_reset: false }
    }
}

/// What the peer's OPEN says of its restarts, as far as we take part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRestart {
    /// R: it has just restarted, and nobody is to wait for its End-of-RIB.
    pub restarting: bool,
    /// N on both sides: a NOTIFICATION that is no hard reset ends a session like a lost connection (BGP-GR-15).
    pub notification: bool,
    /// For how long its routes stay after it has gone.
    pub time: Span,
    /// Families whose routes stay, and whether it has kept their forwarding state.
    pub families: Vec<GrFamily>,
    /// Families that both sides keep beyond that; the peer's times (BGP-LLGR-01).
    pub long_lived: Vec<LlgrFamily>,
}

impl PeerRestart {
    /// What it says of a family; `None`: its routes are not kept.
    pub fn family(&self, family: Family) -> Option<GrFamily> {
        self.families.iter().find(|f| f.family == family).copied()
    }

    /// The same for the long-lived part.
    pub fn long_lived(&self, family: Family) -> Option<LlgrFamily> {
        self.long_lived.iter().find(|f| f.family == family).copied()
    }
}

/// What changes of our part while we run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// We have restarted and are not through with it.
    pub(super) restarting: bool,
    /// The kernel forwards by what was agreed earlier: of an earlier run, or of an earlier session of this one.
    pub(super) kept: bool,
}

/// Capabilities 64 and 71 of our OPEN (BGP-GR-01, -02, -03, BGP-LLGR-01).
pub(super) fn capabilities(config: &Graceful, now: Now, families: &[Family]) -> Vec<Capability> {
    let own = config.mode == GracefulMode::On;
    let listed = |f: &Family| GrFamily { family: *f, forwarding: now.kept };
    let mut out = vec![Capability::GracefulRestart {
        restarting: now.restarting,
        notification: config.mode != GracefulMode::Off,
        time: config.restart_time.min(0x0fff),
        families: if own { families.iter().map(listed).collect() } else { Vec::new() },
    }];
    if own && config.long_lived > 0 {
        let time = config.long_lived.min(0x00ff_ffff);
        let listed = |f: &Family| LlgrFamily { family: *f, forwarding: now.kept, time };
        out.push(Capability::Llgr(families.iter().map(listed).collect()));
    }
    out
}

/// What the peer's OPEN means for us. Of several capabilities the last counts (BGP-GR-04); 71 without 64 is nothing
/// (BGP-LLGR-02).
pub(super) fn agree(config: &Graceful, open: &Open) -> Option<PeerRestart> {
    if config.mode == GracefulMode::Off {
        return None;
    }
    let Some(Capability::GracefulRestart { restarting, notification, time, families }) =
        open.graceful_restart()
    else {
        return None;
    };
    Some(PeerRestart {
        restarting: *restarting,
        notification: *notification,
        time: Span::secs(u64::from(*time)),
        families: families.clone(),
        long_lived: if config.long_lived > 0 { open.llgr().to_vec() } else { Vec::new() },
    })
}

/// What is sent instead of a NOTIFICATION that is to flush the peer's tables (BGP-GR-16): it goes inside a hard reset, text
/// and all, if the peer knows those; to others it flushes as it is.
pub(super) fn hardened(config: &Graceful, peer: Option<&PeerRestart>, n: Notification) -> Notification {
    let known = peer.is_some_and(|p| p.notification);
    let hard = match n.subcode {
        cease::MAX_PREFIXES | cease::SHUTDOWN | cease::DECONFIGURED | cease::BFD_DOWN => true,
        cease::RESET => config.hard_reset,
        _ => false,
    };
    if n.code != 6 || !hard || !known {
        return n;
    }
    let mut data = BytesMut::with_capacity(2 + n.data.len());
    data.put_slice(&[n.code, n.subcode]);
    data.put_slice(&n.data);
    Notification { data: data.freeze(), ..Notification::cease(cease::HARD_RESET) }
}

/// Whether the peer's routes stand after a session that ended so: a bare loss (BGP-GR-09), or with N on both sides any
/// NOTIFICATION but a hard reset (BGP-GR-15).
pub(super) fn survives(
    peer: Option<&PeerRestart>,
    sent: Option<&Notification>,
    received: Option<&Notification>,
) -> bool {
    let hard = |n: &Notification| (n.code, n.subcode) == (6, cease::HARD_RESET);
    let mut said = [sent, received].into_iter().flatten().peekable();
    peer.is_some_and(|p| said.peek().is_none() || p.notification && !said.any(hard))
}

/// Whether a connection that the peer has opened means that the Established one is dead at its end (BGP-GR-10): a
/// speaker that is Established does not dial.
pub(super) fn replaces(old: &Conn, new: &Conn) -> bool {
    match &old.phase {
        Phase::Established { running, since } => {
            running.agreed.graceful.is_some() && !new.outgoing && new.begun.since(*since) >= SETTLED
        }
        Phase::OpenSent { .. } | Phase::OpenConfirm(_) => false,
    }
}

impl Session {
    /// We have restarted (R), and the kernel has kept what the last run told it (F). Before `Start`, and again with
    /// `restarting` false once selection is over; OPENs from then on say so (BGP-GR-02).
    pub fn set_restarting(&mut self, restarting: bool, kept: bool) {
        self.graceful.restarting = restarting;
        self.graceful.kept |= kept;
    }

    /// We go, and are to come back: ends like `Stop`, but a peer that keeps our routes is told nothing that would flush
    /// them: with N an administrative reset, else a bare end of the connection (RFC 4724 §4, RFC 8538 §4). All
    /// others hear Cease/2.
    pub(super) fn on_away(&mut self, t: &mut Turn<'_>) {
        let established = self.established().and_then(|(id, a)| Some((id, a.graceful.clone()?)));
        if let Some((id, peer)) = established.filter(|_| self.config.graceful.mode == GracefulMode::On) {
            let end = End::new(FsmEvent::ManualStop, "restarting".to_owned());
            let end = End { count: false, next: Next::Stop, ..end };
            let text = Notification::shutdown(cease::RESET, "restarting");
            // A reset that is made hard would flush.
            let end = if peer.notification { End { send: Some(text), soft: true, ..end } } else { end };
            self.end(id, end, t);
        }
        self.on_stop(cease::SHUTDOWN, Bytes::new(), t);
    }
}
