//! Network namespaces by name, as `ip netns` keeps them, and programs that run inside.

use crate::error::{Error, Result};
use crate::mounts::Mounts;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where `ip netns` keeps its names.
pub const DIRECTORY: &str = "/run/netns";

/// Path of a namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Whether it exists.
pub fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Makes the calling thread a member of the namespace. For threads that end afterwards.
pub fn join(name: &str) -> Result<()> {
    let file = fs::File::open(path(name)).map_err(Error::io(format!("namespace {name}")))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(Error::errno(format!("entering namespace {name}")))
}

/// Runs `work` on a thread of its own inside the namespace. Sockets opened there stay in it.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|s| {
        s.spawn(|| {
            join(name)?;
            work()
        })
        .join()
        .unwrap_or_else(|_| Err(Error::refused(format!("a thread in namespace {name} panicked"))))
    })
}

/// How a program is to run in a node.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Network namespace.
    pub namespace: String,
    /// Mounts that only it sees.
    pub mounts: Mounts,
    /// Variables on top of the caller's environment.
    pub env: BTreeMap<String, String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Nice value; what the caller has if `None`.
    pub nice: Option<i32>,
}

impl Run {
    /// A program without mounts or variables of its own.
    pub fn new<S: Into<String>>(namespace: &str, argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The command line for people.
    pub fn text(&self) -> String {
        self.argv.join(" ")
    }

    /// Starts it in a process group of its own, so that a Ctrl-C at the terminal reaches only the lab, which ends
    /// its programs in order.
    pub fn spawn(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        self.start(stdin, stdout, stderr, true)
    }

    /// Runs it to its end with the caller's terminal.
    pub fn attached(&self) -> Result<std::process::ExitStatus> {
        let mut child = self.start(Stdio::inherit(), Stdio::inherit(), Stdio::inherit(), false)?;
        child.wait().map_err(Error::io(self.text()))
    }

    /// Runs it to its end; its standard output, or an error with what it printed.
    pub fn output(&self) -> Result<String> {
        let child = self.start(Stdio::null(), Stdio::piped(), Stdio::piped(), true)?;
        let out = child.wait_with_output().map_err(Error::io(self.text()))?;
        if !out.status.success() {
            let mut text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            if text.is_empty() {
                text = format!("{} {}", out.status, String::from_utf8_lossy(&out.stdout).trim());
            }
            return Err(Error::Command { command: self.text(), place: self.namespace.clone(), output: text });
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn start(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio, own_group: bool) -> Result<Child> {
        let [program, args @ ..] = &self.argv[..] else {
            return Err(Error::refused("an empty command line"));
        };
        // A thread of its own takes on the namespaces, and the child inherits them from it: no code has to run
        // between fork and exec.
        std::thread::scope(|s| {
            s.spawn(move || {
                join(&self.namespace)?;
                self.mounts.enter()?;
                if let Some(nice) = self.nice {
                    // Of this thread, and inherited by what it starts.
                    rustix::process::setpriority_process(None, nice)
                        .map_err(Error::errno(format!("nice value {nice}")))?;
                }
                // The program is looked up with the node's PATH and inside its mounts.
                let found = self.env.get("PATH").and_then(|d| find_program(program, d));
                let mut command = found.map_or_else(|| Command::new(program), Command::new);
                command.arg0(program).args(args).envs(&self.env).stdin(stdin).stdout(stdout).stderr(stderr);
                if own_group {
                    command.process_group(0);
                }
                command.spawn().map_err(Error::io(format!("starting `{}`", self.text())))
            })
            .join()
            .unwrap_or_else(|_| Err(Error::refused("the starting thread panicked")))
        })
    }
}

fn find_program(program: &str, directories: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return None;
    }
    directories.split(':').map(|d| Path::new(d).join(program)).find(|p| p.is_file())
}
