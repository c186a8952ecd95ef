//! The journal, octet by octet: slots of 40, each with its own checksum, so that every prefix is a journal.
//!
//! | octets | header (slot 0) | every other slot |
//! |---|---|---|
//! | 0 | `VTEPDSEQ` | kind: 1 record, 2 boot, 3 stopped, 4 adopted |
//! | 1.. | version, 2 octets | 1: VNI (4), MAC (6), sequence (4), flags (1), time (8), released until (8), mark of the released port (4) |
//! | | | 2: boot id (16) |
//! | 36..40 | CRC-32 of octets 0..36 | CRC-32 of octets 0..36 |
//!
//! Numbers are big-endian, times are seconds since 1970, unused octets are 0. Flags: 1 ours, 2 released, 4 the
//! mark of the port is there (a daemon that does not know it reads the rest).

use evpn::mobility::{PortMark, Record, Released};
use evpn::types::{Mac, Seq, Vni};
use std::io::{self, Read};

/// Octets of a slot.
pub(super) const SLOT: usize = 40;
/// Where the checksum begins.
const SUM: usize = SLOT - 4;
const MAGIC: &[u8; 8] = b"VTEPDSEQ";
const VERSION: u16 = 1;
const OURS: u8 = 1;
const RELEASED: u8 = 2;
const PORT: u8 = 4;

/// A running kernel, `/proc/sys/kernel/random/boot_id`.
pub(super) type BootId = [u8; 16];

/// What a slot says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Frame {
    /// The newest about a MAC.
    Record(Record),
    /// What follows was written by a daemon under this kernel; what precedes is as good as it will get.
    Boot(BootId),
    /// The daemon ended by itself and everything is on disk. Counts only as the last slot.
    Stopped,
    /// This file, still under its temporary name, has taken over from the one before.
    Adopted,
}

/// Why nothing is read past a point.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    /// Octet of the file.
    pub(super) offset: u64,
    /// What is wrong there.
    pub(super) what: String,
    /// The file just ends within a slot, as after a kill in the middle of a write.
    pub(super) torn: bool,
}

/// How far a file is good.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Scan {
    /// Octets of the good prefix, header included.
    pub(super) good: u64,
    /// What ended it, unless it is the end of the file.
    pub(super) fault: Option<Fault>,
}

pub(super) fn sealed(mut slot: [u8; SLOT]) -> [u8; SLOT] {
    let sum = crc32fast::hash(&slot[..SUM]);
    slot[SUM..].copy_from_slice(&sum.to_be_bytes());
    slot
}

/// The first slot of every file.
pub(super) fn header() -> [u8; SLOT] {
    let mut s = [0; SLOT];
    s[..8].copy_from_slice(MAGIC);
    s[8..10].copy_from_slice(&VERSION.to_be_bytes());
    sealed(s)
}

/// One slot.
pub(super) fn encode(frame: &Frame) -> [u8; SLOT] {
    let mut s = [0; SLOT];
    match frame {
        Frame::Record(r) => {
            s[0] = 1;
            s[1..5].copy_from_slice(&r.vni.get().to_be_bytes());
            s[5..11].copy_from_slice(&r.mac.0);
            s[11..15].copy_from_slice(&r.seq.0.to_be_bytes());
            s[15] = if r.ours { OURS } else { 0 };
            s[16..24].copy_from_slice(&r.unix.to_be_bytes());
            if let Some(x) = r.released {
                s[15] |= RELEASED;
                s[24..32].copy_from_slice(&x.until.to_be_bytes());
                if let Some(PortMark(mark)) = x.port {
                    s[15] |= PORT;
                    s[32..36].copy_from_slice(&mark.to_be_bytes());
                }
            }
        }
        Frame::Boot(id) => {
            s[0] = 2;
            s[1..17].copy_from_slice(id);
        }
        Frame::Stopped => s[0] = 3,
        Frame::Adopted => s[0] = 4,
    }
    sealed(s)
}

pub(super) fn part<const N: usize>(slot: &[u8; SLOT], from: usize) -> [u8; N] {
    std::array::from_fn(|i| slot.get(from + i).copied().unwrap_or(0))
}

pub(super) fn is_sealed(slot: &[u8; SLOT]) -> bool {
    crc32fast::hash(&slot[..SUM]) == u32::from_be_bytes(part(slot, SUM))
}

