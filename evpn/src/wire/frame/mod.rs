//! Ethernet frames as a tap on an access port sees them, and the frames that we send to hosts: ARP (RFC 826,
//! RFC 5227), RARP announcements, IPv6 neighbour discovery (RFC 4861), leases of DHCP.
//!
//! Only what passes every check of its RFC becomes a value; the rest is a [`FrameError`] to count.

mod build;
mod carry;
mod dhcp;
mod groups;
mod nd;

pub use build::{
    Prefix, arp_probe, arp_reply, arp_request, arp_request_for, gratuitous_arp, gratuitous_arp_reply,
    neighbor_advertisement, neighbor_solicitation, neighbor_solicitation_for, rarp_announce,
    router_advertisement, unsolicited_advertisement,
};

pub use carry::{DhcpFor, dhcp_for, readdressed};
pub use dhcp::Dhcp;
pub use groups::{igmp_query, mld_query};
pub use nd::has_unknown_options;

use super::parse::{Parsed, array, ipv4};
use crate::types::Mac;
use nom::number::complete::be_u16;
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Ethertypes.
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const RARP: u16 = 0x8035;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const IPV6: u16 = 0x86dd;
}

/// A frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Destination.
    pub dst: Mac,
    /// Source: what is learned (HOST-RARP-02). Never a group address.
    pub src: Mac,
    /// VLAN identifier of the one 802.1Q tag, 0 for a priority tag.
    pub vlan: Option<u16>,
    /// What is in it.
    pub body: Body,
}

/// Contents of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// ARP request or reply.
    Arp(Arp),
    /// RARP announcement (HOST-RARP-01).
    Rarp(Rarp),
    /// Neighbour solicitation.
    NeighborSolicitation(NeighborSolicitation),
    /// Neighbour advertisement.
    NeighborAdvertisement(NeighborAdvertisement),
    /// Router solicitation.
    RouterSolicitation(RouterSolicitation),
    /// Router advertisement.
    RouterAdvertisement(RouterAdvertisement),
    /// DHCP of either family that names a client.
    Dhcp(Dhcp),
    /// Anything else, with its ethertype.
    Other(u16),
}

/// ARP of Ethernet and IPv4 (RFC 826).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arp {
    /// Reply rather than request.
    pub reply: bool,
    /// Who speaks; neither zero nor a group address.
    pub sender_mac: Mac,
    /// Unspecified in a probe.
    pub sender_ip: Ipv4Addr,
    /// Zero in a request.
    pub target_mac: Mac,
    /// Who is asked for, or answered.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Announces its own address, in request or reply form (HOST-GARP-01).
    pub fn is_gratuitous(&self) -> bool {
        !self.sender_ip.is_unspecified() && self.sender_ip == self.target_ip
    }
    /// Asks whether an address is taken (RFC 5227 §2.1.1, HOST-ARP-01): no binding follows from it.
    pub fn is_probe(&self) -> bool {
        !self.reply && self.sender_ip.is_unspecified()
    }
    /// The binding that may be learned (PROXY-LEARN-01).
    pub fn binding(&self) -> Option<(Mac, Ipv4Addr)> {
        (!self.sender_ip.is_unspecified()).then_some((self.sender_mac, self.sender_ip))
    }
}

/// RARP request as QEMU and ESXi send it after a move; no address is learned from it (HOST-RARP-02).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rarp {
    /// Who speaks.
    pub sender_mac: Mac,
    /// The machine it is about, normally the same.
    pub target_mac: Mac,
}

/// NS (RFC 4861 §4.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NeighborSolicitation {
    /// Unspecified during duplicate address detection.
    pub src: Ipv6Addr,
    /// Solicited-node group, or the target itself.
    pub dst: Ipv6Addr,
    /// Who is asked for.
    pub target: Ipv6Addr,
    /// Source link-layer address.
    pub slla: Option<Mac>,
    /// An option other than the source link-layer address and the nonce of RFC 7527 (PROXY-REPLY-08).
    pub other_options: bool,
}

