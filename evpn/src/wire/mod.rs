//! What travels between speakers, octet by octet.
//!
//! Parsers are nom 8 over plain `&[u8]`; their error is the unread tail, turned into a byte offset once at
//! the boundary. Types here are owned and validated: what exists as a value can be encoded.

mod attr;
mod community;
mod error;
mod message;
mod nlri;

pub use attr::{Aggregator, AsPath, AsSegment, Attrs, Origin, Pmsi, RawAttr, TunnelId};
pub use community::{Community, ExtCommunity, LargeCommunity, RouteTarget};
pub use error::{Fault, MessageError, Notification, Treatment};
pub use message::{
    AddPathMode, Capability, DecodeCtx, Family, GrFamily, LlgrFamily, Message, MpReach, MpUnreach, NextHop,
    Nlri, Open, Refresh, RefreshKind, Update,
};
pub use nlri::{
    EthernetAd, EthernetSegment, EvpnNlri, EvpnRoute, Imet, Ipv4Prefix, Ipv6Prefix, JoinSync, LeaveSync,
    MacIp, Membership, MulticastKey, PrefixRoute, RouteKey, UnknownRoute,
};
