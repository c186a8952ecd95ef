//! What is worth telling a person. Logs, history, metrics and `vtepd watch` all derive from this enum.

use super::config::DuplicateAction;
use super::input::{About, Requester};
use super::view::Place;
use crate::types::{IfIndex, Mac, PeerId, Seq, Span, Vni};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// How loud.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Small state changes.
    Debug,
    /// Things a user notices.
    Info,
    /// An operator should look.
    Warn,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A BGP session reached Established.
    NeighborUp {
        /// Index.
        peer: PeerId,
        /// Address.
        address: IpAddr,
        /// Negotiated hold time, seconds.
        hold_time: u16,
    },
    /// A BGP session left Established, or could not get there.
    NeighborDown {
        /// Index.
        peer: PeerId,
        /// Address.
        address: IpAddr,
        /// Why, for people; names message, attribute and offset where a peer was at fault.
        why: String,
    },
    /// An operator has done something to a neighbour.
    NeighborAdmin {
        /// Address.
        address: IpAddr,
        /// What.
        text: String,
    },
    /// A neighbour went away and may come back: its routes stay, and are stale (RFC 4724 §4.2).
    NeighborAway {
        /// Index.
        peer: PeerId,
        /// Address.
        address: IpAddr,
        /// How many.
        routes: usize,
        /// For how long at most, unless it comes back.
        keep: Span,
    },
    /// Stale routes of a neighbour are dropped.
    StaleRoutesDropped {
        /// Index.
        peer: PeerId,
        /// Address.
        address: IpAddr,
        /// How many.
        routes: usize,
        /// Why.
        why: String,
    },
    /// BFD says that a neighbour is there.
    BfdUp {
        /// Address.
        address: IpAddr,
    },
    /// BFD says so no more.
    BfdDown {
        /// Address.
        address: IpAddr,
        /// Why.
        why: String,
        /// The BGP session was Established and ends with it (BFD-11).
        ends_session: bool,
    },
    /// The initial routes of a neighbour are complete (RFC 4724 §2).
    EndOfRib {
        /// Index.
        peer: PeerId,
        /// Address.
        address: IpAddr,
    },
    /// Something about a session that changed nothing.
    SessionNote {
        /// Address.
        address: IpAddr,
        /// What.
        text: String,
    },
    /// A peer sent something faulty and the session goes on (RFC 7606).
    UpdateFault {
        /// Address.
        address: IpAddr,
        /// Byte offset in the message.
        offset: usize,
        /// Attribute type code.
        attribute: Option<u8>,
        /// What is wrong.
        what: String,
        /// Reaction.
        treatment: String,
        /// The routes concerned, in a few words.
        routes: String,
        /// The UPDATE in hex, cut short if it is long.
        octets: String,
    },
    /// A MAC appeared behind a local port.
    MacLocal {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Port.
        port: String,
        /// Sequence number we advertise.
        seq: Seq,
    },
    /// A local MAC went away.
    MacGone {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Port it was behind.
        port: String,
        /// Why.
        why: String,
    },
    /// A MAC moved. The finished record is in `show moves`.
    Move(Arc<super::view::MoveView>),
    /// A frame of a MAC that just moved away took its row back; the row is put back (PIT-04).
    LateFrame {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The port that lost it.
        port: String,
        /// Time since the move.
        after: Span,
    },
    /// A local host claims a MAC that a peer advertises as sticky (EVPN-MOB-17).
    StickyConflict {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Sticky owner.
        owner: IpAddr,
        /// Where it was seen.
        port: String,
    },
    /// Two VTEPs call a MAC sticky; the lower address wins (EVPN-MOB-18).
    StickyTwice {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Who has it.
        owner: IpAddr,
        /// Who else claims it.
        rival: IpAddr,
    },
    /// A peer claims a MAC that is configured as sticky here; it stays here (EVPN-MOB-17).
    StickyClaimed {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The port it belongs to.
        port: String,
        /// Who claims it.
        vtep: IpAddr,
    },
    /// A MAC that is configured as sticky was seen on another port of ours; it stays where it is (EVPN-MOB-17).
    StickyMisplaced {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The port it belongs to.
        port: String,
        /// Where it was seen.
        seen: String,
    },
    /// The MAC of a gateway was seen as a source on an access port; it is not learned (EVPN-MOB-19).
    GatewaySeen {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Where it was seen.
        port: String,
    },
    /// A local host claims an address that a gateway or a sticky MAC has; it is not learned (EVPN-MOB-18, -19).
    AddressRefused {
        /// VNI.
        vni: Vni,
        /// The host.
        mac: Mac,
        /// What it claims.
        ip: IpAddr,
        /// Whose it is.
        owner: Mac,
        /// Where the owner is.
        vtep: IpAddr,
    },
    /// An address that an operator has bound to certain MACs, here or at a peer, was claimed by another one; it stays
    /// (PROXY-LEARN-03, PROXY-EC-04).
    StaticHostClaimed {
        /// VNI.
        vni: Vni,
        /// Address.
        ip: IpAddr,
        /// Whose it is.
        owner: Mac,
        /// Who claims it.
        mac: Mac,
        /// Where that one is.
        place: Place,
    },
    /// An address is bound to several MACs in the configurations of different VTEPs (PROXY-EC-04).
    StaticHostTwice {
        /// VNI.
        vni: Vni,
        /// Address.
        ip: IpAddr,
        /// Who has it here: by our own configuration, or by the route that came last.
        owner: Mac,
        /// Another one.
        rival: Mac,
    },
    /// A peer advertises an address of our own bridge or ports as a host's; it is not installed (EVPN-MOB-19).
    OwnAddress {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Who advertises it.
        vtep: IpAddr,
    },
    /// A sequence number is about to wrap. Peers that compare plainly (FRR) will take what follows for older
    /// than what they have (EVPN-MOB-09).
    SequenceNearWrap {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The number.
        seq: Seq,
    },
    /// Two hosts have the same address, and both are alive (EVPN-MOB-15, EVPN-XMOB-16).
    Duplicate {
        /// VNI.
        vni: Vni,
        /// The address.
        address: About,
        /// Where it has been; the last one has it now.
        owners: Vec<String>,
        /// Our port where one of them is.
        port: String,
        /// What is done about it.
        action: DuplicateAction,
    },
    /// A peer has found out that two hosts have one address: nobody is answered for it here either (PROXY-DUP-04).
    ContestedAfar {
        /// VNI.
        vni: Vni,
        /// Address.
        ip: IpAddr,
        /// Who has it.
        holder: Mac,
        /// Who claims it.
        mac: Mac,
        /// Where that one is.
        vtep: IpAddr,
    },
    /// A duplicate is one no more, or was let go.
    DuplicateEnded {
        /// VNI.
        vni: Vni,
        /// The address.
        address: About,
        /// Why.
        why: String,
    },
    /// An address stays where it is, although another VTEP or port has claimed it. Told once as long as it lasts.
    MoveRefused {
        /// VNI.
        vni: Vni,
        /// The address.
        address: About,
        /// Where it stays.
        from: Place,
        /// Who claims it.
        to: Place,
        /// Why it is refused.
        why: String,
    },
    /// A host claims an address that its port is not allowed to have; it is not learned (PIT-07).
    AddressNotAllowed {
        /// VNI.
        vni: Vni,
        /// The host.
        mac: Mac,
        /// What it claims.
        ip: IpAddr,
        /// Its port.
        port: String,
    },
    /// A frame's binding was dropped because the forwarding table never agreed with it (PIT-07).
    BindingRefused {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Claimed address.
        ip: Option<IpAddr>,
        /// Port.
        port: String,
    },
    /// A move to this host was prepared; nothing is advertised yet.
    MovePrepared {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The guest's port.
        port: String,
        /// Who asked.
        by: Requester,
        /// Given up after this time.
        timeout: Span,
    },
    /// The kernel has the MAC on its port, and its routes go out, before the guest has said anything (PIT-06).
    MoveActivated {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The guest's port.
        port: String,
        /// Sequence number we advertise.
        seq: Seq,
        /// Who asked.
        by: Requester,
    },
    /// A prepared or activated move will not happen.
    MoveAborted {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The port that was named.
        port: String,
        /// Why.
        why: String,
    },
    /// A hypervisor says that a guest leaves this host (PIT-04).
    MoveReleased {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Who asked.
        by: Requester,
        /// Its frames from the old port are no claim for so long.
        timeout: Span,
        /// It has stopped, and the target's VTEP is told so (PIT-26).
        at_stop: bool,
    },
    /// The VTEP that has a MAC says that its guest has stopped: it is activated here, where it is prepared (PIT-26).
    MoveMarked {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Who says so.
        vtep: IpAddr,
        /// The guest's port here.
        port: String,
    },
    /// What arrived for a guest that stood still has gone after it, or back to it (PIT-26).
    FramesHeld {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// Frames that were kept and then sent.
        kept: u64,
        /// Frames that were sent on as they came.
        relayed: u64,
        /// Frames for which there was no room, or that the kernel did not take.
        dropped: u64,
    },
    /// A prepared move was not activated in time, or an activated one's guest was never heard.
    MoveTimedOut {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
        /// The port that was named.
        port: String,
        /// What did not happen.
        why: String,
    },
    /// A VTEP joined the flood list of a VNI.
    VtepJoined {
        /// VNI.
        vni: Vni,
        /// VTEP.
        vtep: IpAddr,
    },
    /// A VTEP left it.
    VtepLeft {
        /// VNI.
        vni: Vni,
        /// VTEP.
        vtep: IpAddr,
    },
    /// A VNI's devices are all there (or not any more).
    VniReady {
        /// VNI.
        vni: Vni,
        /// Ready to forward.
        ready: bool,
        /// What is missing.
        why: String,
    },
    /// The kernel refused a row.
    WriteFailed {
        /// The row.
        row: String,
        /// errno.
        errno: i32,
        /// Text.
        text: String,
    },
    /// A row of ours was changed or deleted by somebody and is written again.
    RowRepaired {
        /// The row.
        row: String,
    },
    /// The kernel did not acknowledge a write in time; the withdrawal went out anyway (design section 4).
    WithdrawForced {
        /// VNI.
        vni: Vni,
        /// MAC.
        mac: Mac,
    },
    /// Kernel notifications were lost; all tables are read again.
    Overrun {
        /// How often so far.
        count: u64,
    },
    /// A setting of a device differs from what is needed.
    DeviceProblem {
        /// Device.
        device: String,
        /// What, and the way out.
        problem: String,
        /// Index, when it exists.
        index: Option<IfIndex>,
    },
    /// A limit bit.
    Limit {
        /// Which.
        what: String,
        /// Its value.
        limit: u64,
    },
    /// A port makes MACs up: it lets only known ones in.
    PortGuarded {
        /// VNI.
        vni: Vni,
        /// Port.
        port: String,
        /// MACs beyond the limits within ten seconds that it took.
        limit: u32,
        /// MACs that it lets in.
        allowed: usize,
        /// How long it has to be quiet before it is opened.
        hold: Span,
    },
    /// It was quiet for long enough, or is no port of the VNI any more: it lets all MACs in.
    PortOpened {
        /// VNI.
        vni: Vni,
        /// Port.
        port: String,
        /// How long it was guarded.
        after: Span,
        /// Frames that were dropped.
        frames: u64,
    },
    /// The kernel does not drop what such a port says.
    GuardRefused {
        /// VNI.
        vni: Vni,
        /// Port.
        port: String,
        /// What it said.
        why: String,
    },
    /// A hypervisor's news of a guest: expected, here, gone, running twice (PIT-25).
    Guest {
        /// The guest.
        guest: String,
        /// What.
        text: String,
        /// An operator should look.
        warn: bool,
    },
    /// The journal of sequences in the state directory was damaged (EVPN-MOB-12). The daemon goes on.
    StateDamaged {
        /// The file.
        path: String,
        /// First octet that is not believed; `None` when it was found while the file was in use.
        offset: Option<u64>,
        /// What is wrong.
        what: String,
        /// What became of the file.
        outcome: String,
    },
    /// Sequences cannot be kept: a full disk, or one that fails. Tried again every second. Told once as long as it
    /// lasts, and again when it becomes worse.
    StateFailing {
        /// The file.
        path: String,
        /// What the system says.
        why: String,
        /// What would be lost, and when.
        risk: String,
    },
    /// They are kept again, for some seconds by now.
    StateRecovered {
        /// The file.
        path: String,
        /// How many records had waited.
        records: usize,
        /// How long it lasted.
        after: Span,
    },
    /// Rows adopted at start that nobody confirmed are removed.
    StaleSwept {
        /// How many.
        rows: usize,
    },
}

