//! Local bindings over a restart, in `hosts.journal`: the same slots of 40 octets as the sequences', behind a header of its own.
//!
//! | octets | header (slot 0) | every other slot |
//! |---|---|---|
//! | 0 | `VTEPDHST` | kind: 1 bound here, 2 not any more |
//! | 1.. | version, 2 octets (at 8) | VNI (4), family 4 or 6 (1), address (16), MAC (6), mark of the port (4) |
//! | 36..40 | CRC-32 of octets 0..36 | CRC-32 of octets 0..36 |
//!
//! They are hints: whoever is named is asked, and nothing is believed. So nothing waits for the disk, a fault ends the reading
//! and no more, and a file that cannot be written is written anew a second later from what is in memory.

use super::format::{SLOT, is_sealed, part, sealed};
use super::open::empty_file;
use evpn::hosts::KeptHost;
use evpn::mobility::PortMark;
use evpn::types::{Mac, Vni};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The file.
const NAME: &str = "hosts.journal";
const MAGIC: &[u8; 8] = b"VTEPDHST";
const VERSION: u16 = 1;
const HERE: u8 = 1;
const GONE: u8 = 2;
/// Slots beyond twice the bindings, above which the file is written anew.
const SLACK: usize = 4096;
/// Most slots that are read.
const MOST: usize = 2 * KeptHost::LIMIT + 2 * SLACK;

/// See the module.
#[derive(Debug)]
pub(super) struct HostFile {
    path: PathBuf,
    /// `None`: to be written anew.
    file: Option<File>,
    table: BTreeMap<(Vni, IpAddr), KeptHost>,
    /// In the file, header included.
    slots: usize,
    failures: u64,
    /// It has been said that the file cannot be written.
    said: bool,
}

impl HostFile {
    /// Reads what there is and begins a new file with it.
    pub(super) fn open(dir: &Path) -> (Self, Vec<KeptHost>) {
        let path = dir.join(NAME);
        let mut f = Self { table: read(&path), path, file: None, slots: 0, failures: 0, said: false };
        f.rewrite();
        let hosts = f.table.values().copied().collect();
        (f, hosts)
    }

    /// Appends changes, with one write.
    pub(super) fn append(&mut self, hosts: &[KeptHost]) {
        for h in hosts {
            let key = (h.vni, h.ip);
            if !h.here {
                self.table.remove(&key);
            } else if self.table.len() < KeptHost::LIMIT || self.table.contains_key(&key) {
                self.table.insert(key, *h);
            }
        }
        let Some(file) = &self.file else { return };
        let bytes: Vec<u8> = hosts.iter().flat_map(encode).collect();
        match file.write_all_at(&bytes, (self.slots * SLOT) as u64) {
            Ok(()) => self.slots += hosts.len(),
            Err(e) => self.failed(&e),
        }
    }

    /// Once a second: a file that is needed, or has grown too long, is written.
    pub(super) fn tick(&mut self) {
        if self.file.is_none() || self.slots > 2 * self.table.len() + SLACK {
            self.rewrite();
        }
    }

    /// Writes that failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    fn failed(&mut self, e: &io::Error) {
        self.file = None;
        self.failures += 1;
        if !self.said {
            self.said = true;
            let path = self.path.display();
            tracing::warn!(%path, error = %e, "silent hosts may not be found again after a restart; tried every second");
        }
    }

    /// A new file takes the name when it is complete.
    fn rewrite(&mut self) {
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let mut bytes = header().to_vec();
        bytes.extend(self.table.values().flat_map(encode));
        let written = empty_file(&new).and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            std::fs::rename(&new, &self.path)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                (self.file, self.slots) = (Some(file), bytes.len() / SLOT);
                if std::mem::take(&mut self.said) {
                    tracing::info!(path = %self.path.display(), "bindings of hosts are kept again");
                }
            }
            Err(e) => {
                let _ = std::fs::remove_file(&new);
                self.failed(&e);
            }
        }
    }
}

/// What a file comes to, as far as it is good.
fn read(path: &Path) -> BTreeMap<(Vni, IpAddr), KeptHost> {
    let mut table = BTreeMap::new();
    let mut bytes = Vec::new();
    let done = File::open(path).and_then(|f| f.take((MOST * SLOT) as u64).read_to_end(&mut bytes));
    match done {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return table,
        Err(e) => {
            tracing::warn!(path = %path.display(), error = %e, "bindings of an earlier run cannot be read");
            return table;
        }
    }
    // A torn slot at the end is none.
    let (slots, _) = bytes.as_chunks::<SLOT>();
    let Some((_, slots)) = slots.split_first().filter(|(first, _)| **first == header()) else {
        if !bytes.is_empty() {
            tracing::warn!(path = %path.display(), "this is no file of bindings that is known; it is replaced");
        }
        return table;
    };
    for h in slots.iter().map_while(decode) {
        if h.here {
            table.insert((h.vni, h.ip), h);
        } else {
            table.remove(&(h.vni, h.ip));
        }
    }
    while table.len() > KeptHost::LIMIT {
        table.pop_last();
    }
    table
}

