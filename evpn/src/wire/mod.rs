//! What travels between speakers, octet by octet.
//!
//! Parsers are nom 8 over plain `&[u8]`; their error is the unread tail, turned into a byte offset once at
//! the boundary. Types here are owned and validated: what exists as a value can be encoded.
//!
//! | to | use |
//! |---|---|
//! | cut a message out of a stream | [`frame_len`] |
//! | decode it, with the reactions of RFC 7606 | [`decode`] |
//! | encode any message | [`Message::encode`] |
//! | fill UPDATEs with routes of equal attributes | [`UpdateBuilder`] |
//! | read communities by meaning | [`ExtCommunity::kind`], [`Attrs::mobility`] and its neighbours |
//! | read and build frames of access ports | [`frame`] |

mod attr;
mod attr_codec;
mod builder;
mod codec;
mod community;
mod community_kind;
mod error;
pub mod frame;
mod message;
mod nlri;
mod nlri_codec;
mod notification;
mod open;
mod parse;
mod path;
mod route_display;
mod update;

pub use attr::{Aggregator, AsPath, AsSegment, Attrs, Origin, Pmsi, RawAttr, TunnelId};
pub use builder::{UpdateBuilder, end_of_rib, keepalive};
pub use codec::{Decoded, decode, frame_len};
pub use community::{Community, ExtCommunity, LargeCommunity, RouteTarget};
pub use community_kind::{Admin, ArpNd, ExtKind, ParseRouteTargetError};
pub use error::{Fault, MessageError, Notification, Treatment};
pub use message::{
    AddPathMode, Capability, DecodeCtx, EncodeCtx, Family, GrFamily, LlgrFamily, Message, MpReach, MpUnreach,
    NextHop, Nlri, Open, Refresh, RefreshKind, Update,
};
pub use nlri::{
    EthernetAd, EthernetSegment, EvpnNlri, EvpnRoute, Imet, Ipv4Prefix, Ipv6Prefix, JoinSync, LeaveSync,
    MacIp, Membership, MulticastKey, PrefixRoute, RouteKey, UnknownRoute,
};
pub use notification::{Shutdown, cease};
