//! One FRR (zebra and bgpd) in a network namespace, for the demo's `--frr` and for the interop tests.
//!
//! The daemons are started directly, without FRR's init scripts. Each pair sees a `/run` of its own, so any number
//! of them can run beside each other and beside an FRR of the host. bgpd and zebra drop to the user `frr`, which
//! must exist (Debian's package makes it).

use crate::error::{Error, Result};
use crate::mounts::Mounts;
use crate::netns::Run;
use crate::process::{self, Process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian and Ubuntu put the daemons.
pub const DAEMONS: &str = "/usr/lib/frr";

/// Whether FRR is installed.
pub fn installed() -> bool {
    Path::new(DAEMONS).join("bgpd").exists() && which("vtysh")
}

fn which(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|d| Path::new(d).join(program).exists())
}

/// A running FRR. What it started ends when it is dropped.
#[derive(Debug)]
pub struct FrrNode {
    directory: PathBuf,
    namespace: String,
    /// In the order of starting.
    processes: Vec<Process>,
}

impl FrrNode {
    /// Starts zebra and bgpd in namespace `ns` with this configuration (FRR's own language, for both), and waits
    /// until they answer. `dir` holds sockets, configuration and logs (`zebra.log`, `bgpd.log`); it is made if
    /// absent, belongs to the user `frr` afterwards, and is left to the caller.
    pub fn start(ns: &str, dir: &Path, config: &str) -> Result<Self> {
        if !installed() {
            return Err(Error::refused(format!(
                "FRR is not installed ({DAEMONS}/bgpd, vtysh); on Debian and Ubuntu: apt-get install frr"
            )));
        }
        let what = |p: &Path| format!("{}", p.display());
        fs::create_dir_all(dir).map_err(Error::io(what(dir)))?;
        let directory = fs::canonicalize(dir).map_err(Error::io(what(dir)))?;
        for name in ["zebra.conf", "bgpd.conf"] {
            let path = directory.join(name);
            // Each daemon complains about the other's commands, and goes on; so each gets only its own.
            let text = if name == "bgpd.conf" { config.to_owned() } else { zebra_part(config) };
            fs::write(&path, text).map_err(Error::io(what(&path)))?;
        }
        own_by_frr(&directory)?;
        let mut node = Self { directory, namespace: ns.to_owned(), processes: Vec::new() };
        node.launch("zebra")?;
        node.launch("bgpd")?;
        Ok(node)
    }

    fn launch(&mut self, daemon: &str) -> Result<()> {
        // Inside, the directory is `/run`: its parents need not be open to the user frr.
        let mut argv = vec![
            format!("{DAEMONS}/{daemon}"),
            "-f".to_owned(),
            format!("/run/{daemon}.conf"),
            "-i".to_owned(),
            format!("/run/{daemon}.pid"),
            "-z".to_owned(),
            "/run/zserv.api".to_owned(),
            "--vty_socket".to_owned(),
            "/run".to_owned(),
            "-P".to_owned(),
            "0".to_owned(),
            "--log".to_owned(),
            format!("file:/run/{daemon}.log"),
        ];
        if daemon == "zebra" {
            // As Debian starts it: with a smaller netlink buffer it gives up under many rows.
            argv.extend(["-s".to_owned(), "90000000".to_owned()]);
        }
        let mut run = Run::new(&self.namespace, argv);
        run.mounts = Mounts { run: Some(self.directory.clone()), binds: Vec::new() };
        let output = self.directory.join(format!("{daemon}.out"));
        let file = fs::File::create(&output).map_err(Error::io(output.display().to_string()))?;
        let copy = file.try_clone().map_err(Error::io(output.display().to_string()))?;
        let child = run.spawn(Stdio::null(), file.into(), copy.into())?;
        let process = Process::of(child.id(), run.text())
            .ok_or_else(|| Error::refused(format!("{daemon} ended as soon as it was started")))?;
        self.processes.push(process.clone());
        let deadline = Instant::now() + Duration::from_secs(15);
        let mut last = String::new();
        while Instant::now() < deadline {
            if !process.alive() {
                let said = fs::read_to_string(&output).unwrap_or_default();
                return Err(Error::refused(format!("{daemon} ended at once: {}", said.trim())));
            }
            match self.ask(daemon, "show version") {
                Ok(_) => return Ok(()),
                Err(e) => last = e.to_string(),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Error::refused(format!("{daemon} does not answer within 15 s: {last}")))
    }

    fn ask(&self, daemon: &str, command: &str) -> Result<String> {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.directory);
        if !daemon.is_empty() {
            vtysh.args(["-d", daemon]);
        }
        let out = vtysh
            .args(["-c", command])
            .stdin(Stdio::null())
            .output()
            .map_err(Error::io(format!("vtysh -c '{command}'")))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let place = self.namespace.clone();
        Err(Error::Command {
            command: format!("vtysh -c '{command}'"),
            place,
            output: format!("{}{}", text.trim(), said.trim()),
        })
    }

