//! A lab: namespaces, links, settings, programs; up and down.

use crate::error::{Error, Result};
use crate::iproute;
use crate::netns::{self, Run};
use crate::process::{self, Process};
use crate::state::{LinkState, NodeState, State, VmState, is_root};
use crate::switchboard;
use crate::sys;
use crate::topology::{Kind, Topology};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// How to bring a lab up.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Prefix of the namespaces; the lab's name and something random if absent.
    pub prefix: Option<String>,
    /// Where labs keep their state; [`crate::state::base`] if absent.
    pub base: Option<PathBuf>,
    /// Programs that the nodes find first under these names, such as `vtepd`.
    pub programs: BTreeMap<String, PathBuf>,
    /// The lab goes when the calling process goes: later runs clean it up.
    pub owned: bool,
    /// Nodes whose `cmd` is not started.
    pub without_cmd: Vec<String>,
    /// Nice value of each `cmd`.
    pub nice: Option<i32>,
}

/// A lab that is up. Dropping it leaves it up; see [`Guard`].
#[derive(Debug)]
pub struct Lab {
    /// What it consists of.
    pub state: State,
}

/// Where a node finds the programs given to it, inside its own `/run`.
const PROGRAMS: &str = "/run/vtep-lab/bin";

impl Lab {
    /// Brings a topology up. If that fails or a signal comes, what was made is removed again.
    pub fn up(topology: &Topology, options: &UpOptions) -> Result<Self> {
        if !is_root() {
            return Err(Error::refused(
                "network namespaces need root (CAP_NET_ADMIN, CAP_SYS_ADMIN); run it with sudo",
            ));
        }
        let base = options.base.clone().unwrap_or_else(crate::state::base);
        let mut lab = Self { state: State::reserve(&topology.name, options.prefix.as_deref(), &base)? };
        match lab.build(topology, options) {
            Ok(()) => Ok(lab),
            Err(e) => {
                let _ = lab.down();
                Err(e)
            }
        }
    }

    fn build(&mut self, t: &Topology, options: &UpOptions) -> Result<()> {
        self.plan(t, options);
        // From here on `down` finds everything that will be made.
        self.state.save()?;
        for n in &self.state.nodes {
            fs::create_dir_all(n.run.join("vtep-lab/bin")).map_err(Error::io(n.run.display().to_string()))?;
            for (name, path) in &options.programs {
                let link = n.run.join("vtep-lab/bin").join(name);
                std::os::unix::fs::symlink(path, &link).map_err(Error::io(link.display().to_string()))?;
            }
            go_on()?;
            let add = [format!("netns add {}", n.namespace)];
            iproute::ip_batch(None, &add)?;
        }
        self.link(t)?;
        switchboard::build(&self.state)?;
        for n in &t.nodes {
            let namespace = self.state.node(&n.name)?.namespace.clone();
            netns::inside(&namespace, || n.sysctls.iter().try_for_each(|(k, v)| sysctl(k, v)))?;
        }
        for n in &t.nodes {
            for argv in &n.exec {
                go_on()?;
                self.state.run(&n.name, argv.iter().cloned())?.output().map_err(|e| in_node(e, &n.name))?;
            }
        }
        for n in &t.nodes {
            if let Some(argv) = &n.cmd
                && !options.without_cmd.contains(&n.name)
            {
                go_on()?;
                self.start(&n.name, argv, options.nice)?;
            }
        }
        Ok(())
    }

    fn plan(&mut self, t: &Topology, options: &UpOptions) {
        let s = &mut self.state;
        s.topology = std::path::absolute(&t.path).unwrap_or_else(|_| t.path.clone());
        s.owner = options.owned.then(Process::own).flatten();
        s.switchboard.clone_from(&t.switchboard);
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        for n in &t.nodes {
            let directory = s.directory.join("nodes").join(&n.name);
            // The administrator's directories hold `ip`, `tc` and `bridge` on Debian.
            let mut env = BTreeMap::from([("PATH".to_owned(), format!("{PROGRAMS}:{path}:/usr/sbin:/sbin"))]);
            env.extend(n.env.clone());
            s.nodes.push(NodeState {
                name: n.name.clone(),
                kind: if n.kind == Kind::Bridge { "bridge" } else { "linux" }.to_owned(),
                namespace: format!("{}-{}", s.prefix, n.name),
                run: directory.join("run"),
                log: directory.join("log"),
                binds: n.binds.clone(),
                env,
                labels: n.labels.clone(),
            });
        }
        s.links = t
            .links
            .iter()
            .map(|l| LinkState { a: l.a.to_string(), b: l.b.to_string(), mtu: l.mtu })
            .collect();
        s.vms = t
            .vms
            .iter()
            .map(|(name, vm)| (name.clone(), VmState { wiring: vm.clone(), at: vm.home.clone() }))
            .collect();
    }

