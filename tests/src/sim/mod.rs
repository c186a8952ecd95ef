//! Deterministic simulation of a fabric: whole nodes with the real reconciler on fake kernels, one virtual clock,
//! one seed, no threads.
//!
//! | file | what it holds |
//! |---|---|
//! | [`plan`] | what happens in a run, as text too; `generate` makes one from a seed |
//! | `world` | the clock, the queue of events, when all is quiet |
//! | `steps` | what each step of a plan does |
//! | `vtep` | one node, its reconciler and its kernel, driven as the daemon drives them |
//! | `net` | connections and encapsulated frames: delays, cuts, resets, full buffers |
//! | `reflector` | route reflectors as FRR is one |
//! | `frr` | VTEPs that behave as FRR does |
//! | `guest` | VMs: where they run, what they say and answer |
//! | `stack` | their caches, questions and duplicate checks |
//! | `hypervisor` | prepared, activated, aborted and released moves |
//! | `truth` | what must be so, without any code of `evpn::mobility`, and the comparison |
//! | `sniff` | what UPDATEs say, without any code of `evpn::wire` |
//! | [`mutants`] | planted faults that the comparison must find |
//! | [`mod@shrink`] | failing plans made small |
//!
//! After the last step everything that was broken is healed. Then all kernels must agree with the truth after four
//! times the longest one-way delay and 50 ms, but for guests that had moved faster than news travels: those speak
//! once more first.

mod frr;
mod generate;
mod guest;
mod hypervisor;
pub mod mutants;
mod net;
pub mod plan;
mod reflector;
mod rng;
pub mod shrink;
mod sniff;
mod stack;
mod steps;
mod truth;
mod vtep;
mod world;

pub use generate::{Wish, generate, long};
pub use mutants::Mutant;
pub use plan::Plan;
pub use rng::Rng;
pub use shrink::shrink;
pub use truth::Finding;
pub use world::{Outcome, held_by_daemons, run};

use std::path::{Path, PathBuf};

/// Where failing plans are kept.
pub fn kept_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sim-seeds")
}

/// The kept plans, by name.
pub fn kept() -> std::io::Result<Vec<(String, Plan)>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(kept_dir())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "txt") {
            let plan = std::fs::read_to_string(&path)?
                .parse()
                .map_err(|e| std::io::Error::other(format!("{}: {e}", path.display())))?;
            out.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), plan));
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}