    /// Runs one command; its text. Several configuration lines: separate them by newlines and begin with
    /// `configure terminal`.
    pub fn vtysh(&self, commands: &str) -> Result<String> {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.directory);
        for line in commands.lines().filter(|l| !l.trim().is_empty()) {
            vtysh.args(["-c", line]);
        }
        let out = vtysh.stdin(Stdio::null()).output().map_err(Error::io(format!("vtysh -c '{commands}'")))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&out.stderr);
        Err(Error::Command {
            command: format!("vtysh -c '{commands}'"),
            place: self.namespace.clone(),
            output: format!("{} {}", text.trim(), said.trim()),
        })
    }

    /// Runs a `show … json` command. (`json` is part of the command.)
    pub fn vtysh_json(&self, command: &str) -> Result<serde_json::Value> {
        let text = self.vtysh(command)?;
        // 8.4 prints nothing at all for some empty tables.
        let text = text.trim();
        if text.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_str(text).map_err(|e| Error::Command {
            command: format!("vtysh -c '{command}'"),
            place: self.namespace.clone(),
            output: format!("not JSON ({e}): {text}"),
        })
    }

    /// The processes, for those who keep track of them.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Sockets, configuration and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Kills bgpd without a chance to say good-bye, as a crash would.
    pub fn kill_bgpd(&mut self) {
        if self.processes.len() > 1
            && let Some(bgpd) = self.processes.pop()
        {
            process::kill(&[bgpd]);
        }
    }

    /// Starts bgpd again after [`Self::kill_bgpd`].
    pub fn restart_bgpd(&mut self) -> Result<()> {
        self.launch("bgpd")
    }

    /// Ends bgpd, then zebra.
    pub fn stop(&mut self) {
        let mut last_first = std::mem::take(&mut self.processes);
        last_first.reverse();
        for p in last_first {
            process::end(&[p]);
        }
    }
}

impl Drop for FrrNode {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Zebra's share of a configuration: everything outside `router bgp` blocks.
fn zebra_part(config: &str) -> String {
    let mut bgp = false;
    let mut out = String::new();
    for line in config.lines() {
        let indented = line.starts_with([' ', '\t']);
        if !indented && !line.trim().is_empty() && !line.starts_with('!') {
            bgp = line.starts_with("router bgp")
                || line.starts_with("route-map")
                || line.starts_with("bgp ")
                || (bgp && matches!(line.trim(), "exit"));
        }
        if !bgp {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn own_by_frr(directory: &Path) -> Result<()> {
    let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("/etc/passwd"))?;
    let ids = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find_map(|f| match f[..] {
        ["frr", _, uid, gid, ..] => Some((uid.parse().ok()?, gid.parse().ok()?)),
        _ => None,
    });
    let Some((uid, gid)) = ids else {
        return Err(Error::refused("there is no user `frr`; install FRR from its package"));
    };
    let own = |p: &Path| {
        std::os::unix::fs::chown(p, Some(uid), Some(gid))
            .map_err(Error::io(format!("owner of {}", p.display())))
    };
    own(directory)?;
    for entry in fs::read_dir(directory).map_err(Error::io(directory.display().to_string()))?.flatten() {
        own(&entry.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zebra_is_not_told_what_is_bgpds() {
        let config = "hostname a\nrouter bgp 65000\n neighbor x\n address-family l2vpn evpn\n exit-address-family\nexit\n!\nip forwarding\n";
        assert_eq!(zebra_part(config), "hostname a\nip forwarding\n");
    }
}
