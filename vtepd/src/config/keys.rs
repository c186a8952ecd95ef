//! Keys of connections: the configuration names the place, and only here they are read (BGP-SEC-03).
//!
//! A key is in no [`Settings`](super::Settings), is never printed, logged or shown, and goes to nobody but the kernel.

use super::problem::{Place, Problem};
use netlink::linux::MD5_KEY_MAX;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where a key is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum KeySource {
    /// The content of a file, without the end of its last line.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
}

/// A key's place, and where the configuration names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KeyAt {
    pub(super) source: KeySource,
    /// Full name of the configuration key.
    pub(super) key: String,
    pub(super) place: Place,
}

/// Whose key is where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PeerKeyAt {
    pub(super) peers: Peers,
    pub(super) at: KeyAt,
}

/// One neighbour, or all of a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peers {
    /// Address.
    pub ip: IpAddr,
    /// Length of the prefix; `None`: one neighbour.
    pub bits: Option<u8>,
}

/// What signs a connection. Debug output does not have it.
#[derive(Clone, Eq, PartialEq)]
pub struct Key(Box<[u8]>);

impl Key {
    /// Its octets, for the kernel.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The keys of all neighbours that have one.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Whose, and the key.
    pub of: Vec<(Peers, Key)>,
    /// Files with keys that every user of this host can read.
    pub exposed: Vec<PathBuf>,
}

impl Keys {
    /// The key of one neighbour.
    pub fn key(&self, ip: IpAddr) -> Option<&Key> {
        self.of.iter().find(|(p, _)| p.ip == ip && p.bits.is_none()).map(|(_, k)| k)
    }

    /// Reads them; the errors are the configuration's, with their lines.
    pub(super) fn read(
        places: &[PeerKeyAt],
        variable: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, Vec<Problem>> {
        let mut out = Self::default();
        let mut problems: Vec<Problem> = Vec::new();
        for PeerKeyAt { peers, at } in places {
            let read = match &at.source {
                KeySource::File(path) => {
                    if everybody_reads(path) && !out.exposed.contains(path) {
                        out.exposed.push(path.clone());
                    }
                    of_file(path)
                }
                KeySource::Env(name) => variable(name).ok_or_else(|| "there is no such variable".to_owned()),
            };
            match read.and_then(of_octets) {
                Ok(key) => out.of.push((*peers, key)),
                // A group's is told once.
                Err(_) if problems.iter().any(|p| p.at == at.place) => {}
                Err(why) => problems.push(Problem::new(at.key.clone(), at.place.clone(), why)),
            }
        }
        if problems.is_empty() { Ok(out) } else { Err(problems) }
    }
}

fn of_octets(octets: Vec<u8>) -> Result<Key, String> {
    match octets.len() {
        0 => Err("the key there is empty".into()),
        n if n > MD5_KEY_MAX => {
            Err(format!("the key there has {n} octets, and TCP MD5 takes {MD5_KEY_MAX} at most"))
        }
        _ => Ok(Key(octets.into())),
    }
}

fn of_file(path: &Path) -> Result<Vec<u8>, String> {
    let text = |e: std::io::Error| format!("cannot read `{}`: {}", path.display(), super::text_of(&e));
    let meta = std::fs::metadata(path).map_err(text)?;
    // Anything else may block, or never end.
    if !meta.is_file() {
        return Err(format!("`{}` is not a file", path.display()));
    }
    if meta.len() > 4096 {
        return Err(format!("`{}` is larger than any key", path.display()));
    }
    let mut octets = std::fs::read(path).map_err(text)?;
    for end in [b'\n', b'\r'] {
        if octets.last() == Some(&end) {
            octets.pop();
        }
    }
    Ok(octets)
}

fn everybody_reads(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(source: KeySource) -> PeerKeyAt {
        let ip = IpAddr::from([10, 0, 0, 2]);
        PeerKeyAt {
            peers: Peers { ip, bits: None },
            at: KeyAt { source, key: "neighbor.password".into(), place: 0..1 },
        }
    }

    /// BGP-SEC-03: 80 octets are the most; nothing prints a key.
    #[test]
    fn a_key_is_one_line_of_a_file_or_a_variable_and_is_never_printed() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |octets: &[u8]| {
            let path = dir.path().join("key");
            std::fs::write(&path, octets).expect("written");
            Keys::read(&[at(KeySource::File(path))], |_| None)
        };
        for line in ["s3cret", "s3cret\n", "s3cret\r\n"] {
            let keys = read(line.as_bytes()).expect(line);
            assert_eq!(keys.key([10, 0, 0, 2].into()).map(Key::octets), Some(&b"s3cret"[..]), "{line:?}");
            assert!(!format!("{keys:?}").contains("s3cret"), "{keys:?}");
        }
        assert!(read(&[b'x'; 80]).is_ok());
        for (octets, why) in [(vec![], "empty"), (vec![b'x'; 81], "81 octets"), (vec![b'x'; 5000], "larger")]
        {
            let problems = read(&octets).expect_err(why);
            assert!(problems[0].what.contains(why), "{problems:?}");
        }
        let not_there = Keys::read(&[at(KeySource::File("/nowhere/key".into()))], |_| None);
        assert!(not_there.expect_err("not there")[0].what.contains("/nowhere/key"));
        let device = Keys::read(&[at(KeySource::File("/dev/zero".into()))], |_| None);
        assert!(device.expect_err("no file")[0].what.contains("not a file"));

        let variable = |name: &str| (name == "KEY").then(|| b"s3cret".to_vec());
        assert!(Keys::read(&[at(KeySource::Env("KEY".into()))], variable).is_ok());
        assert!(Keys::read(&[at(KeySource::Env("OTHER".into()))], variable).is_err());
    }

    #[test]
    fn a_file_that_everybody_may_read_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        std::fs::write(&path, "x").expect("written");
        for (mode, told) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
            let keys = Keys::read(&[at(KeySource::File(path.clone()))], |_| None).expect("a key");
            assert_eq!(keys.exposed.len(), told, "{mode:o}");
        }
    }
}
