//! Random numbers for jitter: splitmix64, so that equal seeds give equal runs.

use crate::types::Span;

/// Deterministic generator, not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `span` times a fresh factor between two of so many thousandths, the upper one never quite reached.
    pub(crate) fn between(&mut self, span: Span, low: u64, high: u64) -> Span {
        span.scaled(low * 4096 + (high - low) * (self.next() & 0xfff), 1000 * 4096)
    }

    /// `span` times a fresh factor from 0.75 to 1.0 (RFC 4271 §10, BGP-FSM-13).
    pub(crate) fn jitter(&mut self, span: Span) -> Span {
        span.scaled(3 * 4096 + (self.next() & 0xfff), 4 * 4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_three_quarters_and_one_and_fills_the_range() {
        let mut rng = Rng::new(7);
        let all: Vec<u64> = (0..10_000).map(|_| rng.jitter(Span::secs(120)).0).collect();
        let (low, high) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!((90_000_000_000..90_300_000_000).contains(low), "{low}");
        assert!((119_700_000_000..=120_000_000_000).contains(high), "{high}");
    }

    #[test]
    fn splitmix64_gives_the_reference_sequence() {
        let mut rng = Rng::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
