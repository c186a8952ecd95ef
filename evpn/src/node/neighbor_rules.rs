//! What an operator has laid down for a neighbour beyond who it is.

use serde::Serialize;

/// Rules of one neighbour; the default is what a neighbour gets that says nothing of them.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct NeighborRules {
    /// Down from the start, with the text for the other side; empty: none (BGP-SHUT-01).
    pub shutdown: Option<String>,
    /// Seconds of the send hold timer; `None`: 8 minutes or twice the hold time, `Some(0)`: off (BGP-SHT-02).
    pub send_hold_time: Option<u32>,
}
