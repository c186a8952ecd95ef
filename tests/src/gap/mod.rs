//! What a migration costs a guest that is spoken to all the time: a Linux in QEMU goes back and forth between two VTEPs
//! while a host behind a third one pings it every millisecond (PIT-26).

pub mod image;
pub mod probe;
pub mod wan;

use crate::fabric::{Fabric, Host, Place, test_mac};
use crate::poll::{LATER, SOON, eventually};
use crate::qemu::{Qemu, sockets};
use crate::vtepd::Vtepd;
use evpn::types::Mac;
use image::Image;
use probe::{Probe, Seen};
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::Duration;
use tempfile::TempDir;
use wan::Wan;

const MAC: &str = "52:54:00:aa:00:01";
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 10);

/// Who says where the guest is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Its frames alone, QEMU's announcement first of all.
    Frames,
    /// QMP, `activate-at = "resume"`.
    Resume,
    /// QMP, `activate-at = "stop"`.
    Stop,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Frames, Self::Resume, Self::Stop];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames only",
            Self::Resume => "resume",
            Self::Stop => "stop",
        }
    }
}

/// A fabric with a guest that has booted at the first VTEP.
#[derive(Debug)]
struct World {
    // Ended before the namespaces go.
    guest: Qemu,
    vtepd: Vec<Vtepd>,
    _wan: Option<Wan>,
    prober: Host,
    fabric: Fabric,
    dir: TempDir,
    image: Image,
    migrations: usize,
}

impl World {
    fn new(image: &Image, way: Way, delay: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-gap-").tempdir().expect("a scratch directory");
        let fabric = Fabric::new(3);
        let wan = (!delay.is_zero()).then(|| {
            let devices: Vec<String> = fabric.vteps.iter().map(|v| format!("u{}", v.number)).collect();
            for d in &devices {
                fabric.spine.sh(&format!("ip link set {d} nomaster promisc on"));
            }
            Wan::join(&fabric.spine, &devices, delay)
        });
        let prober = fabric.host(2, "h0", test_mac(50), &["10.100.0.50/24"]);
        prober.ns.sh(&format!("ip neigh replace {GUEST} lladdr {MAC} dev eth0 nud permanent"));
        let mut vtepd = Vec::new();
        for (i, v) in fabric.vteps.iter().enumerate() {
            v.ns.sh("ip tuntap add tap0 mode tap && ip link set tap0 mtu 1450 up");
            let (_, section) = sockets(&dir, i, if way == Way::Stop { "activate-at = \"stop\"" } else { "" });
            let mut conf = fabric.conf(i);
            conf.vnis = vec![(100, vec![if i == 2 { "h0" } else { "tap0" }.to_owned()])];
            if way != Way::Frames {
                conf.sections = section;
            }
            vtepd.push(Vtepd::start(&v.ns, &conf));
        }
        for v in &vtepd {
            v.converge();
        }
        let mut w = Self {
            guest: Self::qemu(&fabric, &dir, image, 0, 0, &[]),
            vtepd,
            _wan: wan,
            prober,
            fabric,
            dir,
            image: image.clone(),
            migrations: 0,
        };
        let console = w.console(0);
        eventually(LATER, "the guest boots", || {
            assert!(w.guest.process.running(), "QEMU ended:\n{}", w.guest.process.log());
            let text = std::fs::read_to_string(&console).unwrap_or_default();
            if text.contains(image::READY) { Ok(()) } else { Err(text) }
        });
        eventually(LATER, "the guest answers", || w.prober.try_ping(&GUEST.to_string()));
        w.seen_at(0);
        w
    }

    fn console(&self, n: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("console{n}"))
    }

    fn qemu(fabric: &Fabric, dir: &TempDir, image: &Image, vtep: usize, n: usize, extra: &[&str]) -> Qemu {
        let serial = format!("file:{}", dir.path().join(format!("console{n}")).display());
        let (kernel, initrd) = (image.kernel.display().to_string(), image.initrd.display().to_string());
        let mut args = vec![
            "-m",
            "96",
            "-kernel",
            &kernel,
            "-initrd",
            &initrd,
            "-append",
            "console=ttyS0 quiet panic=-1",
            "-no-reboot",
            "-serial",
            &serial,
        ];
        args.extend(extra);
        Qemu::start(&fabric.vteps[vtep].ns, MAC, &dir.path().join(format!("v{vtep}/vm1.sock")), &args)
    }

    fn seen_at(&self, owner: usize) {
        let mac: Mac = MAC.parse().expect("a MAC");
        eventually(SOON, "everybody sends to where the guest is", || {
            self.fabric.vteps.iter().enumerate().try_for_each(|(i, v)| {
                let place =
                    if i == owner { Place::port("tap0") } else { Place::vtep(&self.fabric.vteps[owner]) };
                v.sends_to(100, mac, &place).map_err(|p| (i, p))
            })
        });
    }

    /// One migration to the other one of the first two VTEPs.
    fn migrate(&mut self, way: Way, hold: Duration) -> Option<Seen> {
        self.migrations += 1;
        let n = self.migrations;
        let to = n % 2;
        let stream = format!("unix:{}", self.dir.path().join(format!("stream{n}")).display());
        let mut target = Self::qemu(&self.fabric, &self.dir, &self.image, to, n, &["-incoming", &stream]);
        if way != Way::Frames {
            eventually(SOON, "the target is prepared", || {
                let rows = self.vtepd[to].show("hypervisors", &[]);
                if rows.iter().any(|r| r["nics"][0]["state"] == "prepared") { Ok(()) } else { Err(rows) }
            });
        }
        let probe = Probe::start(&self.prober.ns, GUEST);
        std::thread::sleep(Duration::from_secs(1));
        let limits = json!({ "max-bandwidth": 1_000_000_000_u64, "downtime-limit": 100 });
        self.guest.ask("migrate-set-parameters", &limits);
        if !hold.is_zero() {
            self.guest.capability("pause-before-switchover");
        }
        self.guest.ask("migrate", &json!({ "uri": stream }));
        if !hold.is_zero() {
            self.guest.event("MIGRATION pre-switchover");
            std::thread::sleep(hold);
            self.guest.ask("migrate-continue", &json!({ "state": "pre-switchover" }));
        }
        let resumed = target.stamp("RESUME");
        let stopped = self.guest.stamp("STOP");
        std::thread::sleep(Duration::from_millis(2500));
        let pings = probe.end();
        self.guest.event("MIGRATION completed");
        self.guest.ask("quit", &json!({}));
        self.guest.process.wait(SOON);
        self.guest = target;
        self.seen_at(to);
        pings.around(stopped, resumed)
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Who says where the guest is.
    pub way: Way,
    /// One-way delay between VTEPs.
    pub delay: Duration,
    /// For so long the guest is kept stopped before the rest of it is sent. QEMU's own pauses differ much.
    pub hold: Duration,
}

/// So many migrations; each is told as it ends, `None` when no answer came.
pub fn run(image: &Image, case: Case, migrations: usize, mut tell: impl FnMut(Option<Seen>)) {
    let mut w = World::new(image, case.way, case.delay);
    for _ in 0..migrations {
        tell(w.migrate(case.way, case.hold));
    }
}
