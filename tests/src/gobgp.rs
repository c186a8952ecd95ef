//! GoBGP in a namespace: a speaker, or a route reflector, that forwards nothing.

use crate::need::program;
use crate::ns::{Netns, text};
use crate::poll::{SOON, eventually};
use crate::proc::Proc;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;
use tempfile::TempDir;

/// A running gobgpd.
#[derive(Debug)]
pub struct GoBgp {
    /// The process.
    pub process: Proc,
    ns: String,
    _dir: TempDir,
}

/// A neighbour of it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Address.
    pub address: IpAddr,
    /// AS.
    pub asn: u32,
    /// A client of it as a route reflector.
    pub client: bool,
    /// Route target membership (1/132), too.
    pub rtc: bool,
}

impl Peer {
    /// A neighbour of AS 65000 that is no client.
    pub const fn ibgp(address: IpAddr) -> Self {
        Self { address, asn: 65000, client: false, rtc: false }
    }
}

impl GoBgp {
    /// Starts it in AS 65000 with this identifier and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(ns: &Netns, id: IpAddr, peers: &[Peer]) -> Self {
        Self::start_logging(ns, id, peers, "debug")
    }

    /// The same, and it logs what an operator's would.
    pub fn start_quiet(ns: &Netns, id: IpAddr, peers: &[Peer]) -> Self {
        Self::start_logging(ns, id, peers, "info")
    }

    fn start_logging(ns: &Netns, id: IpAddr, peers: &[Peer], level: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-gobgp-").tempdir().expect("a scratch directory");
        let mut conf = format!("[global.config]\nas = 65000\nrouter-id = \"{id}\"\n");
        for p in peers {
            let _ = write!(
                conf,
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n\
                 [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n",
                p.address, p.asn
            );
            if p.client {
                let _ = write!(
                    conf,
                    "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                     route-reflector-cluster-id = \"{id}\"\n"
                );
            }
            let families = if p.rtc { &["l2vpn-evpn", "rtc"][..] } else { &["l2vpn-evpn"] };
            for f in families {
                let _ = write!(
                    conf,
                    "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{f}\"\n"
                );
            }
        }
        let file = dir.path().join("gobgpd.toml");
        std::fs::write(&file, conf).expect("writable");
        let args = ["--pprof-disable", "-p", "-l", level, "-f"].map(str::to_owned);
        let args: Vec<_> = args.into_iter().chain([file.display().to_string()]).collect();
        let path = program("gobgpd").expect("checked by need::met");
        let process = Proc::start(ns, &path, &args, &dir.path().join("gobgpd.log"));
        let gobgp = Self { process, ns: ns.name().to_owned(), _dir: dir };
        eventually(SOON, "gobgpd answers", || gobgp.try_ctl(&["global"]).map(drop));
        gobgp
    }

    /// What `gobgp ARGS` prints.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        let path = program("gobgp").ok_or("no gobgp")?;
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &self.ns]).arg(path).args(args);
        text(c.output())
    }

    /// The same.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap_or_else(|e| panic!("gobgp {args:?}: {e}\n{}", self.process.log()))
    }

    /// `gobgp ARGS -j`; `Null` when it prints nothing usable.
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.ctl(&[args, &["-j"]].concat());
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }

    /// Its EVPN routes as text.
    pub fn routes(&self) -> String {
        self.ctl(&["global", "rib", "-a", "evpn"])
    }
}