/// What a slot says, or what is wrong with it.
fn decode(s: &[u8; SLOT]) -> Result<Frame, String> {
    if !is_sealed(s) {
        return Err("wrong checksum".into());
    }
    match s[0] {
        1 => {
            let vni = u32::from_be_bytes(part(s, 1));
            let flags = s[15];
            let port = (flags & PORT != 0).then(|| PortMark(u32::from_be_bytes(part(s, 32))));
            let released = Released { until: u64::from_be_bytes(part(s, 24)), port };
            Ok(Frame::Record(Record {
                vni: Vni::new(vni).ok_or_else(|| format!("{vni} is no VNI"))?,
                mac: Mac(part(s, 5)),
                seq: Seq(u32::from_be_bytes(part(s, 11))),
                ours: flags & OURS != 0,
                unix: u64::from_be_bytes(part(s, 16)),
                released: (flags & RELEASED != 0).then_some(released),
            }))
        }
        2 => Ok(Frame::Boot(part(s, 1))),
        3 => Ok(Frame::Stopped),
        4 => Ok(Frame::Adopted),
        n => Err(format!("unknown kind of slot {n}")),
    }
}

fn check_header(s: &[u8; SLOT]) -> Result<(), String> {
    if s[..8] != *MAGIC {
        return Err("this is no journal of sequences".into());
    }
    if !is_sealed(s) {
        return Err("wrong checksum of the header".into());
    }
    match u16::from_be_bytes(part(s, 8)) {
        VERSION => Ok(()),
        n => Err(format!("version {n} is not known, only {VERSION}")),
    }
}

