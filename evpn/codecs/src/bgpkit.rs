//! bgpkit-parser: BGP messages as they are in MRT and BMP.

use crate::Codec;
use crate::fold::Fold;
use bgpkit_parser::models::{AsnLength, BgpMessage};
use bgpkit_parser::parser::bgp::messages::parse_bgp_message;
use bytes::Bytes;

/// See the module.
pub struct Bgpkit;

impl Codec for Bgpkit {
    type Message = BgpMessage;

    fn decode(&self, octets: &[u8]) -> Option<BgpMessage> {
        parse_bgp_message(&mut Bytes::copy_from_slice(octets), false, &AsnLength::Bits32).ok()
    }

    /// It has no types for EVPN routes.
    fn fold(&self, _: &BgpMessage) -> Option<Fold> {
        None
    }

    fn encode(&self, _: &BgpMessage) -> Option<Vec<u8>> {
        None
    }
}