impl NeighborSolicitation {
    /// Duplicate address detection (HOST-DAD-01): no binding follows from it.
    pub fn is_dad(&self) -> bool {
        self.src.is_unspecified()
    }
    /// Reachability probe to one host (PROXY-REPLY-06): forwarded, not answered.
    pub fn is_unicast(&self) -> bool {
        !self.dst.is_multicast()
    }
}

/// NA (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NeighborAdvertisement {
    /// Who speaks.
    pub src: Ipv6Addr,
    /// Who asked, or all nodes.
    pub dst: Ipv6Addr,
    /// The address in question.
    pub target: Ipv6Addr,
    /// R: a router.
    pub router: bool,
    /// S: in answer to an NS.
    pub solicited: bool,
    /// O: may replace a cached binding; clear for anycast (PROXY-LEARN-06).
    pub r#override: bool,
    /// Target link-layer address.
    pub tlla: Option<Mac>,
}

/// RS (RFC 4861 §4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouterSolicitation {
    /// May be unspecified.
    pub src: Ipv6Addr,
    /// Source link-layer address.
    pub slla: Option<Mac>,
}

/// RA (RFC 4861 §4.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouterAdvertisement {
    /// Link-local address of the router.
    pub src: Ipv6Addr,
    /// Seconds as default router, 0: none.
    pub lifetime: u16,
    /// Source link-layer address.
    pub slla: Option<Mac>,
}

/// Why a frame is not used. [`FrameError::name`] is the label of its counter.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum FrameError {
    /// Ends before the fields that its type needs.
    #[error("frame is truncated")]
    Truncated,
    /// The source is zero or a group address.
    #[error("source MAC is zero or a group address")]
    SourceMac,
    /// ARP or RARP of something else than Ethernet and IPv4, or of an operation that does not belong there.
    #[error("ARP is not of the RFC 826 form for Ethernet and IPv4")]
    ArpFormat,
    /// The sender is no possible host.
    #[error("ARP sender is zero, a group or a broadcast address")]
    ArpSender,
    /// IPv4 header that is too short, longer than the packet, or damaged.
    #[error("IPv4 header is malformed")]
    Ipv4Header,
    /// A DHCP message that ends too early, or of another hardware than Ethernet.
    #[error("DHCP message is malformed")]
    Dhcp,
    /// IPv6 header with another version or a length beyond the frame.
    #[error("IPv6 header is malformed")]
    Ipv6Header,
    /// Extension headers are malformed, too many, or steer elsewhere.
    #[error("IPv6 extension headers are malformed or too many")]
    ExtensionHeaders,
    /// Neighbour discovery in a fragment (RFC 6980 §5).
    #[error("neighbour discovery in a fragment")]
    Fragment,
    /// It came from beyond the link.
    #[error("hop limit is not 255")]
    HopLimit,
    /// ICMPv6 code is not 0.
    #[error("ICMPv6 code is not 0")]
    Code,
    /// ICMPv6 checksum.
    #[error("ICMPv6 checksum is wrong")]
    Checksum,
    /// An option of length 0 or beyond the message, or a link-layer address that is none.
    #[error("neighbour discovery option is malformed")]
    Option,
    /// The target is a group address.
    #[error("neighbour discovery target is a group address")]
    Target,
    /// Source and destination that may not occur together (RFC 4861 §6.1, §7.1).
    #[error("neighbour discovery addresses contradict each other")]
    Addresses,
}

impl FrameError {
    /// All of them, for counters.
    pub const ALL: [Self; 15] = [
        Self::Truncated,
        Self::SourceMac,
        Self::ArpFormat,
        Self::ArpSender,
        Self::Ipv4Header,
        Self::Dhcp,
        Self::Ipv6Header,
        Self::ExtensionHeaders,
        Self::Fragment,
        Self::HopLimit,
        Self::Code,
        Self::Checksum,
        Self::Option,
        Self::Target,
        Self::Addresses,
    ];

    /// Short name, for counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::SourceMac => "source-mac",
            Self::ArpFormat => "arp-format",
            Self::ArpSender => "arp-sender",
            Self::Ipv4Header => "ipv4-header",
            Self::Dhcp => "dhcp",
            Self::Ipv6Header => "ipv6-header",
            Self::ExtensionHeaders => "extension-headers",
            Self::Fragment => "fragment",
            Self::HopLimit => "hop-limit",
            Self::Code => "code",
            Self::Checksum => "checksum",
            Self::Option => "option",
            Self::Target => "target",
            Self::Addresses => "addresses",
        }
    }
}

