//! Octets of a QMP socket cut into lines, none of them longer than [`MAX_LINE`].

/// The longest line that is taken in, octets. The longest of QEMU's own that is asked for here, a full VLAN table
/// in `query-rx-filter`, has about half of it per NIC.
pub const MAX_LINE: usize = 64 << 10;

/// The other side sent a line that has no end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a line of more than 64 KiB")]
pub struct TooLong;

/// What was read and is not yet a line.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Octets in front that were handed out already.
    done: usize,
    /// Octets from `done` on that are known to have no line end.
    searched: usize,
}

impl Lines {
    /// Takes octets in.
    pub fn push(&mut self, octets: &[u8]) {
        if self.done > 0 {
            self.buffer.drain(..self.done);
            self.done = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole line without its end; empty ones are left out.
    ///
    /// # Errors
    /// It is too long, whether it has an end or not.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let rest = self.buffer.get(self.done..).unwrap_or_default();
            let fresh = rest.get(self.searched..).unwrap_or_default();
            let Some(n) = fresh.iter().position(|b| *b == b'\n') else {
                self.searched = rest.len();
                return if rest.len() > MAX_LINE { Err(TooLong) } else { Ok(None) };
            };
            let (from, len) = (self.done, self.searched + n);
            self.done = from + len + 1;
            self.searched = 0;
            if len > MAX_LINE {
                return Err(TooLong);
            }
            if self.buffer[from..from + len].iter().any(|b| !b.is_ascii_whitespace()) {
                return Ok(Some(self.buffer[from..from + len].trim_ascii()));
            }
        }
    }

    /// Whether a line has begun and not ended.
    pub fn partial(&self) -> bool {
        self.buffer.len() > self.done
    }

    /// Forgets everything: a new connection begins.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(l) = lines.next_line().expect("short") {
            out.push(String::from_utf8_lossy(l).into_owned());
        }
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let text = b"{\"a\":1}\r\n\r\n{\"b\":2}\n{\"c\"";
        for cut in 1..text.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for part in text.chunks(cut) {
                lines.push(part);
                got.extend(all(&mut lines));
            }
            assert_eq!(got, ["{\"a\":1}", "{\"b\":2}"], "cut every {cut}");
            assert!(lines.partial());
            lines.push(b":3}\n");
            assert_eq!(all(&mut lines), ["{\"c\":3}"]);
            assert!(!lines.partial());
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::default();
        for _ in 0..MAX_LINE / 1024 {
            lines.push(&[b'x'; 1024]);
            assert_eq!(lines.next_line(), Ok(None));
        }
        lines.push(b"x");
        assert_eq!(lines.next_line(), Err(TooLong));
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE + 1]);
        lines.push(b"\n");
        assert_eq!(lines.next_line(), Err(TooLong));
    }
}
