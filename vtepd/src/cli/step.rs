//! `vtepd move`: a step of a prepared move, for hypervisors and for people.

use super::client::{Client, ClientError};
use super::{FAILED, Failure, OK, Target, out, parse_vni};
use clap::{Args, Subcommand};
use evpn::node::MoveReply;
use evpn::types::{Mac, Vni};
use out::{Color, Look};
use serde_json::json;
use std::fmt::Write as _;
use std::net::IpAddr;

/// `vtepd move`
#[derive(Args, Debug)]
pub(super) struct MoveArgs {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// At the target: check and ready everything for the guest; nothing is advertised
    Prepare {
        #[command(flatten)]
        common: Common,
        /// The guest's port on this host
        #[arg(long, value_name = "DEV")]
        port: String,
        /// An address of the guest; may be given several times
        #[arg(long = "ip", value_name = "IP")]
        ips: Vec<IpAddr>,
        /// Give up after this time [default: `mobility.prepare-time`]
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        timeout: Option<String>,
        /// Activate by itself when the source says that the guest has stopped
        #[arg(long)]
        at_stop: bool,
    },
    /// At the target: the MAC goes on its port in the kernel, then its routes go out
    Activate {
        #[command(flatten)]
        common: Common,
        /// The guest's port on this host; needed without a preparation
        #[arg(long, value_name = "DEV")]
        port: Option<String>,
        /// An address of the guest; may be given several times
        #[arg(long = "ip", value_name = "IP")]
        ips: Vec<IpAddr>,
        /// Withdraw after this time if the guest is never heard [default: `mobility.prepare-time`]
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        timeout: Option<String>,
    },
    /// The move will not happen: leave no trace of it here
    Abort {
        #[command(flatten)]
        common: Common,
    },
    /// At the source: the guest is leaving, its last frames shall not win it back
    Release {
        #[command(flatten)]
        common: Common,
        /// For so long [default: `mobility.release-time`]
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        timeout: Option<String>,
        /// The guest has stopped: a target that was prepared with `--at-stop` activates
        #[arg(long)]
        at_stop: bool,
    },
}

#[derive(Args, Debug)]
struct Common {
    /// The guest's MAC address
    #[arg(long, value_name = "MAC")]
    mac: Mac,
    /// The VNI; needed only where it is not clear from port or MAC
    #[arg(long, value_name = "N", value_parser = parse_vni)]
    vni: Option<Vni>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn parse_time(s: &str) -> Result<String, String> {
    let fits = crate::config::walk::parse_duration(s).is_some_and(|ns| ns > 0 && ns <= 3_600_000_000_000);
    if fits { Ok(s.to_owned()) } else { Err("must be a number with a unit, up to 1h: 500ms, 30s, 2m".into()) }
}

pub(super) async fn step(args: MoveArgs) -> Result<u8, Failure> {
    let at_stop =
        matches!(args.step, Step::Prepare { at_stop: true, .. } | Step::Release { at_stop: true, .. });
    let (word, common, port, ips, timeout) = match args.step {
        Step::Prepare { common, port, ips, timeout, .. } => ("prepare", common, Some(port), ips, timeout),
        Step::Activate { common, port, ips, timeout } => ("activate", common, port, ips, timeout),
        Step::Abort { common } => ("abort", common, None, Vec::new(), None),
        Step::Release { common, timeout, .. } => ("release", common, None, Vec::new(), timeout),
    };
    let mut body = json!({ "step": word, "mac": common.mac.to_string() });
    if let Some(vni) = common.vni {
        body["vni"] = json!(vni.get());
    }
    if let Some(port) = port {
        body["port"] = json!(port);
    }
    if !ips.is_empty() {
        body["ips"] = json!(ips);
    }
    if let Some(timeout) = timeout {
        body["timeout"] = json!(timeout);
    }
    if at_stop {
        body["at-stop"] = json!(true);
    }
    let (status, value) = Client::new(&common.target.socket).post("/v1/move", &body).await?;
    // 504 with an answer: it is active, but no neighbour has heard of it yet.
    if !status.is_success() && value.get("error").is_some() {
        let text = value["error"].as_str().unwrap_or("no reason given").to_owned();
        return Err(ClientError::Refused { status: status.as_u16(), text }.into());
    }
    let code = if status.is_success() { OK } else { FAILED };
    if common.json {
        out::print(&format!("{value:#}\n"))?;
        return Ok(code);
    }
    let reply: MoveReply = serde_json::from_value(value)
        .map_err(|e| Failure::Other(format!("the daemon is of another version than this program: {e}")))?;
    out::print(&human(&reply, Look::of_stdout().color))?;
    Ok(code)
}

fn list(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn human(r: &MoveReply, color: bool) -> String {
    let state = match r.state.as_str() {
        "nothing" => Color::Dim.paint("nothing to do for", color),
        word => Color::Green.paint(word, color),
    };
    let mut out = format!("{state} {}", r.mac);
    if let Some(vni) = r.vni {
        let _ = write!(out, " in VNI {vni}");
    }
    if let Some(seq) = r.seq {
        let _ = write!(out, ", sequence {seq}");
    }
    if !r.ips.is_empty() {
        let _ = write!(out, ", with {}", list(&r.ips));
    }
    out.push('\n');
    if !r.sent_to.is_empty() {
        let _ = writeln!(out, "  told: {}", list(&r.sent_to));
    }
    if !r.lagging.is_empty() {
        let lagging = Color::Yellow.paint("lagging:", color);
        let _ = writeln!(out, "  {lagging} {}", list(&r.lagging));
    }
    for note in &r.notes {
        let _ = writeln!(out, "  {} {note}", Color::Yellow.paint("note:", color));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::types::Seq;

    #[test]
    fn an_answer_is_a_line_with_what_follows_from_it() {
        let ip = |s: &str| s.parse::<IpAddr>().expect("valid");
        let mut r = MoveReply {
            vni: Vni::new(100),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            state: "active".into(),
            seq: Some(Seq(3)),
            ips: vec![ip("10.1.0.1"), ip("fd00::1")],
            sent_to: vec![ip("10.255.0.2")],
            lagging: vec![ip("10.255.0.3")],
            notes: vec!["neighbour 10.255.0.4 is down and was not told".into()],
        };
        assert_eq!(
            human(&r, false),
            "active 02:00:00:00:00:01 in VNI 100, sequence 3, with 10.1.0.1, fd00::1\n  told: 10.255.0.2\n  \
             lagging: 10.255.0.3\n  note: neighbour 10.255.0.4 is down and was not told\n"
        );
        (r.state, r.vni, r.seq) = ("nothing".into(), None, None);
        r.ips.clear();
        r.sent_to.clear();
        r.lagging.clear();
        r.notes.clear();
        assert_eq!(human(&r, false), "nothing to do for 02:00:00:00:00:01\n");
    }
}