/// Reads one slot; `Err` with its length when the file ends within.
fn next_slot(from: &mut impl Read) -> io::Result<Result<[u8; SLOT], usize>> {
    let mut slot = [0; SLOT];
    let mut have = 0;
    while have < SLOT {
        match from.read(&mut slot[have..]) {
            Ok(0) => return Ok(Err(have)),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Ok(slot))
}

/// Reads slots that stand at `at`, without header, until the end or the first fault. A medium that cannot be read
/// is a fault where it cannot.
pub(super) fn read_slots(from: &mut impl Read, at: u64, mut each: impl FnMut(Frame)) -> Scan {
    let mut good = at;
    loop {
        let (what, torn) = match next_slot(from) {
            Ok(Ok(slot)) => match decode(&slot) {
                Ok(frame) => {
                    each(frame);
                    good += SLOT as u64;
                    continue;
                }
                Err(what) => (what, false),
            },
            Ok(Err(0)) => return Scan { good, fault: None },
            Ok(Err(n)) => (format!("the file ends after {n} of {SLOT} octets of a slot"), true),
            Err(e) => (e.to_string(), false),
        };
        return Scan { good, fault: Some(Fault { offset: good, what, torn }) };
    }
}

/// Reads a whole file. An empty one is good.
pub(super) fn read(from: &mut impl Read, each: impl FnMut(Frame)) -> Scan {
    let (what, torn) = match next_slot(from) {
        Ok(Ok(slot)) => match check_header(&slot) {
            Ok(()) => return read_slots(from, SLOT as u64, each),
            Err(what) => (what, false),
        },
        Ok(Err(0)) => return Scan::default(),
        Ok(Err(n)) => (format!("the file ends after {n} of {SLOT} octets of its header"), true),
        Err(e) => (e.to_string(), false),
    };
    Scan { good: 0, fault: Some(Fault { offset: 0, what, torn }) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::state) fn record() -> impl Strategy<Value = Record> {
        (
            1..1u32 << 24,
            any::<[u8; 6]>(),
            any::<u32>(),
            any::<bool>(),
            any::<u64>(),
            proptest::option::of((any::<u64>(), proptest::option::of(any::<u32>()))),
        )
            .prop_map(|(vni, mac, seq, ours, unix, released)| Record {
                vni: Vni::new(vni).expect("in range"),
                mac: Mac(mac),
                seq: Seq(seq),
                ours,
                unix,
                released: released.map(|(until, mark)| Released { until, port: mark.map(PortMark) }),
            })
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let one = prop_oneof![
            6 => record().prop_map(Frame::Record),
            1 => any::<[u8; 16]>().prop_map(Frame::Boot),
            1 => Just(Frame::Stopped),
            1 => Just(Frame::Adopted),
        ];
        proptest::collection::vec(one, 0..30)
    }

    fn file(frames: &[Frame]) -> Vec<u8> {
        let mut out = header().to_vec();
        out.extend(frames.iter().flat_map(encode));
        out
    }

    fn read_back(bytes: &[u8]) -> (Vec<Frame>, Scan) {
        let mut got = Vec::new();
        let scan = read(&mut &bytes[..], |f| got.push(f));
        (got, scan)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in frames()) {
            let bytes = file(&frames);
            let (got, scan) = read_back(&bytes);
            prop_assert_eq!(got, frames);
            prop_assert_eq!(scan, Scan { good: bytes.len() as u64, fault: None });
        }

        #[test]
        fn whatever_the_length_all_whole_slots_are_read(frames in frames(), cut in any::<prop::sample::Index>()) {
            let mut bytes = file(&frames);
            bytes.truncate(cut.index(bytes.len() + 1));
            let (got, scan) = read_back(&bytes);
            let whole = (bytes.len() / SLOT).saturating_sub(1);
            prop_assert_eq!(&got[..], &frames[..whole]);
            prop_assert_eq!(scan.good, (bytes.len() / SLOT * SLOT) as u64);
            prop_assert_eq!(scan.fault.map(|f| (f.offset, f.torn)),
                (!bytes.len().is_multiple_of(SLOT)).then_some((scan.good, true)));
        }

        #[test]
        fn whichever_octet_is_changed_nothing_past_it_is_believed(
            frames in frames(), at in any::<prop::sample::Index>(), with in 1..=255u8,
        ) {
            let mut bytes = file(&frames);
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let (got, scan) = read_back(&bytes);
            let slot = at / SLOT;
            prop_assert_eq!(&got[..], &frames[..slot.saturating_sub(1)]);
            let fault = scan.fault.expect("it is noticed");
            prop_assert_eq!((scan.good, fault.offset, fault.torn), ((slot * SLOT) as u64, (slot * SLOT) as u64, false));
        }

        #[test]
        fn rubbish_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), headed in any::<bool>()) {
            let mut all = if headed { header().to_vec() } else { Vec::new() };
            all.extend(&bytes);
            let (_, scan) = read_back(&all);
            prop_assert!(scan.good <= all.len() as u64);
            prop_assert!(scan.fault.is_some() || scan.good == all.len() as u64);
        }
    }

    /// What a file system may leave for blocks that it never wrote.
    #[test]
    fn octets_of_zero_are_no_slot() {
        let mut bytes = file(&[Frame::Stopped]);
        bytes.extend([0; 4096]);
        let (got, scan) = read_back(&bytes);
        assert_eq!((got.len(), scan.good), (1, 2 * SLOT as u64));
        assert_eq!(scan.fault.map(|f| f.what).as_deref(), Some("wrong checksum"));
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        let mut h = header();
        h[9] = 2;
        let (got, scan) = read_back(&sealed(h));
        assert!(got.is_empty());
        assert_eq!(scan.fault.map(|f| f.what).as_deref(), Some("version 2 is not known, only 1"));
    }

    /// The format is a promise to the files of earlier releases.
    #[test]
    fn the_octets_are_these() {
        let r = Record {
            vni: Vni::new(0x0001_0203).expect("valid"),
            mac: Mac([2, 4, 6, 8, 10, 12]),
            seq: Seq(0x0a0b_0c0d),
            ours: true,
            unix: 0x1122,
            released: Some(Released { until: 0x3344, port: None }),
        };
        let body = [
            1, 0, 1, 2, 3, 2, 4, 6, 8, 10, 12, 0xa, 0xb, 0xc, 0xd, 3, 0, 0, 0, 0, 0, 0, 0x11, 0x22, 0, 0, 0,
            0, 0, 0, 0x33, 0x44, 0, 0, 0, 0,
        ];
        let slot = encode(&Frame::Record(r));
        assert_eq!(slot[..36], body);
        assert_eq!(slot[36..], crc32fast::hash(&body).to_be_bytes());
        let port = Some(PortMark(0x5566_7788));
        let slot = encode(&Frame::Record(Record { released: Some(Released { until: 0x3344, port }), ..r }));
        assert_eq!((slot[15], &slot[32..36]), (7, &[0x55, 0x66, 0x77, 0x88][..]));
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926, "CRC-32 as everybody has it");
    }
}
