//! Names for the rules by which one claim beats another, for `vtepd why`. [`super::compare`] decides; this says why.

use super::Claim;
use core::cmp::Ordering;
use core::fmt;

/// What separates two claims.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// There is one claim only.
    OnlyClaim,
    /// A stale claim defends nothing (PIT-23).
    NotStale,
    /// A gateway's MAC stays where it is (EVPN-BEST-01, EVPN-MOB-19).
    Gateway,
    /// A sticky MAC stays where it is (EVPN-MOB-17, -18).
    Sticky,
    /// The higher mobility sequence (EVPN-MOB-06).
    HigherSequence,
    /// On a tie the lower VTEP address (EVPN-MOB-08).
    LowerVtep,
    /// The same claim, told twice.
    SameClaim,
    /// The better claim does not count here: the address is frozen as a duplicate, or its VTEP may not have it.
    NotAdmitted,
    /// Claims are equal where mobility looks, or there are more than two and their order as routes decided.
    RouteOrder,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::OnlyClaim,
        Self::NotStale,
        Self::Gateway,
        Self::Sticky,
        Self::HigherSequence,
        Self::LowerVtep,
        Self::SameClaim,
        Self::NotAdmitted,
        Self::RouteOrder,
    ];

    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnlyClaim => "only-claim",
            Self::NotStale => "not-stale",
            Self::Gateway => "gateway",
            Self::Sticky => "sticky",
            Self::HigherSequence => "higher-sequence",
            Self::LowerVtep => "lower-vtep",
            Self::SameClaim => "same-claim",
            Self::NotAdmitted => "not-admitted",
            Self::RouteOrder => "route-order",
        }
    }

    /// In words, with where it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::OnlyClaim => "nobody else claims it",
            Self::NotStale => "a stale route defends nothing (PIT-23)",
            Self::Gateway => "the address of a gateway does not move (RFC 9135 §4, EVPN-BEST-01)",
            Self::Sticky => "a sticky address does not move (RFC 7432 §15.2, EVPN-MOB-18)",
            Self::HigherSequence => "higher sequence number (RFC 7432 §15, EVPN-MOB-06)",
            Self::LowerVtep => "equal sequence numbers, lower VTEP address (RFC 7432 §15, EVPN-MOB-08)",
            Self::SameClaim => "the same claim by another way",
            Self::NotAdmitted => {
                "the other does not count here: frozen as a duplicate, outside the mobility domain, or beyond its limits"
            }
            Self::RouteOrder => "order of routes (RFC 4271 §9.1.2.2, EVPN-BEST-03)",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The first rule by which two claims differ, and which of them is the better one: `Greater` when `a` is. Always of
/// one mind with [`super::compare`].
pub fn explain(a: &Claim, b: &Claim) -> (Ordering, Rule) {
    let steps = [
        (b.stale.cmp(&a.stale), Rule::NotStale),
        (a.gateway.cmp(&b.gateway), Rule::Gateway),
        (a.sticky.cmp(&b.sticky), Rule::Sticky),
        (a.seq.serial_cmp(b.seq), Rule::HigherSequence),
        (super::vtep_order(b.vtep, a.vtep), Rule::LowerVtep),
    ];
    steps.into_iter().find(|(o, _)| o.is_ne()).unwrap_or((Ordering::Equal, Rule::SameClaim))
}

/// What the two claims have where they differ, the winner's first.
pub fn difference(rule: Rule, winner: &Claim, loser: &Claim) -> Option<String> {
    match rule {
        Rule::HigherSequence => Some(format!("{} against {}", winner.seq, loser.seq)),
        Rule::LowerVtep => Some(format!("{} against {}", winner.vtep, loser.vtep)),
        Rule::OnlyClaim
        | Rule::NotStale
        | Rule::Gateway
        | Rule::Sticky
        | Rule::SameClaim
        | Rule::NotAdmitted
        | Rule::RouteOrder => None,
    }
}
