//! Real libvirt daemons, one per VTEP: each in namespaces of its own for mounts, processes, host name and network, so
//! that two of them live on one machine and leave nothing on it.

use crate::need::{our, program};
use crate::ns::{Netns, text};
use crate::poll::{SOON, eventually};
use crate::proc::Proc;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The daemon; Debian's package `libvirt-daemon` has it, with the driver for QEMU.
pub const DAEMON: &str = "libvirtd";
/// The client; Debian's package is `libvirt-clients`.
pub const CLIENT: &str = "virsh";

/// Runs as process 1 of its namespace: makes the places that libvirt writes to, then keeps the daemon running. A shell
/// stays process 1, because QEMU's processes, which are orphans, are waited for by nobody else.
const HOST: &str = r#"
set -eu
D=$1 NAME=$2 UUID=$3
hostname "$NAME"
mount --make-rprivate /
for d in /run /var/lib/libvirt /etc/libvirt /var/log/libvirt /var/cache/libvirt; do
  mkdir -p $d; mount -t tmpfs none $d
done
mkdir -p /run/libvirt /var/lib/libvirt/qemu /etc/libvirt/qemu /etc/libvirt/hooks/qemu.d
ln -s "$D/run-vtepd" /run/vtepd
cp "$D/hook" /etc/libvirt/hooks/qemu
printf '#!/bin/sh\ncat >/dev/null\necho "$2 $3 $4" >> %s/calls\n' "$D" > /etc/libvirt/hooks/qemu.d/calls
chmod 755 /etc/libvirt/hooks/qemu /etc/libvirt/hooks/qemu.d/calls
# The user and the groups that the driver was built for.
for f in passwd group; do cp /etc/$f "$D/$f"; done
echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >> "$D/passwd"
for g in libvirt-qemu:x:64055: kvm:x:64056: libvirt:x:64057:; do
  grep -q "^${g%%:*}:" "$D/group" || echo "$g" >> "$D/group"
done
for f in passwd group; do mount --bind "$D/$f" /etc/$f; done
cat > /etc/libvirt/qemu.conf <<X
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
remember_owner = 0
X
cat > /etc/libvirt/libvirtd.conf <<X
unix_sock_dir = "$D"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
host_uuid = "$UUID"
X
while :; do
  libvirtd --config /etc/libvirt/libvirtd.conf || true
  [ -e "$D/again" ] || exit 1
  rm "$D/again"
done
"#;

/// A daemon.
#[derive(Debug)]
pub struct Libvirt {
    /// The process that all of it hangs on.
    pub process: Proc,
    dir: TempDir,
}

