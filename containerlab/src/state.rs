//! What a lab consists of, on disk: `/run/vtep-lab/PREFIX/state.json`. It is written *before* anything is made, so
//! that `down` can always clean up, whatever happened to the program that made it.

use crate::error::{Error, Result};
use crate::mounts::{Bind, Mounts};
use crate::netns::Run;
use crate::process::Process;
use crate::topology::Vm;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Version of the file.
const VERSION: u32 = 1;

/// A lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Name in the topology.
    pub name: String,
    /// Namespaces are `PREFIX-NODE`.
    pub prefix: String,
    /// Where this file, logs and the nodes' `/run` are.
    pub directory: PathBuf,
    /// The topology file.
    pub topology: PathBuf,
    /// A lab that lives only as long as this process.
    pub owner: Option<Process>,
    /// In the order of the topology.
    pub nodes: Vec<NodeState>,
    /// Links as text, for `inspect` and `graph`.
    pub links: Vec<LinkState>,
    /// VMs by name.
    pub vms: BTreeMap<String, VmState>,
    /// Node that patches them.
    pub switchboard: Option<String>,
    /// In the order of starting.
    pub processes: Vec<Tracked>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeState {
    /// Name.
    pub name: String,
    /// `linux` or `bridge`.
    pub kind: String,
    /// Network namespace.
    pub namespace: String,
    /// Appears as `/run` inside.
    pub run: PathBuf,
    /// Output of `cmd`.
    pub log: PathBuf,
    /// Binds.
    pub binds: Vec<Bind>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkState {
    /// `node:interface`.
    pub a: String,
    /// `node:interface`.
    pub b: String,
    /// MTU.
    pub mtu: u32,
}

/// A VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmState {
    /// Wiring.
    pub wiring: Vm,
    /// The node where it is.
    pub at: String,
}

/// A process of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tracked {
    /// Node.
    pub node: String,
    /// Process.
    pub process: Process,
}

/// Whether the effective user is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Directory of all labs: `/run/vtep-lab` for root, `$XDG_RUNTIME_DIR/vtep-lab` for others.
pub fn base() -> PathBuf {
    if !is_root()
        && let Some(d) = std::env::var_os("XDG_RUNTIME_DIR")
    {
        return Path::new(&d).join("vtep-lab");
    }
    PathBuf::from("/run/vtep-lab")
}

