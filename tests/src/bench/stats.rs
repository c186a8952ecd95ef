//! Samples and what is said about them.

use std::time::Duration;

/// Durations in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// One more.
    pub fn push(&mut self, ns: u64) {
        let at = self.0.partition_point(|v| *v <= ns);
        self.0.insert(at, ns);
    }

    /// All of these.
    pub fn of(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that `per_cent` of the samples do not exceed (nearest rank), in milliseconds.
    pub fn percentile(&self, per_cent: f64) -> f64 {
        let rank = (per_cent / 100.0 * self.0.len() as f64).ceil() as usize;
        let ns = self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or(0);
        Duration::from_nanos(ns).as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut s = Samples::default();
        for n in [5, 1, 4, 2, 3] {
            s.push(n * 1_000_000);
        }
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(s.percentile(50.0), 3.0));
        assert!(close(s.percentile(99.0), 5.0));
        assert!(close(s.percentile(1.0), 1.0));
        assert!(close(Samples::default().percentile(50.0), 0.0));
    }
}
