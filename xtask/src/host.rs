//! The machine: root, terminal, and the programs that must be there.

use crate::Error;
use clap::Args;
use std::ffi::OsStr;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// May packages be installed?
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Consent {
    /// Install missing packages without asking (CI=true means the same)
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl Consent {
    /// Given on the command line or by CI.
    fn given(self) -> bool {
        self.yes || ci()
    }
}

/// `CI=true`: nothing asks, nothing is skipped.
pub(crate) fn ci() -> bool {
    std::env::var_os("CI").is_some_and(|v| v == "true" || v == "1")
}

/// A program that is needed, and where Debian and Ubuntu have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Need {
    /// `ip` and `bridge`.
    Ip,
    /// `tc`.
    Tc,
    /// `ping`.
    Ping,
    /// FRR's bgpd, zebra and vtysh.
    Frr,
    /// `gobgpd` and `gobgp`.
    GoBgp,
    /// `nft`.
    Nft,
    /// `tcpdump`.
    Tcpdump,
    /// QEMU for x86, software emulation suffices.
    Qemu,
    /// libvirt's daemon with its driver for QEMU; it is run by the tests alone.
    Libvirt,
    /// `virsh`.
    Virsh,
    /// `dnsmasq`, the program alone.
    DhcpServer,
    /// `dhclient`.
    DhcpClient,
    /// `arping`, which checks an address as RFC 5227 says.
    Arping,
}

impl Need {
    /// Everything the tests use.
    pub(crate) const ALL: [Self; 13] = [
        Self::Ip,
        Self::Tc,
        Self::Ping,
        Self::Frr,
        Self::GoBgp,
        Self::Nft,
        Self::Tcpdump,
        Self::Qemu,
        Self::Libvirt,
        Self::Virsh,
        Self::DhcpServer,
        Self::DhcpClient,
        Self::Arping,
    ];

    /// Package, and what for.
    fn package(self) -> (&'static str, &'static str) {
        match self {
            Self::Ip | Self::Tc => {
                ("iproute2", "network namespaces, bridges, VXLAN devices (ip, bridge, tc)")
            }
            Self::Ping => ("iputils-ping", "reachability checks between the VMs"),
            Self::Frr => ("frr", "the BGP EVPN speaker to interoperate and compare with"),
            Self::GoBgp => ("gobgpd", "another BGP speaker to interoperate and compare with (gobgpd, gobgp)"),
            Self::Nft => ("nftables", "the tests where a bridge filter drops frames"),
            Self::Tcpdump => ("tcpdump", "captures, to look at what crosses the underlay"),
            Self::Qemu => ("qemu-system-x86", "guests that are really migrated, for the QMP tests"),
            Self::Libvirt => ("libvirt-daemon", "guests that libvirt migrates, for its hook and its events"),
            Self::Virsh => ("libvirt-clients", "the same: virsh"),
            Self::DhcpServer => ("dnsmasq-base", "a DHCP server in a namespace of the tests"),
            Self::DhcpClient => ("isc-dhcp-client", "guests that ask it for an address"),
            Self::Arping => ("iputils-arping", "guests that check their address before they use it"),
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Ip => &["ip", "bridge"],
            Self::Tc => &["tc"],
            Self::Ping => &["ping"],
            Self::Frr => &["bgpd", "zebra", "vtysh"],
            Self::GoBgp => &["gobgpd", "gobgp"],
            Self::Nft => &["nft"],
            Self::Tcpdump => &["tcpdump"],
            Self::Qemu => &["qemu-system-x86_64"],
            Self::Libvirt => &["libvirtd"],
            Self::Virsh => &["virsh"],
            Self::DhcpServer => &["dnsmasq"],
            Self::DhcpClient => &["dhclient"],
            Self::Arping => &["arping"],
        }
    }

    fn present(self) -> bool {
        self.programs().iter().all(|p| find(p).is_some())
    }
}

/// Where a program is: `PATH`, then the places for administrators, which a user's `PATH` may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/frr"].map(PathBuf::from))
        .map(|d| d.join(program))
        .find(|p| p.is_file())
}

/// A way to be root.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    /// We are.
    Already,
    /// Through sudo.
    Sudo(PathBuf),
}

impl Root {
    /// The way, if there is one.
    pub(crate) fn find() -> Option<Self> {
        if rustix::process::geteuid().is_root() { Some(Self::Already) } else { find("sudo").map(Self::Sudo) }
    }

