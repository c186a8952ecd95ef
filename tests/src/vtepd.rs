//! A vtepd process in a namespace, and its command line as the client.

use crate::need::our;
use crate::ns::{Netns, text};
use crate::poll::{SOON, eventually};
use crate::proc::Proc;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What the tests put into a configuration file.
#[derive(Clone, Debug)]
pub struct Conf {
    /// VTEP address.
    pub address: IpAddr,
    /// AS number.
    pub asn: u32,
    /// BGP identifier, needed with an IPv6 address.
    pub router_id: Option<String>,
    /// Address and AS of each neighbour.
    pub neighbors: Vec<(IpAddr, u32)>,
    /// VNI and its ports.
    pub vnis: Vec<(u32, Vec<String>)>,
    /// Lines to append to `[vtep]`.
    pub vtep_extra: String,
    /// Lines to append to each `[[neighbor]]`.
    pub neighbor_extra: String,
    /// Lines to append to each `[[vni]]`.
    pub vni_extra: String,
    /// Whole sections to append.
    pub sections: String,
}

impl Conf {
    /// An iBGP speaker in AS 65000 with VNI 100 on port `p1`.
    pub fn new(address: IpAddr, neighbors: &[IpAddr]) -> Self {
        Self {
            address,
            asn: 65000,
            router_id: None,
            neighbors: neighbors.iter().map(|a| (*a, 65000)).collect(),
            vnis: vec![(100, vec!["p1".into()])],
            vtep_extra: String::new(),
            neighbor_extra: String::new(),
            vni_extra: String::new(),
            sections: String::new(),
        }
    }

