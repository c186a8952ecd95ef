//! Our OPEN, and what follows from the peer's (RFC 4271 §4.2, RFC 5492).

use super::{Agreed, Config, graceful, kind};
use crate::types::Asn;
use crate::wire::{Capability, DecodeCtx, Family, Open};

/// Our OPEN (BGP-CAP-01). `plain`: without capabilities, after the peer refused them (BGP-CAP-10).
///
/// Enhanced refresh (70) is not offered: nothing behind the
/// session acts on it yet.
pub(super) fn our_open(config: &Config, plain: bool, now: graceful::Now) -> Open {
    let mut capabilities = Vec::new();
    if !plain {
        capabilities.extend(config.families.iter().copied().map(Capability::Multiprotocol));
        capabilities.push(Capability::RouteRefresh);
        if config.extended_message {
            capabilities.push(Capability::ExtendedMessage);
        }
        capabilities.extend(graceful::capabilities(&config.graceful, now, &config.families));
        // BGP-AS4-01
        capabilities.push(Capability::As4(config.local_as));
    }
    Open {
        my_as: u16::try_from(config.local_as.0).unwrap_or(Asn::TRANS),
        hold_time: config.hold_time,
        id: config.router_id,
        capabilities,
        // BGP-CAP-07; a peer that knows no capabilities knows no RFC 9072 either.
        extended: config.extended_open && !plain,
    }
}

/// How to decode before the peer's OPEN is known: as much as our own OPEN allows.
pub(super) fn before_open(config: &Config, plain: bool) -> DecodeCtx {
    DecodeCtx {
        as4: !plain,
        ibgp: config.peer_as.is_internal(config.local_as),
        families: Vec::new(),
        add_path: Vec::new(),
        max_len: if config.extended_message && !plain { kind::MAX_EXTENDED } else { kind::MAX_CLASSIC },
        enhanced_refresh: false,
    }
}

/// What both OPENs together mean (BGP-CAP-06, BGP-OPEN-09). `open` has passed validation.
pub(super) fn agree(config: &Config, plain: bool, open: &Open) -> Agreed {
    // Without capabilities we speak IPv4 unicast only, as does a peer that sends none (RFC 4760 §8).
    let ours = |f: &Family| !plain || *f == Family::IPV4;
    let theirs = open.families();
    let families: Vec<Family> =
        config.families.iter().copied().filter(|f| ours(f) && theirs.contains(f)).collect();

    let as4 = !plain && open.as4().is_some();
    let peer_as = open.asn();
    let ibgp = peer_as == config.local_as;
    let enhanced_refresh = open.has(&Capability::EnhancedRefresh);
    let before = before_open(config, plain);
    // Sending needs only the peer's promise (BGP-EXTM-01); with our own switched off neither side is to meet
    // long messages.
    let long = config.extended_message && open.has(&Capability::ExtendedMessage);
    let decode = DecodeCtx { as4, ibgp, families: families.clone(), enhanced_refresh, ..before };
    Agreed {
        peer_as,
        peer_id: open.id,
        ibgp,
        hold_time: config.hold_time.min(open.hold_time),
        families,
        as4,
        max_send: if long { kind::MAX_EXTENDED } else { kind::MAX_CLASSIC },
        // One direction suffices: a request may be sent to whoever said that it understands it (RFC 2918 §4).
        refresh: open.has(&Capability::RouteRefresh),
        enhanced_refresh,
        graceful: if plain { None } else { graceful::agree(&config.graceful, open) },
        decode,
    }
}

/// Whether the connection that we dialled survives a collision (BGP-COLL-02): if our identifier is the higher
/// one; equal identifiers between two ASes: if our AS number is (BGP-COLL-04).
pub(super) fn ours_survives(config: &Config, open: &Open) -> bool {
    (u32::from(config.router_id), config.local_as) > (u32::from(open.id), open.asn())
}
