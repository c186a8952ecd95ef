//! A guest that is a real Linux: Debian's cloud kernel and a busybox, fetched as packages and never installed, and an
//! initramfs that brings the network up and then sleeps. The kernel answers pings by itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The guest's address, and the prefix length of its network.
pub const ADDRESS: &str = "10.100.0.10/24";
/// What it says on its console when it can be reached.
pub const READY: &str = "GUEST-READY";

/// In the order of their dependencies. The packages have no list of them: that is made when they are installed.
const MODULES: [&str; 8] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
for round in 1 2 3; do for m in /mods/*.ko; do /bin/busybox insmod $m 2>/dev/null; done; done
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip addr add ADDRESS dev eth0
echo READY
while :; do /bin/busybox sleep 1000; done
";

const FETCH: &str = r#"
set -e
cd "$1"
kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}')
[ -n "$kernel" ] || { echo "apt knows no linux-image-cloud-amd64; run apt-get update" >&2; exit 1; }
apt-get download -q "$kernel" busybox-static >&2
for d in *.deb; do dpkg -x "$d" root; rm "$d"; done
"#;

/// Kernel and initramfs.
#[derive(Clone, Debug)]
pub struct Image {
    /// For `-kernel`.
    pub kernel: PathBuf,
    /// For `-initrd`.
    pub initrd: PathBuf,
}

impl Image {
    /// Makes it in that directory, or finds it there: 28 MB of packages are fetched once.
    ///
    /// # Errors
    /// The packages cannot be had (Debian and Ubuntu have them), or the directory not be written.
    pub fn make(dir: &Path) -> Result<Self, String> {
        let (kernel, initrd) = (dir.join("vmlinuz"), dir.join("initrd.img"));
        if !initrd.exists() {
            let fail = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
            std::fs::create_dir_all(dir).map_err(|e| fail(dir, e))?;
            let fetched = Command::new("sh").args(["-c", FETCH, "sh"]).arg(dir).status();
            if !fetched.is_ok_and(|s| s.success()) {
                return Err("the guest's kernel cannot be fetched with apt-get download (see above)".into());
            }
            let root = dir.join("root");
            let found = find(&root.join("boot"), &|n| n.starts_with("vmlinuz-"));
            let found = found.ok_or("the kernel's package has no /boot/vmlinuz-*")?;
            std::fs::copy(&found, &kernel).map_err(|e| fail(&found, e))?;
            let archive = initramfs(&root)?;
            std::fs::write(&initrd, archive).map_err(|e| fail(&initrd, e))?;
        }
        Ok(Self { kernel, initrd })
    }
}

fn initramfs(root: &Path) -> Result<Vec<u8>, String> {
    let mut a = Archive::default();
    for d in ["bin", "proc", "mods"] {
        a.add(d, 0o040_755, &[]);
    }
    let read = |p: &Path| std::fs::read(p).map_err(|e| format!("{}: {e}", p.display()));
    let busybox = find(root, &|n| n == "busybox").ok_or("busybox-static has no busybox")?;
    a.add("bin/busybox", 0o100_755, &read(&busybox)?);
    for (i, m) in MODULES.iter().enumerate() {
        // Built in, or called otherwise, in other kernels: then it is not needed.
        if let Some(p) = find(&root.join("lib"), &|n| n == format!("{m}.ko")) {
            a.add(&format!("mods/{i}{m}.ko"), 0o100_644, &read(&p)?);
        }
    }
    a.add("init", 0o100_755, INIT.replace("ADDRESS", ADDRESS).replace("READY", READY).as_bytes());
    Ok(a.finish())
}

/// The first file with such a name below a directory.
fn find(dir: &Path, pick: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).ok()?.flatten().map(|e| e.path()).collect();
    all.sort();
    all.iter().find_map(|p| {
        if p.is_dir() && !p.is_symlink() {
            return find(p, pick);
        }
        let name = p.file_name()?.to_str()?;
        (p.is_file() && pick(name)).then(|| p.clone())
    })
}

/// An archive as the kernel unpacks it ("newc", Linux, initramfs buffer format).
#[derive(Debug, Default)]
struct Archive {
    octets: Vec<u8>,
    files: usize,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let numbers = [self.files, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let mut head = String::from("070701");
        for n in numbers {
            let _ = write!(head, "{n:08x}");
        }
        self.octets.extend_from_slice(head.as_bytes());
        self.octets.extend_from_slice(name.as_bytes());
        self.octets.push(0);
        self.pad();
        self.octets.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.octets
    }
}
