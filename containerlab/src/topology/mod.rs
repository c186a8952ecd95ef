//! Topology files in the format of containerlab (`*.clab.yml`), as far as network namespaces can honour them.
//!
//! Labels that only the lab reads (containerlab keeps unknown labels as they are):
//!
//! | label | on | meaning |
//! |---|---|---|
//! | `vtep-lab.at: NODE` | a node | the node is a VM and starts at NODE |
//! | `vtep-lab.role: switchboard` | a node | VMs are plugged here; it patches each to one socket |
//!
//! A VM has one link, to the switchboard: its *plug*, say `server`. Interfaces of the switchboard named
//! `server-…` are its *sockets*: each leads to an access port of a VTEP that can host the VM. Plug, sockets and ports
//! keep their carrier all the time, like a tap with a QEMU waiting; a move only re-points the patch (PIT-21).

mod parse;
mod yaml;

use crate::mounts::Bind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use parse::parse;

/// A place in a topology file; line and column count from 1.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Pos {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One thing wrong with a topology file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Where.
    pub at: Pos,
    /// What, and the way out.
    pub text: String,
}

/// Everything wrong with a topology file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults {
    /// The file as it was named.
    pub path: PathBuf,
    /// In the order of the file; at least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: {}", self.path.display(), fault.at.line, fault.at.column, fault.text)?;
        }
        Ok(())
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A host: a namespace with programs.
    Linux,
    /// A bridge whose ports are its links' ends.
    Bridge,
}

/// A node with everything inherited from defaults, kind and group.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// The container's image; namespaces have no use for it.
    pub image: Option<String>,
    /// The node's main program, started last and kept running.
    pub cmd: Option<Vec<String>>,
    /// Run to their end in this order, before `cmd`.
    pub exec: Vec<Vec<String>>,
    /// Sources are absolute or relative to the file's directory; made absolute here.
    pub binds: Vec<Bind>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Kernel settings of the node's namespace.
    pub sysctls: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is in the file.
    pub at: Pos,
}

/// One end of a link.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Endpoint {
    /// Node.
    pub node: String,
    /// Interface in it.
    pub interface: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.interface)
    }
}

/// A link.
#[derive(Clone, Debug)]
pub struct Link {
    /// One end.
    pub a: Endpoint,
    /// The other.
    pub b: Endpoint,
    /// MTU of both ends.
    pub mtu: u32,
    /// Where it is in the file.
    pub at: Pos,
}

/// MTU of links that do not say. containerlab's own default is 9500, which hides MTU faults (PIT-11).
pub const DEFAULT_MTU: u32 = 1500;

/// Label of a VM: the node where it starts.
pub const LABEL_AT: &str = "vtep-lab.at";
/// Label of the switchboard.
pub const LABEL_ROLE: &str = "vtep-lab.role";

/// A topology.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Lab name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// In the order of the file.
    pub nodes: Vec<Node>,
    /// In the order of the file.
    pub links: Vec<Link>,
    /// VMs by name.
    pub vms: BTreeMap<String, Vm>,
    /// Node that patches them.
    pub switchboard: Option<String>,
}

/// A place where a VM can be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Socket {
    /// Interface at the switchboard.
    pub socket: String,
    /// Node and its access port.
    pub port: Endpoint,
}

/// A VM and its wiring.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    /// The VM's own interface.
    pub interface: String,
    /// Its end at the switchboard.
    pub plug: String,
    /// Where it can be.
    pub sockets: Vec<Socket>,
    /// Where it starts.
    pub home: String,
}

impl Vm {
    /// The socket at a node.
    pub fn socket_at(&self, node: &str) -> Option<&Socket> {
        self.sockets.iter().find(|s| s.port.node == node)
    }
}

impl Topology {
    /// Reads a file.
    pub fn read(path: &Path) -> crate::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(crate::Error::io(format!("topology {}", path.display())))?;
        parse(path, &text).map_err(crate::Error::Topology)
    }
    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }
    /// Link ends of a node: its interface, the other end, the MTU.
    pub fn ends<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a str, &'a Endpoint, u32)> {
        self.links.iter().flat_map(move |l| {
            let a = (l.a.node == node).then_some((l.a.interface.as_str(), &l.b, l.mtu));
            let b = (l.b.node == node).then_some((l.b.interface.as_str(), &l.a, l.mtu));
            a.into_iter().chain(b)
        })
    }
}
