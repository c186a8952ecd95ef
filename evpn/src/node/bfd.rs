//! What BFD says of a neighbour, and what follows for its session (RFC 5882 §4.2, §4.3). The sessions themselves are the
//! driver's, on a thread of their own: they must not wait for what happens here.

use super::view::BfdView;
use super::{Event, Node, Output};
use crate::bfd::{Config, Diag, State};
use crate::session::{self, State as Bgp};
use crate::types::{PeerId, Time};
use crate::wire::cease;
use serde::Serialize;
use std::net::IpAddr;

/// BFD of a neighbour, as configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct BfdConfig {
    /// Intervals and multiplier.
    #[serde(flatten)]
    pub session: Config,
    /// Over several hops (BFD-08); `None`: unless the neighbour is on a link of ours.
    pub multihop: Option<bool>,
    /// Over several hops: least TTL or hop limit that is taken.
    pub min_ttl: u8,
}

/// The session that a neighbour is to have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BfdWant {
    /// The neighbour's address.
    pub address: IpAddr,
    /// Our address towards it; the kernel chooses when absent.
    pub from: Option<IpAddr>,
    /// As configured.
    pub config: BfdConfig,
}

/// How a neighbour's session stands. Later news replace earlier ones: `failures` tells what happened between them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BfdNews {
    /// Our state.
    pub state: State,
    /// Why it left Up the last time.
    pub diag: Diag,
    /// The neighbour's state, as it last said.
    pub remote: State,
    /// Times that the path or the neighbour has failed since the session began.
    pub failures: u64,
}

/// What is known of a neighbour's session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    news: BfdNews,
    since: Time,
}

impl Node {
    /// A neighbour's BFD begins and ends with its BGP session's start and stop (BFD-09).
    pub(super) fn want_bfd(&mut self, i: usize, input: &session::Input<'_>) {
        let c = &self.peers[i].config;
        let Some(config) = c.bfd else { return };
        let peer = PeerId(i as u32);
        let want = BfdWant { address: c.address, from: c.local_address, config };
        let want = match input {
            session::Input::Start => Some(want),
            // Nobody is switched off by a reset.
            session::Input::Stop { subcode: cease::RESET, .. } => return,
            // Also before a restart that keeps the routes: silence would be a failure (RFC 5882 §4.3).
            session::Input::Stop { .. } | session::Input::Away => None,
            session::Input::Accepted(_)
            | session::Input::Connected(_)
            | session::Input::Failed(..)
            | session::Input::Bytes(..)
            | session::Input::Closed(..)
            | session::Input::Timer
            | session::Input::Refresh(_)
            | session::Input::Reject { .. } => return,
        };
        self.journal.push(Output::Bfd { peer, want });
    }

    pub(super) fn bfd_news(&mut self, peer: PeerId, news: BfdNews, at: Time) {
        let i = peer.0 as usize;
        let Some(p) = self.peers.get_mut(i) else { return };
        let before = p.bfd.map(|k| k.news);
        let since = p.bfd.filter(|k| k.news.state == news.state).map_or(at, |k| k.since);
        p.bfd = Some(Known { news, since });
        let address = p.config.address;
        let was_up = before.is_some_and(|b| b.state == State::Up);
        let failed = news.failures > before.map_or(0, |b| b.failures);
        self.revision += 1;
        if failed {
            // RFC 9384: only an Established session is ended by it; an attempt finds out for itself (BFD-11).
            let ends_session = self.peers[i].session.state() == Bgp::Established;
            let why = if news.state == State::Up { "it failed and came back" } else { news.diag.as_str() };
            self.journal.event(Event::BfdDown { address, why: why.into(), ends_session }, at);
            if ends_session {
                self.drive(i, session::Input::Reject { subcode: cease::BFD_DOWN }, at);
            }
        } else if was_up && news.state != State::Up {
            // Somebody has switched it off: no reason to end a session (BFD-09).
            let why = if news.remote == State::AdminDown {
                "switched off by the neighbour"
            } else {
                "switched off here"
            };
            self.journal.event(Event::BfdDown { address, why: why.into(), ends_session: false }, at);
        }
        if news.state == State::Up && (failed || !was_up) {
            self.journal.event(Event::BfdUp { address }, at);
        }
    }

    /// For `show neighbors`.
    pub(super) fn bfd_view(&self, i: usize, at: Time) -> Option<BfdView> {
        let p = &self.peers[i];
        p.config.bfd?;
        let view = |k: Known| BfdView {
            state: k.news.state,
            diag: (k.news.diag != Diag::NONE).then(|| k.news.diag.as_str().into()),
            since: Some(at.since(k.since)),
            failures: k.news.failures,
        };
        Some(p.bfd.map_or(BfdView { state: State::Down, diag: None, since: None, failures: 0 }, view))
    }
}