fn header() -> [u8; SLOT] {
    let mut s = [0; SLOT];
    s[..8].copy_from_slice(MAGIC);
    s[8..10].copy_from_slice(&VERSION.to_be_bytes());
    sealed(s)
}

fn encode(h: &KeptHost) -> [u8; SLOT] {
    let mut s = [0; SLOT];
    s[0] = if h.here { HERE } else { GONE };
    s[1..5].copy_from_slice(&h.vni.get().to_be_bytes());
    match h.ip {
        IpAddr::V4(ip) => {
            s[5] = 4;
            s[6..10].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            s[5] = 6;
            s[6..22].copy_from_slice(&ip.octets());
        }
    }
    s[22..28].copy_from_slice(&h.mac.0);
    s[28..32].copy_from_slice(&h.port.0.to_be_bytes());
    sealed(s)
}

fn decode(s: &[u8; SLOT]) -> Option<KeptHost> {
    if !is_sealed(s) || ![HERE, GONE].contains(&s[0]) {
        return None;
    }
    let ip = match s[5] {
        4 => IpAddr::from(part::<4>(s, 6)),
        6 => IpAddr::V6(Ipv6Addr::from(part::<16>(s, 6))),
        _ => return None,
    };
    Some(KeptHost {
        vni: Vni::new(u32::from_be_bytes(part(s, 1)))?,
        ip,
        mac: Mac(part(s, 22)),
        port: PortMark(u32::from_be_bytes(part(s, 28))),
        here: s[0] == HERE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(n: u32, here: bool) -> KeptHost {
        let [a, b, c, d] = n.to_be_bytes();
        let ip = if n.is_multiple_of(2) {
            IpAddr::from([10, b, c, d])
        } else {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, (n >> 16) as u16, n as u16])
        };
        let vni = Vni::new(100 + n % 3).expect("valid");
        KeptHost { vni, ip, mac: Mac([2, 0, a, b, c, d]), port: PortMark(n ^ 7), here }
    }

    fn again(dir: &Path) -> Vec<KeptHost> {
        HostFile::open(dir).1
    }

    #[test]
    fn what_was_bound_last_is_there_after_a_kill() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut f, none) = HostFile::open(dir.path());
        assert!(none.is_empty());
        f.append(&[host(1, true), host(2, true), host(3, true)]);
        f.append(&[host(2, false), KeptHost { mac: Mac([6; 6]), ..host(3, true) }]);
        drop(f);
        let got = again(dir.path());
        let mut want = vec![host(1, true), KeptHost { mac: Mac([6; 6]), ..host(3, true) }];
        want.sort_by_key(|h| (h.vni, h.ip));
        assert_eq!(got, want);
        assert_eq!(again(dir.path()), want, "and after the next one");
    }

    #[test]
    fn a_file_that_grows_is_written_anew_and_one_that_cannot_be_written_is_made_up_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut f, _) = HostFile::open(dir.path());
        for _ in 0..SLACK {
            f.append(&[host(1, true), host(1, false)]);
        }
        f.append(&[host(4, true)]);
        let len = || std::fs::metadata(dir.path().join(NAME)).expect("there").len() as usize;
        assert_eq!(len(), (2 * SLACK + 2) * SLOT);
        f.tick();
        assert_eq!(len(), 2 * SLOT);
        // Its file takes nothing.
        f.file = Some(File::open(dir.path().join(NAME)).expect("to read only"));
        f.append(&[host(6, true)]);
        assert_eq!((f.failures(), f.file.is_none()), (1, true));
        f.append(&[host(8, true)]);
        f.tick();
        assert_eq!(again(dir.path()).len(), 3);
    }

    #[test]
    fn foreign_files_are_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(NAME), b"something else").expect("written");
        let (mut f, none) = HostFile::open(dir.path());
        assert!(none.is_empty());
        f.append(&[host(1, true)]);
        assert_eq!(again(dir.path()), [host(1, true)]);
    }

    proptest! {
        #[test]
        fn slots_are_read_as_they_were_written(n in any::<u32>(), here in any::<bool>()) {
            prop_assert_eq!(decode(&encode(&host(n, here))), Some(host(n, here)));
        }

        #[test]
        fn whatever_octet_is_changed_nothing_past_it_is_believed(at in 0..6 * SLOT, with in 1..=255u8) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join(NAME);
            let (mut f, _) = HostFile::open(dir.path());
            let hosts: Vec<KeptHost> = (1..=5).map(|n| host(n, true)).collect();
            f.append(&hosts);
            let mut bytes = std::fs::read(&path).expect("there");
            bytes[at] ^= with;
            std::fs::write(&path, &bytes).expect("written");
            let mut want: Vec<KeptHost> = hosts[..(at / SLOT).saturating_sub(1)].to_vec();
            want.sort_by_key(|h| (h.vni, h.ip));
            prop_assert_eq!(again(dir.path()), want);
        }
    }
}