impl Event {
    /// How loud it is; decided here and nowhere else.
    pub fn level(&self) -> Level {
        match self {
            Self::MacLocal { .. }
            | Self::MacGone { .. }
            | Self::RowRepaired { .. }
            | Self::LateFrame { .. } => Level::Debug,
            Self::NeighborUp { .. }
            | Self::SessionNote { .. }
            | Self::NeighborAdmin { .. }
            | Self::NeighborDown { .. }
            | Self::EndOfRib { .. }
            | Self::NeighborAway { .. }
            | Self::StaleRoutesDropped { .. }
            | Self::BfdUp { .. }
            | Self::BfdDown { .. }
            | Self::Move(_)
            | Self::MovePrepared { .. }
            | Self::MoveActivated { .. }
            | Self::MoveAborted { .. }
            | Self::MoveReleased { .. }
            | Self::MoveMarked { .. }
            | Self::FramesHeld { .. }
            | Self::VtepJoined { .. }
            | Self::VtepLeft { .. }
            | Self::VniReady { .. }
            | Self::Guest { warn: false, .. }
            | Self::DuplicateEnded { .. }
            | Self::PortOpened { .. }
            | Self::StateRecovered { .. }
            | Self::StaleSwept { .. } => Level::Info,
            Self::UpdateFault { .. }
            | Self::StickyConflict { .. }
            | Self::StickyTwice { .. }
            | Self::StickyClaimed { .. }
            | Self::StickyMisplaced { .. }
            | Self::GatewaySeen { .. }
            | Self::AddressRefused { .. }
            | Self::StaticHostClaimed { .. }
            | Self::StaticHostTwice { .. }
            | Self::OwnAddress { .. }
            | Self::SequenceNearWrap { .. }
            | Self::Duplicate { .. }
            | Self::ContestedAfar { .. }
            | Self::MoveRefused { .. }
            | Self::AddressNotAllowed { .. }
            | Self::BindingRefused { .. }
            | Self::MoveTimedOut { .. }
            | Self::WriteFailed { .. }
            | Self::WithdrawForced { .. }
            | Self::Overrun { .. }
            | Self::DeviceProblem { .. }
            | Self::Guest { warn: true, .. }
            | Self::PortGuarded { .. }
            | Self::GuardRefused { .. }
            | Self::StateDamaged { .. }
            | Self::StateFailing { .. }
            | Self::Limit { .. } => Level::Warn,
        }
    }
}