    fn toml(&self, state: &str, socket: &str) -> String {
        let mut t =
            format!("[vtep]\naddress = \"{}\"\nasn = {}\nstate-dir = \"{state}\"\n", self.address, self.asn);
        if let Some(id) = &self.router_id {
            let _ = writeln!(t, "router-id = \"{id}\"");
        }
        let _ = writeln!(t, "{}", self.vtep_extra);
        for (address, asn) in &self.neighbors {
            // A dial that met a peer not yet up is repeated soon.
            let _ = writeln!(
                t,
                "[[neighbor]]\naddress = \"{address}\"\nasn = {asn}\nconnect-retry = 1\n{}",
                self.neighbor_extra
            );
        }
        for (vni, ports) in &self.vnis {
            let _ = writeln!(t, "[[vni]]\nvni = {vni}\nports = {ports:?}\n{}", self.vni_extra);
        }
        let _ = writeln!(t, "{}\n[api]\nsocket = \"{socket}\"", self.sections);
        t
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Vtepd {
    /// The process.
    pub process: Proc,
    dir: TempDir,
}

impl Vtepd {
    /// Starts it and waits until its API answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(ns: &Netns, conf: &Conf) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-vtepd-").tempdir().expect("a scratch directory");
        Self::start_in(ns, conf, dir)
    }

    fn start_in(ns: &Netns, conf: &Conf, dir: TempDir) -> Self {
        let mut d = Self::launch(ns, conf, dir);
        let socket = d.socket();
        eventually(SOON, "vtepd answers", || {
            assert!(d.process.running(), "vtepd ended:\n{}", d.process.log());
            try_show(&socket, "status", &[]).map_err(|e| format!("{e}\n{}", d.process.log()))
        });
        d
    }

    /// Starts one in a directory and waits for nothing.
    pub fn launch(ns: &Netns, conf: &Conf, dir: TempDir) -> Self {
        let at = |f: &str| dir.path().join(f);
        let toml = conf.toml(&at("state").display().to_string(), &at("vtepd.sock").display().to_string());
        let config = at("vtepd.toml");
        std::fs::write(&config, toml).expect("writable");
        let args = ["run".into(), "--config".into(), config.into_os_string()];
        let process = Proc::start(ns, &our("vtepd"), &args, &at("vtepd.log"));
        Self { process, dir }
    }

    /// Ends the process (SIGTERM) and starts one with the same directory.
    pub fn restart(mut self, ns: &Netns, conf: &Conf) -> Self {
        self.process.terminate(Duration::from_secs(10));
        let Self { process, dir } = self;
        drop(process);
        Self::start_in(ns, conf, dir)
    }

    /// Kills the process (SIGKILL) and gives back its directory for [`Vtepd::start_again`].
    pub fn kill(mut self) -> TempDir {
        self.process.kill();
        self.dir
    }

    /// Ends the process (SIGTERM) and gives back its directory for [`Vtepd::start_again`].
    pub fn stop(mut self) -> TempDir {
        self.process.terminate(Duration::from_secs(10));
        self.dir
    }

    /// Starts one in the directory of a killed one.
    pub fn start_again(ns: &Netns, conf: &Conf, dir: TempDir) -> Self {
        Self::start_in(ns, conf, dir)
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Its API socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("vtepd.sock")
    }

    /// Rows of `vtepd show TABLE --json`.
    ///
    /// # Panics
    /// When the command fails.
    pub fn show(&self, table: &str, args: &[&str]) -> Vec<Value> {
        try_show(&self.socket(), table, args)
            .unwrap_or_else(|e| panic!("vtepd show {table} {args:?}: {e}\n{}", self.process.log()))
    }

    /// The BFD session with a neighbour, or `Null`.
    pub fn bfd(&self, address: IpAddr) -> Value {
        self.show("bfd", &["--ip", &address.to_string()]).into_iter().next().unwrap_or(Value::Null)
    }

    /// What `vtepd show TABLE` prints for people; for failures, so an error is text too.
    pub fn show_text(&self, table: &str) -> String {
        let mut c = Command::new(our("vtepd"));
        c.args(["show", table, "--socket"]).arg(self.socket());
        text(c.output()).unwrap_or_else(|e| e)
    }

    /// The row of `show status`.
    pub fn status(&self) -> Value {
        self.show("status", &[]).into_iter().next().unwrap_or(Value::Null)
    }

    /// `vtepd move STEP ARGS --json`: the answer, or what it wrote to standard error.
    ///
    /// # Errors
    /// The step was refused.
    pub fn step(&self, step: &str, args: &[&str]) -> Result<Value, String> {
        let mut c = Command::new(our("vtepd"));
        c.args(["move", step, "--json", "--socket"]).arg(self.socket()).args(args);
        let out = text(c.output())?;
        serde_json::from_str(&out).map_err(|e| format!("{e}: {out}"))
    }

    /// `vtepd why KIND 100 ADDRESS --json`.
    ///
    /// # Errors
    /// What the command says when it has no answer.
    pub fn why(&self, kind: &str, address: &str) -> Result<Value, String> {
        let mut c = Command::new(our("vtepd"));
        c.args(["why", kind, "100", address, "--json", "--socket"]).arg(self.socket());
        serde_json::from_str(&text(c.output())?).map_err(|e| e.to_string())
    }

    /// `vtepd neighbor NAME ARGS`: what it says.
    ///
    /// # Errors
    /// It was refused.
    pub fn neighbor(&self, name: &str, args: &[&str]) -> Result<String, String> {
        let mut c = Command::new(our("vtepd"));
        c.args(["neighbor", name]).args(args).arg("--socket").arg(self.socket());
        text(c.output())
    }

    /// `vtepd show neighbors NAME --json`.
    ///
    /// # Panics
    /// When the command fails.
    pub fn neighbor_detail(&self, name: &str) -> Value {
        let mut c = Command::new(our("vtepd"));
        c.args(["show", "neighbors", name, "--json", "--socket"]).arg(self.socket());
        let out = text(c.output()).unwrap_or_else(|e| panic!("vtepd show neighbors {name}: {e}"));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    /// State of a neighbour.
    pub fn neighbor_state(&self, address: IpAddr) -> String {
        let address = address.to_string();
        self.show("neighbors", &[])
            .iter()
            .find(|r| r["address"] == address.as_str())
            .and_then(|r| r["state"].as_str())
            .unwrap_or("unknown")
            .to_owned()
    }

    /// The row of `show macs` for a MAC in VNI 100, or `Null`.
    pub fn mac(&self, mac: &str) -> Value {
        self.show("macs", &["--vni", "100", "--mac", mac]).into_iter().next().unwrap_or(Value::Null)
    }

    /// Waits until every neighbour is Established and sent End-of-RIB and nothing waits to be sent or written.
    pub fn converge(&self) {
        eventually(crate::poll::LATER, "vtepd converges", || {
            let s = self.status();
            if s["converged"] == true { Ok(()) } else { Err((s, self.show("neighbors", &[]))) }
        });
    }
}

fn try_show(socket: &std::path::Path, table: &str, args: &[&str]) -> Result<Vec<Value>, String> {
    let mut c = Command::new(our("vtepd"));
    c.args(["show", table, "--json", "--socket"]).arg(socket).args(args);
    let out = text(c.output())?;
    let v: Value = serde_json::from_str(&out).map_err(|e| format!("{e}: {out}"))?;
    v["rows"].as_array().cloned().ok_or(out)
}
