//! What explains an address.

use super::{AnsweredBy, KernelView, MoveView, Place};
use crate::types::{Mac, Seq, Span, Vni};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;

/// Who has an address, and why: the answer to `vtepd why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyView {
    /// [`VERSION`](super::VERSION).
    pub version: u32,
    /// VNI.
    pub vni: Vni,
    /// The MAC asked for, or the one behind the IP.
    pub mac: Option<Mac>,
    /// The IP asked for.
    pub ip: Option<IpAddr>,
    /// Who has it.
    pub owner: Place,
    /// For how long.
    pub since: Option<Span>,
    /// Sequence of the owner.
    pub seq: Option<Seq>,
    /// Moves of the MAC seen since it is known.
    pub moves: u32,
    /// The rule that decided.
    pub rule: Option<RuleView>,
    /// The answer in sentences.
    pub because: Vec<String>,
    /// Everybody who claims it, the winner first.
    pub candidates: Vec<CandidateView>,
    /// Of an IP: its binding.
    pub binding: Option<BindingView>,
    /// Of an IP: who was asked and told what of it.
    #[serde(default)]
    pub host_side: Option<HostSideView>,
    /// Of a MAC: addresses bound to it.
    pub ips: Vec<IpAddr>,
    /// The port here that lost it a short while ago.
    pub lost: Option<LostView>,
    /// What is remembered of the MAC's sequence.
    pub memory: Option<MemoryView>,
    /// Its last moves, oldest first.
    pub history: Vec<MoveView>,
    /// Rows that are wanted, beside what the kernel has.
    pub kernel: Vec<KernelView>,
}

/// A rule by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Short name, for programs.
    pub name: Cow<'static, str>,
    /// In words, with RFC section and requirement.
    pub text: String,
}

/// Somebody who claims an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    /// Where it would be: a port of ours, or a VTEP.
    pub place: Place,
    /// The neighbour whose route it is; `None`: our own claim.
    pub from: Option<IpAddr>,
    /// MAC.
    pub mac: Mac,
    /// IP of a MAC+IP route.
    pub ip: Option<IpAddr>,
    /// Sequence.
    pub seq: Seq,
    /// Sticky bit.
    pub sticky: bool,
    /// Default Gateway community.
    pub gateway: bool,
    /// Stale under graceful restart.
    pub stale: bool,
    /// This one counts.
    pub wins: bool,
    /// Why it does not; `None` for the winner.
    pub lost_by: Option<RuleView>,
}

/// The binding of an IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingView {
    /// MAC.
    pub mac: Mac,
    /// As [`HostView::origin`](super::HostView::origin).
    pub origin: String,
    /// Time since this MAC has it.
    pub age: Span,
    /// Time since the last confirmation.
    pub confirmed: Span,
    /// Probes sent since without an answer.
    pub probes: u8,
    /// It is a router (RFC 9047).
    pub router: bool,
    /// As [`HostView::answered_by`](super::HostView::answered_by).
    pub answered_by: AnsweredBy,
    /// Why.
    pub answered_why: String,
}

impl BindingView {
    /// Who answers for it, as a sentence.
    pub fn answered(&self) -> String {
        let who = match self.answered_by {
            AnsweredBy::Kernel => "This VTEP's kernel answers ARP and ND for it",
            AnsweredBy::Owner => "The host itself answers ARP and ND for it",
            AnsweredBy::Nobody => "Nobody answers ARP and ND for it",
        };
        format!("{who}: {}.", self.answered_why)
    }
}

/// ARP and ND of an address: questions, holders, what was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSideView {
    /// Questions to hosts that have not been answered.
    pub questions: Vec<QuestionView>,
    /// When its host is asked to confirm it, unless it speaks before.
    pub next_question: Option<Span>,
    /// Local hosts that are known to hold it in their caches, the latest last.
    pub holders: Vec<Mac>,
    /// What hosts were told of it last.
    pub told: Option<ToldView>,
}

/// A question that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionView {
    /// Who is asked.
    pub mac: Mac,
    /// Where.
    pub port: String,
    /// How often it has been asked.
    pub asked: u8,
    /// Until it is asked next, or given up.
    pub next: Span,
    /// It is bound, and will not be if nobody answers.
    pub suspect: bool,
}

/// What hosts were told by unsolicited ARP or ND (PROXY-LEARN-05).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldView {
    /// The MAC that they were told.
    pub mac: Mac,
    /// Time since the last frame.
    pub ago: Span,
    /// Rounds so far, and of how many.
    pub rounds: u8,
    /// As [`ToldView::rounds`].
    pub of: u8,
    /// Frames to all hosts of a port.
    pub broadcasts: u64,
    /// Frames to one host that was known to hold it.
    pub unicasts: u64,
    /// Frames to VTEPs that do not tell their hosts.
    pub vteps: u64,
}

/// A port that lost a MAC (PIT-04).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostView {
    /// Port.
    pub port: String,
    /// How long ago.
    pub ago: Span,
    /// Frames from there that were no claim.
    pub late_frames: u32,
    /// Time since the last of them.
    pub last: Option<Span>,
    /// Frames from there are no claim by themselves for so much longer.
    pub guarded: Span,
}

/// What is remembered of a sequence (EVPN-MOB-12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryView {
    /// Highest sequence seen or advertised.
    pub seq: Seq,
    /// By us.
    pub ours: bool,
    /// Released by its hypervisor until then, seconds since 1970 (PIT-04).
    pub released_until: Option<u64>,
}
