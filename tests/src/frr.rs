//! FRR's zebra and bgpd in a namespace, with their own directory.

use crate::need::program;
use crate::ns::{Netns, text};
use crate::poll::{SOON, eventually};
use crate::proc::Proc;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// FRR gives up root for its own user, who must own the directory.
pub(crate) fn give(dir: &Path) {
    text(Command::new("chown").args(["-R", "frr:frr"]).arg(dir).output()).expect("user frr exists");
}

/// Starts one of FRR's daemons with its files in this directory.
pub(crate) fn daemon(ns: &Netns, dir: &Path, d: &str) -> Proc {
    let at = |f: &str| dir.join(f);
    let mut args = vec![
        "--vty_socket".to_owned(),
        dir.display().to_string(),
        "-z".into(),
        at("zserv.api").display().to_string(),
        "-i".into(),
        at(&format!("{d}.pid")).display().to_string(),
        "-f".into(),
        at(&format!("{d}.conf")).display().to_string(),
        "-P".into(),
        "0".into(),
        "--log".into(),
        "stdout".into(),
    ];
    if d == "zebra" {
        // As Debian starts it; with less, zebra gives up when 100,000 rows are reported at once.
        args.extend(["-s".to_owned(), "90000000".into()]);
    }
    if d == "bfdd" {
        args.extend(["--bfdctl".to_owned(), at("bfdd.sock").display().to_string()]);
    }
    let mut path = program(d).expect("checked by need::met");
    if d == "bfdd"
        && let Some(chrt) = program("chrt")
    {
        // As ours: on a busy machine it would miss 3 x 50 ms, and the test would find a failure that is none of ours.
        let before = ["-f".to_owned(), "1".into(), path.display().to_string()];
        args.splice(..0, before);
        path = chrt;
    }
    let p = Proc::start(ns, &path, &args, &at(&format!("{d}.log")));
    if d == "zebra" {
        eventually(SOON, "zebra opens its socket", || {
            if at("zserv.api").exists() { Ok(()) } else { Err(p.log()) }
        });
    }
    if d == "bfdd" {
        eventually(SOON, "bfdd opens its socket", || {
            if at("bfdd.vty").exists() { Ok(()) } else { Err(p.log()) }
        });
    }
    p
}

/// What vtysh prints for these commands, with the daemons of a directory.
pub(crate) fn vtysh(dir: &Path, commands: &[&str]) -> Result<String, String> {
    let mut c = Command::new(program("vtysh").ok_or("no vtysh")?);
    c.arg("--vty_socket").arg(dir);
    for k in commands {
        c.args(["-c", k]);
    }
    text(c.output())
}

/// A running FRR.
#[derive(Debug)]
pub struct Frr {
    // Ended in this order: bgpd first, so that it can say good-bye.
    /// bgpd.
    pub bgpd: Proc,
    /// bfdd, if it was asked for.
    pub bfdd: Option<Proc>,
    /// zebra.
    pub zebra: Proc,
    dir: TempDir,
}

impl Frr {
    /// Starts it with this bgpd configuration and waits until both daemons answer.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(ns: &Netns, bgpd_conf: &str) -> Self {
        Self::start_daemons(ns, bgpd_conf, None)
    }

    /// The same, with bfdd and its configuration.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with_bfd(ns: &Netns, bgpd_conf: &str, bfdd_conf: &str) -> Self {
        Self::start_daemons(ns, bgpd_conf, Some(bfdd_conf))
    }

    fn start_daemons(ns: &Netns, bgpd_conf: &str, bfdd_conf: Option<&str>) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-frr-").tempdir().expect("a scratch directory");
        let at = |f: &str| dir.path().join(f);
        std::fs::write(at("zebra.conf"), "hostname zebra\n").expect("writable");
        std::fs::write(at("bgpd.conf"), format!("hostname bgpd\n{bgpd_conf}")).expect("writable");
        if let Some(conf) = bfdd_conf {
            std::fs::write(at("bfdd.conf"), format!("hostname bfdd\n{conf}")).expect("writable");
        }
        give(dir.path());
        let start = |d: &str| daemon(ns, dir.path(), d);
        let zebra = start("zebra");
        // Before bgpd, which registers its sessions with it by zebra.
        let bfdd = bfdd_conf.map(|_| start("bfdd"));
        let bgpd = start("bgpd");
        let frr = Self { bgpd, bfdd, zebra, dir };
        eventually(SOON, "bgpd answers", || {
            let out = frr.try_vty(&["show bgp summary json"])?;
            if out.contains('{') { Ok(()) } else { Err(out) }
        });
        // bgpd reads the table of VNIs from zebra; without that link it knows none.
        eventually(SOON, "bgpd is zebra's client", || {
            let out = frr.try_vty(&["show zebra client summary"])?;
            if out.contains("bgp") { Ok(()) } else { Err(out) }
        });
        frr
    }

    /// What vtysh prints for these commands.
    pub fn try_vty(&self, commands: &[&str]) -> Result<String, String> {
        vtysh(self.dir.path(), commands)
    }

    /// The same.
    ///
    /// # Panics
    /// When vtysh fails.
    pub fn vty(&self, commands: &[&str]) -> String {
        self.try_vty(commands).unwrap_or_else(|e| panic!("vtysh {commands:?}: {e}"))
    }

    /// A `show … json` command as JSON; `Null` when FRR prints nothing usable (it does for things that it does
    /// not know).
    pub fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.vty(&[command])).unwrap_or(Value::Null)
    }

    /// Configuration lines below `router bgp AS`, `address-family l2vpn evpn`.
    pub fn configure(&self, asn: u32, lines: &[&str]) {
        let router = format!("router bgp {asn}");
        let mut c = vec!["configure terminal", &router];
        c.extend(lines);
        self.vty(&c);
    }

    /// The BFD session with a peer as bfdd tells it, or `Null`.
    pub fn bfd_peer(&self, address: std::net::IpAddr) -> Value {
        crate::bfdd::of_peer(&self.try_vty(&["show bfd peers json"]).unwrap_or_default(), address)
    }

    /// State of a neighbour in the EVPN family, as FRR names it.
    pub fn neighbor_state(&self, address: &str) -> String {
        self.json("show bgp l2vpn evpn summary json")["peers"][address]["state"]
            .as_str()
            .unwrap_or("unknown")
            .to_owned()
    }

    /// `show evpn mac vni N mac M json`, whatever shape this release gives it (an object keyed by MAC or not).
    pub fn mac(&self, vni: u32, mac: &str) -> Value {
        let v = self.json(&format!("show evpn mac vni {vni} mac {mac} json"));
        if v[mac].is_object() { v[mac].clone() } else { v }
    }

    /// How a VNI floods to a VTEP (`HER`), from the text of `show evpn vni N`: its JSON has had three shapes.
    pub fn flood_mode(&self, vni: u32, vtep: &str) -> Option<String> {
        let text = self.vty(&[&format!("show evpn vni {vni}")]);
        let line = text.lines().find(|l| l.split_whitespace().next() == Some(vtep))?;
        line.split_once("flood: ").map(|(_, m)| m.trim().to_owned())
    }

    /// `show bgp l2vpn evpn route …`, the text form: the shape of its JSON differs between releases.
    pub fn routes(&self, filter: &str) -> String {
        self.vty(&[&format!("show bgp l2vpn evpn route {filter}")])
    }

    /// `show bgp l2vpn evpn route detail` of one route type, for attributes.
    pub fn route_details(&self, kind: &str) -> String {
        self.vty(&[&format!("show bgp l2vpn evpn route detail type {kind}")])
    }
}
