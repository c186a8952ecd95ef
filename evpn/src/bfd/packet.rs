//! The control packet (RFC 5880 §4.1, BFD-01) and the reasons to discard one (RFC 5880 §6.8.6, BFD-04).

use crate::types::Span;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Octets of a control packet without authentication.
pub const LENGTH: usize = 24;

/// Poll, final, control plane independent, authentication, demand, multipoint (RFC 5880 §4.1).
mod flag {
    pub(super) const POLL: u8 = 0x20;
    pub(super) const FINAL: u8 = 0x10;
    pub(super) const INDEPENDENT: u8 = 0x08;
    pub(super) const AUTHENTICATION: u8 = 0x04;
    pub(super) const DEMAND: u8 = 0x02;
    pub(super) const MULTIPOINT: u8 = 0x01;
}

/// State of a session (RFC 5880 §4.1), by its number on the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum State {
    /// Switched off by an operator.
    AdminDown = 0,
    /// No word from the other side.
    Down = 1,
    /// The other side speaks, but does not hear us yet.
    Init = 2,
    /// Both hear each other.
    Up = 3,
}

impl State {
    const fn of(octet: u8) -> Self {
        match octet >> 6 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    /// Word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a session left Up the last time: the five bits of RFC 5880 §4.1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diag(u8);

impl Diag {
    /// Nothing to tell.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const EXPIRED: Self = Self(1);
    /// The other side said that it is down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// Switched off by an operator.
    pub const ADMIN_DOWN: Self = Self(7);

    /// Of its number; more than 31 does not exist.
    pub const fn new(n: u8) -> Option<Self> {
        if n < 32 { Some(Self(n)) } else { None }
    }

    /// Number on the wire.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// What it means, in the words of RFC 5880 §4.1.
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => "reserved diagnostic",
        }
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A control packet. Intervals are whole microseconds, up to `u32::MAX` of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Why the sender left Up the last time.
    pub diag: Diag,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer (BFD-06).
    pub poll: bool,
    /// This is the answer.
    pub finale: bool,
    /// The sender's BFD goes on while its control plane restarts (RFC 5882 §4.3).
    pub independent: bool,
    /// The sender wants no periodic packets while both are up (RFC 5880 §6.6).
    pub demand: bool,
    /// Packets in a row that may be missed.
    pub multiplier: u8,
    /// The sender's number of the session; never 0.
    pub my: u32,
    /// Our number of the session; 0 while the sender does not know it.
    pub your: u32,
    /// The sender wants to send no more often than this.
    pub desired_tx: Span,
    /// The sender can receive no more often than this; 0: it wants no periodic packets.
    pub required_rx: Span,
    /// The sender wants echoes no more often than this; 0: none. We always say 0.
    pub required_echo_rx: Span,
}

/// Why a packet is discarded. The session does not change (BFD-04).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Reject {
    /// Version is not 1.
    #[error("version is not 1")]
    Version,
    /// Length below 24 (26 with authentication), or beyond what came.
    #[error("length does not fit")]
    Length,
    /// Detect multiplier 0.
    #[error("detect multiplier is 0")]
    Multiplier,
    /// Multipoint bit.
    #[error("multipoint bit is set")]
    Multipoint,
    /// The sender's discriminator is 0.
    #[error("the sender's discriminator is 0")]
    MyDiscriminator,
    /// Our discriminator is 0 though the sender is in Init or Up.
    #[error("our discriminator is 0 in Init or Up")]
    YourDiscriminator,
    /// Authentication bit; none is agreed on.
    #[error("authentication bit is set")]
    Authentication,
    /// No session has this discriminator.
    #[error("no session has this discriminator")]
    UnknownDiscriminator,
    /// No session with this sender, or with it on another port.
    #[error("no session with this sender")]
    Stranger,
    /// It has come over a router that should not be there (BFD-05, BFD-08).
    #[error("TTL or hop limit is too low")]
    Ttl,
}

impl Reject {
    /// Name for counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Length => "length",
            Self::Multiplier => "multiplier",
            Self::Multipoint => "multipoint",
            Self::MyDiscriminator => "my-discriminator",
            Self::YourDiscriminator => "your-discriminator",
            Self::Authentication => "authentication",
            Self::UnknownDiscriminator => "unknown-discriminator",
            Self::Stranger => "stranger",
            Self::Ttl => "ttl",
        }
    }
}

impl Packet {
    /// Reads a datagram's payload.
    ///
    /// # Errors
    /// It is to be discarded: the checks of RFC 5880 §6.8.6 that need no session, in their order.
    pub fn decode(octets: &[u8]) -> Result<Self, Reject> {
        let Some(p) = octets.first_chunk::<LENGTH>() else { return Err(Reject::Length) };
        if p[0] >> 5 != 1 {
            return Err(Reject::Version);
        }
        let set = |bit: u8| p[1] & bit != 0;
        let least = if set(flag::AUTHENTICATION) { LENGTH + 2 } else { LENGTH };
        let length = usize::from(p[3]);
        if length < least || length > octets.len() {
            return Err(Reject::Length);
        }
        let word = |at: usize| u32::from_be_bytes([p[at], p[at + 1], p[at + 2], p[at + 3]]);
        let span = |at: usize| Span::micros(word(at).into());
        let packet = Self {
            diag: Diag(p[0] & 0x1f),
            state: State::of(p[1]),
            poll: set(flag::POLL),
            finale: set(flag::FINAL),
            independent: set(flag::INDEPENDENT),
            demand: set(flag::DEMAND),
            multiplier: p[2],
            my: word(4),
            your: word(8),
            desired_tx: span(12),
            required_rx: span(16),
            required_echo_rx: span(20),
        };
        if packet.multiplier == 0 {
            return Err(Reject::Multiplier);
        }
        if set(flag::MULTIPOINT) {
            return Err(Reject::Multipoint);
        }
        if packet.my == 0 {
            return Err(Reject::MyDiscriminator);
        }
        if packet.your == 0 && matches!(packet.state, State::Init | State::Up) {
            return Err(Reject::YourDiscriminator);
        }
        if set(flag::AUTHENTICATION) {
            return Err(Reject::Authentication);
        }
        Ok(packet)
    }

    /// Its octets.
    pub fn encode(&self) -> [u8; LENGTH] {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let micros = |s: Span| u32::try_from(s.0 / 1000).unwrap_or(u32::MAX).to_be_bytes();
        let mut out = [0; LENGTH];
        out[0] = 1 << 5 | self.diag.0;
        out[1] = (self.state as u8) << 6
            | bit(self.poll, flag::POLL)
            | bit(self.finale, flag::FINAL)
            | bit(self.independent, flag::INDEPENDENT)
            | bit(self.demand, flag::DEMAND);
        out[2] = self.multiplier;
        out[3] = LENGTH as u8;
        out[4..8].copy_from_slice(&self.my.to_be_bytes());
        out[8..12].copy_from_slice(&self.your.to_be_bytes());
        out[12..16].copy_from_slice(&micros(self.desired_tx));
        out[16..20].copy_from_slice(&micros(self.required_rx));
        out[20..24].copy_from_slice(&micros(self.required_echo_rx));
        out
    }
}
