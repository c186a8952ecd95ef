//! The name of a port, small enough for a slot of the state directory.

use serde::{Deserialize, Serialize};

/// Stands for the name of a port where only four octets are to spare: FNV-1a, 32 bits. An index means nothing after a
/// restart (the device may have been made anew), the name does. Two names of one host with the same mark are one
/// chance in four thousand millions, and a release that is about the wrong port is over as soon as any other.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PortMark(pub u32);

impl PortMark {
    /// The mark of a name. It is on disk: it never changes.
    pub fn of(name: &str) -> Self {
        let step = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
        Self(name.bytes().fold(0x811c_9dc5, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The marks that the authors of FNV publish for these texts.
    #[test]
    fn the_marks_are_those_of_fnv_1a() {
        let known = [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)];
        assert!(known.iter().all(|(name, mark)| PortMark::of(name) == PortMark(*mark)));
    }
}
