//! The words of a line, and what they may mean.

use super::Port;
use crate::world;
use evpn::types::{Mac, Seq, Span};
use std::net::IpAddr;

/// The words of one line.
pub(super) struct Words<'a> {
    pub(super) all: Vec<&'a str>,
    pub(super) next: usize,
}

pub(super) type Parsed<T> = Result<T, String>;

impl<'a> Words<'a> {
    pub(super) fn peek(&self) -> Option<&'a str> {
        self.all.get(self.next).copied()
    }

    pub(super) fn take(&mut self, what: &str) -> Parsed<&'a str> {
        let w = self.peek().ok_or_else(|| format!("{what} is missing at the end"))?;
        self.next += 1;
        Ok(w)
    }

    pub(super) fn skip(&mut self, word: &str) -> bool {
        let hit = self.peek() == Some(word);
        self.next += usize::from(hit);
        hit
    }

    pub(super) fn must(&mut self, word: &str) -> Parsed<()> {
        if self.skip(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> String {
        match self.peek() {
            Some(w) => format!("expected {wanted}, found `{w}`"),
            None => format!("expected {wanted} at the end"),
        }
    }

    pub(super) fn end(&self) -> Parsed<()> {
        if self.next == self.all.len() { Ok(()) } else { Err(self.unexpected("the end of the line")) }
    }

    pub(super) fn mac(&mut self) -> Parsed<Mac> {
        let w = self.take("a MAC")?;
        if w.len() == 2
            && let Ok(n) = u8::from_str_radix(w, 16)
        {
            return Ok(world::mac(n));
        }
        w.parse().map_err(|_| format!("`{w}` is no MAC: two hex digits, or all twelve with colons"))
    }

    pub(super) fn maybe_ip(&mut self) -> Option<IpAddr> {
        let ip = self.peek()?.parse().ok()?;
        self.next += 1;
        Some(ip)
    }

    pub(super) fn ip(&mut self) -> Parsed<IpAddr> {
        self.maybe_ip().ok_or_else(|| self.unexpected("an IP address"))
    }

    pub(super) fn port(&mut self) -> Parsed<Port> {
        match self.take("a port")? {
            "p1" => Ok(Port::P1),
            "p2" => Ok(Port::P2),
            other => Err(format!("`{other}` is no port: p1 or p2")),
        }
    }

    pub(super) fn seq(&mut self) -> Parsed<Option<Seq>> {
        if !self.skip("seq") {
            return Ok(None);
        }
        let w = self.take("a sequence")?;
        w.parse().map(|n| Some(Seq(n))).map_err(|_| format!("`{w}` is no sequence number"))
    }

    pub(super) fn span(&mut self) -> Parsed<Span> {
        let w = self.take("a length of time")?;
        span(w).ok_or_else(|| format!("`{w}` is no length of time: 5ms, 1s, 1s5ms, 2m"))
    }

    pub(super) fn times(&mut self) -> Parsed<Option<usize>> {
        if self.skip("once") {
            return Ok(Some(1));
        }
        let Some(n) = self.peek().and_then(|w| w.parse().ok()) else { return Ok(None) };
        self.next += 1;
        self.must("times")?;
        Ok(Some(n))
    }
}

/// Numbers with units, one after the other.
fn span(mut w: &str) -> Option<Span> {
    let mut sum = Span::ZERO;
    if w.is_empty() {
        return None;
    }
    while !w.is_empty() {
        let digits = w.find(|c: char| !c.is_ascii_digit())?;
        let n: u64 = w.get(..digits)?.parse().ok()?;
        let rest = w.get(digits..)?;
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let one = match rest.get(..unit)? {
            "us" => Span::micros(1),
            "ms" => Span::millis(1),
            "s" => Span::secs(1),
            "m" => Span::secs(60),
            "h" => Span::secs(3600),
            _ => return None,
        };
        sum = Span(sum.0 + n.checked_mul(one.0)?);
        w = rest.get(unit..)?;
    }
    Some(sum)
}
