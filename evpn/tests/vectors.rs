//! The golden vectors: every well-formed one decodes to its meaning and re-encodes to its octets, every defective
//! one gives its required reaction.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use evpn::wire::{Treatment, decode, frame_len};
use support::{to_hex, vectors};

/// Vectors that cannot re-encode to their octets, because they show forms that one accepts but does not send.
const NOT_CANONICAL: &[(&str, &str)] = &[
    ("OPEN-04", "one parameter per capability; all of ours share one (BGP-CAP-01)"),
    ("OPEN-17", "a reserved octet that is not 0 (BGP-MP-02)"),
    ("OPEN-X3", "an arbitrary classic length before the extended one (BGP-CAP-09)"),
    ("EVPN-T2-24", "the Extended Length flag on short attributes (BGP-UPD-03)"),
    ("EVPN-T2-25", "MP_REACH_NLRI last (BGP-UPD-04)"),
    ("EOR-04", "the Extended Length flag on a short attribute (BGP-UPD-03)"),
];

#[test]
fn every_well_formed_bgp_vector_re_encodes_to_its_octets() {
    for v in vectors().iter().filter(|v| v.is_bgp() && !v.is_defective()) {
        let mut rest = &v.bytes[..];
        let ctx = v.decode_ctx();
        while !rest.is_empty() {
            let n = frame_len(rest, ctx.max_len).unwrap().unwrap();
            let d = decode(&rest[..n], &ctx).unwrap_or_else(|e| panic!("{}: {e:?}", v.id));
            let faults: Vec<_> = d.faults.iter().map(|f| f.treatment).collect();
            // A well-formed route of a type that we do not know is counted, not an error (EVPN-ERR-01).
            let expected: &[_] = if v.id == "EVPN-T10-01" { &[Treatment::SkipNlri] } else { &[] };
            assert_eq!(faults, expected, "{}", v.id);
            let again = d.message.encode(&v.encode_ctx());
            if NOT_CANONICAL.iter().any(|(id, _)| *id == v.id) {
                assert_ne!(to_hex(&again), to_hex(&rest[..n]), "{} is canonical after all", v.id);
                assert_eq!(decode(&again, &ctx).unwrap().message, d.message, "{}", v.id);
            } else {
                assert_eq!(to_hex(&again), to_hex(&rest[..n]), "{}", v.id);
            }
            rest = &rest[n..];
        }
    }
}