    fn link(&self, t: &Topology) -> Result<()> {
        let namespace = |node: &str| self.state.node(node).map(|n| n.namespace.clone());
        let mut lines = Vec::new();
        for l in &t.links {
            lines.push(format!(
                "link add name {} mtu {m} netns {} type veth peer name {} mtu {m} netns {}",
                l.a.interface,
                namespace(&l.a.node)?,
                l.b.interface,
                namespace(&l.b.node)?,
                m = l.mtu
            ));
        }
        iproute::ip_batch(None, &lines)?;
        for n in &t.nodes {
            go_on()?;
            let interfaces: Vec<_> = t.ends(&n.name).map(|(i, ..)| i.to_owned()).collect();
            let mut lines = vec!["link set dev lo up".to_owned()];
            if n.kind == Kind::Bridge {
                lines.push(format!("link add name {} type bridge", n.name));
            }
            for i in &interfaces {
                let master =
                    if n.kind == Kind::Bridge { format!("master {} ", n.name) } else { String::new() };
                lines.push(format!("link set dev {i} {master}up"));
            }
            if n.kind == Kind::Bridge {
                lines.push(format!("link set dev {} up", n.name));
            }
            let space = namespace(&n.name)?;
            let silent = n.kind == Kind::Bridge || t.switchboard.as_deref() == Some(&n.name);
            // The hypervisor's end of a VM is no host (libvirt does the same to its taps).
            let taps: Vec<_> = t
                .vms
                .values()
                .filter_map(|vm| vm.socket_at(&n.name))
                .map(|s| s.port.interface.clone())
                .collect();
            netns::inside(&space, || {
                if silent {
                    sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
                    sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
                }
                for tap in taps {
                    sysctl(&format!("net.ipv6.conf.{tap}.disable_ipv6"), "1")?;
                }
                interfaces.iter().try_for_each(|i| sys::offloads_off(i))
            })?;
            iproute::ip_batch(Some(&space), &lines)?;
        }
        Ok(())
    }

    /// Starts a node's main program; its output goes to the node's log.
    pub fn start(&mut self, node: &str, argv: &[String], nice: Option<i32>) -> Result<Process> {
        let run = Run { nice, ..self.state.run(node, argv.iter().cloned())? };
        let log = self.state.node(node)?.log.clone();
        let what = || log.display().to_string();
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(Error::io(what()))?;
        let copy = file.try_clone().map_err(Error::io(what()))?;
        let child = run.spawn(Stdio::null(), file.into(), copy.into()).map_err(|e| in_node(e, node))?;
        self.state.track(node, child.id(), &run.text())
    }

    /// Tracked processes of a node that are alive.
    pub fn processes_of(&self, node: &str) -> Vec<Process> {
        let mine = self.state.processes.iter().filter(|t| t.node == node);
        mine.map(|t| t.process.clone()).filter(Process::alive).collect()
    }

    /// Ends everything and removes it. Goes on past failures and returns them as text.
    pub fn down(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        // Last started, first ended.
        let tracked: Vec<_> = self.state.processes.iter().rev().map(|t| t.process.clone()).collect();
        for p in process::end(&tracked) {
            complaints.push(format!("`{}` ({}) did not end when asked and was killed", p.what, p.pid));
        }
        for n in &self.state.nodes {
            if !netns::exists(&n.namespace) {
                continue;
            }
            // What `exec` left behind inside.
            process::end(&process::in_namespace(&n.namespace));
            if let Err(e) = iproute::ip_batch(None, &[format!("netns del {}", n.namespace)]) {
                complaints.push(e.to_string());
            }
        }
        if complaints.iter().all(|c| !c.contains("netns del"))
            && let Err(e) = fs::remove_dir_all(&self.state.directory)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            complaints.push(format!("{}: {e}", self.state.directory.display()));
        }
        complaints
    }

    /// Whatever of the lab is still there: namespaces, processes, files. Empty after a clean [`Self::down`].
    pub fn residue(&self) -> Vec<String> {
        let s = &self.state;
        let namespaces = s.nodes.iter().filter(|n| netns::exists(&n.namespace));
        let processes = s.processes.iter().filter(|t| t.process.alive());
        let mut left: Vec<_> = namespaces.map(|n| format!("namespace {}", n.namespace)).collect();
        left.extend(processes.map(|t| format!("process {} ({})", t.process.pid, t.process.what)));
        if s.directory.exists() {
            left.push(format!("directory {}", s.directory.display()));
        }
        left
    }
}

/// Takes a lab down when it goes out of scope: also after an error, a panic or Ctrl-C.
#[derive(Debug)]
pub struct Guard {
    /// The lab.
    pub lab: Lab,
    /// Leave it up.
    pub keep: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.keep {
            self.lab.down();
        }
    }
}

/// Removes labs below `base` whose owner is dead. Returns their prefixes.
pub fn sweep(base: &Path) -> Vec<String> {
    let (labs, _) = State::all(base);
    let stale = labs.into_iter().filter(|s| s.owner.as_ref().is_some_and(|o| !o.alive()));
    stale
        .map(|state| {
            let prefix = state.prefix.clone();
            Lab { state }.down();
            prefix
        })
        .collect()
}

fn go_on() -> Result<()> {
    if sys::interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

fn in_node(e: Error, node: &str) -> Error {
    match e {
        Error::Command { command, output, .. } => {
            Error::Command { command, place: format!("node {node}"), output }
        }
        other => other,
    }
}

/// Writes a kernel setting of the calling thread's namespace.
fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(key.replace('.', "/"));
    fs::write(&path, value).map_err(Error::io(format!("sysctl {key}={value}")))
}