/// Reads a frame from its destination address on, without the frame check sequence; padding is ignored.
///
/// # Errors
/// It is ARP, RARP, neighbour discovery or DHCP, or claims to be, and breaks a rule.
pub fn parse(frame: &[u8]) -> Result<Frame, FrameError> {
    let (rest, (dst, src, kind)) = ethernet(frame).map_err(|_| FrameError::Truncated)?;
    if !src.is_host() {
        return Err(FrameError::SourceMac);
    }
    let (payload, vlan, kind) = match (kind, rest) {
        (ethertype::VLAN, [a, b, c, d, payload @ ..]) => {
            let tag = u16::from_be_bytes([*a, *b]);
            (payload, Some(tag & 0x0fff), u16::from_be_bytes([*c, *d]))
        }
        (ethertype::VLAN, _) => return Err(FrameError::Truncated),
        _ => (rest, None, kind),
    };
    let body = match kind {
        ethertype::ARP => arp(payload)?,
        ethertype::RARP => rarp(payload)?,
        ethertype::IPV4 => dhcp::parse4(payload)?,
        ethertype::IPV6 => nd::parse(dst, src, payload)?,
        other => Body::Other(other),
    };
    Ok(Frame { dst, src, vlan, body })
}

fn mac(i: &[u8]) -> Parsed<'_, Mac> {
    array::<6>(i).map(|(r, b)| (r, Mac(b)))
}

fn ethernet(i: &[u8]) -> Parsed<'_, (Mac, Mac, u16)> {
    let (i, dst) = mac(i)?;
    let (i, src) = mac(i)?;
    let (i, kind) = be_u16(i)?;
    Ok((i, (dst, src, kind)))
}

/// The fields that ARP and RARP share.
struct Fields {
    kinds: [u8; 6],
    op: u16,
    arp: Arp,
}

fn fields(i: &[u8]) -> Parsed<'_, Fields> {
    let (i, kinds) = array::<6>(i)?;
    let (i, op) = be_u16(i)?;
    let (i, sender_mac) = mac(i)?;
    let (i, sender_ip) = ipv4(i)?;
    let (i, target_mac) = mac(i)?;
    let (i, target_ip) = ipv4(i)?;
    Ok((i, Fields { kinds, op, arp: Arp { reply: op == 2, sender_mac, sender_ip, target_mac, target_ip } }))
}

/// Hardware type Ethernet, protocol IPv4, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Reads the fields; what is too short for them may still be of another form.
fn of_ipv4(i: &[u8]) -> Result<Fields, FrameError> {
    match fields(i) {
        Ok((_, f)) if f.kinds == ETHERNET_IPV4 => Ok(f),
        Ok(_) => Err(FrameError::ArpFormat),
        Err(_) => Err(FrameError::Truncated),
    }
}

fn arp(i: &[u8]) -> Result<Body, FrameError> {
    let f = of_ipv4(i)?;
    if !matches!(f.op, 1 | 2) {
        return Err(FrameError::ArpFormat);
    }
    let ip = f.arp.sender_ip;
    if !f.arp.sender_mac.is_host() || ip.is_multicast() || ip.is_broadcast() {
        return Err(FrameError::ArpSender);
    }
    Ok(Body::Arp(f.arp))
}

fn rarp(i: &[u8]) -> Result<Body, FrameError> {
    let f = of_ipv4(i)?;
    if !matches!(f.op, 3 | 4) {
        return Err(FrameError::ArpFormat);
    }
    if !f.arp.sender_mac.is_host() {
        return Err(FrameError::ArpSender);
    }
    // A reply (4) comes from a boot server and announces nobody.
    Ok(match f.op {
        3 => Body::Rarp(Rarp { sender_mac: f.arp.sender_mac, target_mac: f.arp.target_mac }),
        _ => Body::Other(ethertype::RARP),
    })
}