    /// A command that runs `program` as root with these variables set.
    pub(crate) fn command(&self, program: &Path, env: &[(&str, &OsStr)]) -> Command {
        match self {
            Self::Already => {
                let mut c = Command::new(program);
                c.envs(env.iter().copied());
                c
            }
            Self::Sudo(sudo) => {
                let mut c = Command::new(sudo);
                if !std::io::stdin().is_terminal() {
                    c.arg("-n");
                }
                // sudo resets the environment, so the variables travel as arguments.
                c.args(["--", "env"]);
                for (k, v) in env {
                    let mut kv = std::ffi::OsString::from(k);
                    kv.push("=");
                    kv.push(v);
                    c.arg(kv);
                }
                c.arg(program);
                c
            }
        }
    }

    /// Whether raising would work now without asking for a password.
    pub(crate) fn ready(&self) -> bool {
        match self {
            Self::Already => true,
            Self::Sudo(sudo) => {
                let quiet = Command::new(sudo)
                    .args(["-n", "true"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                quiet.is_ok_and(|s| s.success())
            }
        }
    }
}

/// Packages that are missing, each once, with the reason.
pub(crate) fn missing(needs: &[Need]) -> Vec<(&'static str, &'static str)> {
    let mut out = Vec::new();
    for (package, why) in needs.iter().filter(|n| !n.present()).map(|n| n.package()) {
        if !out.iter().any(|(p, _)| *p == package) {
            out.push((package, why));
        }
    }
    out
}

/// What is to be installed, and by which command.
pub(crate) fn plan(missing: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("These packages are missing:\n");
    for (p, why) in missing {
        let _ = writeln!(out, "  {p:<14} {why}");
    }
    let names: Vec<_> = missing.iter().map(|(p, _)| *p).collect();
    let _ = write!(out, "They would be installed with: apt-get install {}", names.join(" "));
    out
}

/// Sees to it that the needed programs are there: asks, installs, checks again.
pub(crate) fn provide(needs: &[Need], consent: &Consent, root: &Root) -> Result<(), Error> {
    let gone = missing(needs);
    if gone.is_empty() {
        return Ok(());
    }
    let plan = plan(&gone);
    if find("apt-get").is_none() {
        return Err(Error::not_started(format!(
            "{plan}\nbut there is no apt-get here: install their like by hand"
        )));
    }
    if consent.given() {
        eprintln!("{plan}");
    } else if !std::io::stdin().is_terminal() {
        return Err(Error::not_started(format!(
            "{plan}\nNobody to ask here: run again with --yes to agree."
        )));
    } else if !ask(&plan)? {
        return Err(Error::not_started("not agreed, nothing was installed"));
    }
    install(&gone.iter().map(|(p, _)| *p).collect::<Vec<_>>(), root)?;
    let still = missing(needs);
    if still.is_empty() {
        Ok(())
    } else {
        Err(Error::failed(format!("after the installation: {}", self::plan(&still))))
    }
}

fn ask(plan: &str) -> Result<bool, Error> {
    eprint!("{plan}\nInstall them now? [Y/n] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| Error::not_started(e.to_string()))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "" | "y" | "yes") && !line.is_empty())
}

/// Debian starts the services that it installs; this file, while it exists, says no (policy-rc.d of invoke-rc.d).
const POLICY: &str = "/usr/sbin/policy-rc.d";

fn install(packages: &[&str], root: &Root) -> Result<(), Error> {
    // One shell under root: keeps services from starting, reads the package lists only if they do not suffice.
    let script = format!(
        "set -e
         made=
         if [ ! -e {POLICY} ]; then printf '#!/bin/sh\\nexit 101\\n' > {POLICY}; chmod 755 {POLICY}; made=1; fi
         trap '[ -z \"$made\" ] || rm -f {POLICY}' EXIT
         export DEBIAN_FRONTEND=noninteractive
         get() {{ apt-get install -y --no-install-recommends \"$@\"; }}
         if ! get \"$@\" >/dev/null 2>&1; then apt-get update -q; get -q \"$@\"; fi
         for p in \"$@\"; do
           if [ \"$p\" = frr ] && [ -d /run/systemd/system ]; then systemctl disable frr >/dev/null 2>&1 || true; fi
         done"
    );
    eprintln!("installing {} …", packages.join(" "));
    let status = root
        .command(Path::new("/bin/sh"), &[])
        .args(["-c", &script, "sh"])
        .args(packages)
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .map_err(|e| Error::failed(format!("cannot run apt-get: {e}")))?;
    if status.success() { Ok(()) } else { Err(Error::failed("apt-get could not install them (see above)")) }
}

#[cfg(test)]
mod tests {
    use super::{Need, plan};

    #[test]
    fn the_plan_names_each_package_with_its_reason_and_the_command() {
        let text = plan(&[Need::Frr.package(), Need::Nft.package()]);
        assert!(text.contains("frr            the BGP EVPN speaker"), "{text}");
        assert!(text.ends_with("apt-get install frr nftables"), "{text}");
    }
}
