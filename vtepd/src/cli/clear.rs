//! `vtepd clear duplicate`: an operator lets a duplicate go (EVPN-XMOB-17).

use super::client::{Client, ClientError};
use super::{Failure, OK, Target, out, parse_vni};
use clap::{Args, Subcommand};
use evpn::types::{Mac, Vni};
use serde_json::json;
use std::net::IpAddr;

#[derive(Args, Debug)]
pub(super) struct ClearArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A duplicate MAC or IP that this VTEP has found out, see `vtepd show duplicates`
    Duplicate(DuplicateArgs),
}

#[derive(Args, Debug)]
struct DuplicateArgs {
    /// The VNI
    #[arg(long, value_name = "N", value_parser = parse_vni)]
    vni: Vni,
    /// The MAC address, with everything bound to it
    #[arg(long, value_name = "MAC", required_unless_present = "ip", conflicts_with = "ip")]
    mac: Option<Mac>,
    /// The IP address only
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn clear(args: ClearArgs) -> Result<u8, Failure> {
    let What::Duplicate(args) = args.what;
    let mut body = json!({ "vni": args.vni.get() });
    if let Some(mac) = args.mac {
        body["mac"] = json!(mac.to_string());
    }
    if let Some(ip) = args.ip {
        body["ip"] = json!(ip.to_string());
    }
    let (status, value) = Client::new(&args.target.socket).post("/v1/clear", &body).await?;
    if !status.is_success() {
        let text = value["error"].as_str().unwrap_or("no reason given").to_owned();
        return Err(ClientError::Refused { status: status.as_u16(), text }.into());
    }
    out::print(&format!("{}\n", value["cleared"].as_str().unwrap_or("done")))?;
    Ok(OK)
}