impl State {
    /// Reserves a prefix (`wanted`, or the lab's name and something random) and its directory.
    pub fn reserve(name: &str, wanted: Option<&str>, base: &Path) -> Result<Self> {
        fs::create_dir_all(base).map_err(Error::io(base.display().to_string()))?;
        let prefix = match wanted {
            Some(p) => {
                let fine = !p.is_empty()
                    && p.len() <= 32
                    && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                if !fine {
                    return Err(Error::refused(format!("prefix `{p}`: 1 to 32 letters, digits and `-`")));
                }
                p.to_owned()
            }
            None => format!("{name}-{:04x}", random_u16()),
        };
        let directory = base.join(&prefix);
        fs::create_dir(&directory).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::refused(format!(
                "a lab with prefix `{prefix}` exists; choose another --prefix, or: vtep-lab down --prefix {prefix}"
            )),
            _ => Error::io(directory.display().to_string())(e),
        })?;
        Ok(Self {
            version: VERSION,
            name: name.to_owned(),
            prefix,
            directory,
            topology: PathBuf::new(),
            owner: None,
            nodes: Vec::new(),
            links: Vec::new(),
            vms: BTreeMap::new(),
            switchboard: None,
            processes: Vec::new(),
        })
    }

    /// Reads the state in a lab's directory.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("state.json");
        let text = fs::read_to_string(&path).map_err(Error::io(path.display().to_string()))?;
        let state: Self = serde_json::from_str(&text)
            .map_err(|e| Error::refused(format!("{}: {e}; written by another version?", path.display())))?;
        if state.version != VERSION {
            return Err(Error::refused(format!("{}: version {}", path.display(), state.version)));
        }
        Ok(state)
    }

    /// Writes it, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let path = self.directory.join("state.json");
        let new = self.directory.join("state.json.new");
        let text = serde_json::to_string_pretty(self).expect("plain data");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(Error::io(path.display().to_string()))
    }

    /// All labs below a directory, by prefix. What cannot be read is told in the second part.
    pub fn all(base: &Path) -> (Vec<Self>, Vec<Error>) {
        let Ok(entries) = fs::read_dir(base) else { return (Vec::new(), Vec::new()) };
        let mut directories: Vec<_> = entries.flatten().map(|e| e.path()).collect();
        directories.sort();
        let (mut labs, mut errors) = (Vec::new(), Vec::new());
        for d in directories {
            match Self::read(&d) {
                Ok(s) => labs.push(s),
                Err(e) => errors.push(e),
            }
        }
        (labs, errors)
    }

    /// The lab meant by a prefix or a lab name; without either the only one there is.
    pub fn find(base: &Path, wanted: Option<&str>) -> Result<Self> {
        let (labs, _) = Self::all(base);
        let prefixes = |labs: &[Self]| labs.iter().map(|s| s.prefix.clone()).collect::<Vec<_>>().join(", ");
        let Some(wanted) = wanted else {
            return match &labs[..] {
                [one] => Ok(one.clone()),
                [] => Err(Error::refused("no lab is up; start one with: vtep-lab up FILE.clab.yml")),
                more => Err(Error::refused(format!("several labs are up; say --prefix: {}", prefixes(more)))),
            };
        };
        if let Some(s) = labs.iter().find(|s| s.prefix == wanted) {
            return Ok(s.clone());
        }
        let named: Vec<_> = labs.iter().filter(|s| s.name == wanted).cloned().collect();
        match &named[..] {
            [one] => Ok(one.clone()),
            [] => Err(Error::refused(format!("no lab `{wanted}` is up; up are: {}", prefixes(&labs)))),
            more => Err(Error::refused(format!(
                "several labs are called `{wanted}`; say one: {}",
                prefixes(more)
            ))),
        }
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<&NodeState> {
        self.nodes.iter().find(|n| n.name == name).ok_or_else(|| {
            let all: Vec<_> = self.nodes.iter().map(|n| n.name.as_str()).collect();
            Error::refused(format!("no node `{name}` in lab {}; there are: {}", self.prefix, all.join(", ")))
        })
    }

    /// A VM by name.
    pub fn vm(&self, name: &str) -> Result<&VmState> {
        self.vms.get(name).ok_or_else(|| {
            let all: Vec<_> = self.vms.keys().map(String::as_str).collect();
            Error::refused(format!("no VM `{name}` in lab {}; there are: {}", self.prefix, all.join(", ")))
        })
    }

    /// A program in a node: its namespace, its mounts, its environment.
    pub fn run<S: Into<String>>(&self, node: &str, argv: impl IntoIterator<Item = S>) -> Result<Run> {
        let n = self.node(node)?;
        Ok(Run {
            namespace: n.namespace.clone(),
            mounts: Mounts { run: Some(n.run.clone()), binds: n.binds.clone() },
            env: n.env.clone(),
            argv: argv.into_iter().map(Into::into).collect(),
            nice: None,
        })
    }

    /// Remembers a process.
    pub fn track(&mut self, node: &str, pid: u32, what: &str) -> Result<Process> {
        let process = Process::of(pid, what)
            .ok_or_else(|| Error::refused(format!("`{what}` in {node} ended as soon as it was started")))?;
        self.processes.push(Tracked { node: node.to_owned(), process: process.clone() });
        self.save()?;
        Ok(process)
    }
}

fn random_u16() -> u16 {
    let mut b = [0; 2];
    match fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut b)) {
        Ok(()) => u16::from_le_bytes(b),
        Err(_) => crate::sys::boottime() as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back_and_found_by_prefix_or_name() {
        let base = tempfile::tempdir().unwrap();
        let mut one = State::reserve("lab", Some("one"), base.path()).unwrap();
        one.processes.push(Tracked { node: "n".into(), process: Process::own().unwrap() });
        one.save().unwrap();
        assert_eq!(State::find(base.path(), None).unwrap().prefix, "one");
        let two = State::reserve("lab", Some("two"), base.path()).unwrap();
        two.save().unwrap();
        let error = State::find(base.path(), None).unwrap_err().to_string();
        assert_eq!(error, "several labs are up; say --prefix: one, two");
        let error = State::find(base.path(), Some("lab")).unwrap_err().to_string();
        assert_eq!(error, "several labs are called `lab`; say one: one, two");
        let found = State::find(base.path(), Some("one")).unwrap();
        assert!(found.processes[0].process.alive());
    }

    #[test]
    fn a_prefix_is_given_out_once() {
        let base = tempfile::tempdir().unwrap();
        State::reserve("lab", Some("p"), base.path()).unwrap();
        let error = State::reserve("lab", Some("p"), base.path()).unwrap_err().to_string();
        assert!(error.contains("vtep-lab down --prefix p"), "{error}");
        assert!(State::reserve("lab", Some("a/b"), base.path()).is_err());
    }
}