impl Libvirt {
    /// Starts the daemon of a VTEP with this number; vtepd's hook script is installed as it is packaged.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(ns: &Netns, number: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-libvirt-").tempdir().expect("a scratch directory");
        let at = |f: &str| dir.path().join(f);
        std::fs::create_dir(at("run-vtepd")).expect("writable");
        let hook = crate::tree::root().join("vtepd/packaging/libvirt-hook");
        std::fs::copy(hook, at("hook")).expect("the hook is packaged");
        std::fs::write(at("host.sh"), HOST).expect("writable");
        let ours = our("vtepd").parent().expect("a program is in a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let args: Vec<String> = [
            &format!("PATH={ours}:{path}:/usr/sbin:/sbin"),
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            &at("host.sh").display().to_string(),
            &dir.path().display().to_string(),
            &format!("vt-host{number}"),
            &format!("{number:08x}-1111-4111-8111-111111111111"),
        ]
        .map(str::to_owned)
        .to_vec();
        let process = Proc::start(ns, Path::new("/usr/bin/env"), &args, &at("libvirtd.log"));
        let mut l = Self { process, dir };
        l.answers();
        l
    }

    /// Waits until it answers.
    fn answers(&mut self) {
        eventually(SOON, "libvirt's daemon answers", || {
            assert!(self.process.running(), "it ended:\n{}", self.process.log());
            self.virsh(&["list", "--all"]).map_err(|e| format!("{e}\n{}", self.process.log()))
        });
    }

    /// Where to connect to; `read_only`: the socket for that.
    pub fn uri(&self, read_only: bool) -> String {
        let socket = if read_only { "libvirt-sock-ro" } else { "libvirt-sock" };
        format!("qemu+unix:///system?socket={}", self.dir.path().join(socket).display())
    }

    /// The hook finds vtepd here, as it does in its usual place.
    ///
    /// # Panics
    /// When the link cannot be made.
    pub fn hooks_call(&self, vtepd: &Path) {
        std::os::unix::fs::symlink(vtepd, self.dir.path().join("run-vtepd/vtepd.sock")).expect("writable");
    }

    /// What the hooks were called with, in order, since the last time that this was asked.
    pub fn calls(&self) -> Vec<String> {
        let file = self.dir.path().join("calls");
        let all = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        all.lines().map(str::to_owned).collect()
    }

    /// Runs virsh.
    ///
    /// # Errors
    /// What it wrote to standard error.
    pub fn virsh(&self, args: &[&str]) -> Result<String, String> {
        text(self.client(args).output())
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut c = Command::new(program(CLIENT).expect("needed by the test"));
        c.args(["-q", "-c", &self.uri(false)]).args(args);
        c
    }

    /// Starts a guest without a disk and without a word, its NIC on `tap0`.
    ///
    /// # Panics
    /// When libvirt refuses.
    pub fn create(&self, name: &str, mac: &str) {
        let file = self.dir.path().join(format!("{name}.xml"));
        std::fs::write(&file, domain(name, mac)).expect("writable");
        let made = self.virsh(&["create", &file.display().to_string()]);
        made.unwrap_or_else(|e| panic!("{e}\n{}", self.process.log()));
    }

    /// Sends a RARP on behalf of a guest.
    ///
    /// # Panics
    /// When libvirt refuses.
    pub fn announce(&self, name: &str) {
        let command =
            r#"{"execute":"announce-self","arguments":{"initial":20,"max":20,"rounds":1,"step":20}}"#;
        self.virsh(&["qemu-monitor-command", name, command]).expect("QEMU does it");
    }

    /// Starts to move a guest to another daemon, whose host has this address.
    ///
    /// # Panics
    /// When virsh cannot be started.
    pub fn migrate(&self, name: &str, to: &Self, address: &str) -> Child {
        let mut c = self.client(&["migrate", "--live", name, &to.uri(false), &format!("tcp://{address}")]);
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("virsh runs")
    }

    /// Ends the daemon and starts it again; its guests go on.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self) {
        std::fs::write(self.dir.path().join("again"), "").expect("writable");
        let pid = self.daemon().expect("it runs");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
        eventually(SOON, "another daemon runs", || match self.daemon() {
            Some(p) if p != pid => Ok(()),
            p => Err(format!("{p:?}")),
        });
        self.answers();
    }

    /// The daemon's process: below the one that we started, the child of its child.
    fn daemon(&self) -> Option<rustix::process::Pid> {
        let children = |pid: u32| -> Vec<u32> {
            let text =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            text.split_whitespace().filter_map(|p| p.parse().ok()).collect()
        };
        let shell = *children(self.process.pid()).first()?;
        let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let pid = children(shell).into_iter().find(|p| name(*p).trim() == DAEMON)?;
        rustix::process::Pid::from_raw(pid.cast_signed())
    }
}

fn domain(name: &str, mac: &str) -> String {
    let qemu: PathBuf = program(crate::qemu::PROGRAM).expect("needed by the test");
    // Software emulation, and no announcements of QEMU's own: what is known of the guest, libvirt has told.
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <cpu mode='custom' match='exact'><model>qemu64</model></cpu>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
  <devices>
    <emulator>{}</emulator>
    <interface type='ethernet'>
      <mac address='{mac}'/><target dev='tap0' managed='no'/><model type='virtio'/><rom enabled='no'/>
    </interface>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-global'/><qemu:arg value='migration.announce-rounds=0'/>
  </qemu:commandline>
</domain>",
        qemu.display()
    )
}
