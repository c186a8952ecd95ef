//! Messages out of a byte stream (BGP-MSG-02).

use super::kind;
use crate::wire::{self, MessageError};

/// What is left of a connection's stream: at most one message that has not come in full.
///
/// Messages that lie whole in the input are handed out in place; only a message split over inputs is copied,
/// once, and never more of it than its length field says. So the buffer is bounded by the permitted message
/// length, and a peer that sends octet by octet costs a constant per octet.
#[derive(Debug, Default)]
pub(super) struct Framer {
    partial: Vec<u8>,
    /// `partial` was handed out as a message.
    done: bool,
}

impl Framer {
    /// The next whole message, taken off the front of `input`; `None` when all of `input` is used up.
    ///
    /// Fails as soon as a header is unusable; the stream is lost then.
    pub(super) fn cut<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        max_len: u16,
    ) -> Result<Option<&'a [u8]>, MessageError> {
        if self.done {
            self.partial.clear();
            self.done = false;
        }
        if self.partial.is_empty() && !input.is_empty() {
            wire::frame_len(input, max_len)?;
            if let Some(whole) = announced(input).and_then(|len| input.split_at_checked(len)) {
                *input = whole.1;
                return Ok(Some(whole.0));
            }
        }
        loop {
            let want = announced(&self.partial).unwrap_or(kind::HEADER);
            if self.partial.len() >= want {
                self.done = true;
                return Ok(Some(&self.partial));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (now, later) = input.split_at(input.len().min(want - self.partial.len()));
            self.partial.extend_from_slice(now);
            *input = later;
            wire::frame_len(&self.partial, max_len)?;
        }
    }

    /// The octets of an unfinished message.
    pub(super) fn held(&self) -> &[u8] {
        if self.done { &[] } else { &self.partial }
    }

    /// How many they are.
    pub(super) fn pending(&self) -> usize {
        if self.done { 0 } else { self.partial.len() }
    }
}

/// The length field, once the header is there. Only after `frame_len` had no objection: at least 19.
fn announced(buf: &[u8]) -> Option<usize> {
    match buf.get(..kind::HEADER)? {
        [.., hi, lo, _type] => Some(usize::from(u16::from_be_bytes([*hi, *lo])).max(kind::HEADER)),
        _ => None,
    }
}
