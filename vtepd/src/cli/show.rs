//! `vtepd show`: fetches every slice of a table and prints it.

use super::client::Client;
use super::{Failure, OK, ShowArgs, TableName, bfd, guests, moves, neighbor, out, path_with, rows, watch};
use crate::driver::bfd::BfdTable;
use crate::hypervisor::board::GuestRow;
use clap::CommandFactory as _;
use evpn::node::view::{MoveView, Rows};
use serde_json::{Value, json};

/// Slices fetched at most; a table that has more changes faster than it can be read.
const MAX_SLICES: usize = 1 << 16;

pub(super) async fn show(args: ShowArgs) -> Result<u8, Failure> {
    if args.table != TableName::Moves && !args.moves.is_empty() {
        let text = "`--kind`, `--cause`, `--role`, `--since`, `--slow` and `--last` are for `show moves`";
        super::Cli::command().error(clap::error::ErrorKind::ArgumentConflict, text).exit();
    }
    if !matches!(args.table, TableName::Macs | TableName::Hosts) && !args.place.parameters().is_empty() {
        let text = "`--port` and `--vtep` are for `show macs` and `show hosts`";
        super::Cli::command().error(clap::error::ErrorKind::ArgumentConflict, text).exit();
    }
    if args.table != TableName::Neighbors && args.name.is_some() {
        let text = "a name is for `show neighbors`";
        super::Cli::command().error(clap::error::ErrorKind::ArgumentConflict, text).exit();
    }
    let client = Client::new(&args.target.socket);
    if let Some(name) = &args.name {
        return neighbor::show(&client, name, args.json).await;
    }
    if args.table == TableName::Events {
        return events(&client, &args).await;
    }
    if args.table == TableName::Hypervisors {
        return hypervisors(&client, &args).await;
    }
    if args.table == TableName::Bfd {
        return bfd_sessions(&client, &args).await;
    }
    let table = name(args.table);
    let look = out::Look::of_stdout();
    let mut all = Vec::new();
    let mut head = Value::Null;
    let mut cursor: Option<String> = None;
    for _ in 0..MAX_SLICES {
        let mut parameters = args.filter.parameters();
        parameters.extend(args.place.parameters());
        parameters.extend(args.moves.parameters());
        parameters.extend(cursor.take().map(|c| ("cursor", c)));
        let mut page = client.get(&path_with(&format!("/v1/{table}"), &parameters)).await?;
        if let Some(rows) = page["rows"]["rows"].as_array_mut() {
            all.append(rows);
        }
        cursor = page["next"].as_str().map(str::to_owned);
        head = page;
        if cursor.is_none() {
            break;
        }
    }
    if let Some(n) = args.moves.last {
        all.drain(..all.len().saturating_sub(n));
    }
    if args.json {
        let mut whole = json!({
            "version": head["version"], "revision": head["revision"], "table": table, "rows": all,
        });
        if args.table == TableName::Moves {
            let moves: Vec<MoveView> = serde_json::from_value(whole["rows"].clone()).unwrap_or_default();
            whole["summary"] = moves::summary_json(&moves);
        }
        out::print(&format!("{whole:#}\n"))?;
        return Ok(OK);
    }
    let rows: Rows = serde_json::from_value(json!({ "table": table, "rows": all }))
        .map_err(|e| Failure::Other(format!("the daemon is of another version than this program: {e}")))?;
    let mut text = rows::render(&rows, look);
    if let Rows::Moves(moves) = &rows {
        text.push_str(&moves::summary(moves));
    }
    out::print(&text)?;
    Ok(OK)
}

fn name(table: TableName) -> &'static str {
    match table {
        TableName::Status => "status",
        TableName::Neighbors => "neighbors",
        TableName::Bfd => "bfd",
        TableName::Vnis => "vnis",
        TableName::Macs => "macs",
        TableName::Hosts => "hosts",
        TableName::Routes => "routes",
        TableName::Moves => "moves",
        TableName::Duplicates => "duplicates",
        TableName::Kernel => "kernel",
        TableName::Hypervisors => "hypervisors",
        TableName::Events => "events",
    }
}

/// Guests; the daemon's side thread knows them, not its node.
async fn hypervisors(client: &Client, args: &ShowArgs) -> Result<u8, Failure> {
    let mut rows: Vec<GuestRow> = serde_json::from_value(client.get("/v1/hypervisors").await?["rows"].take())
        .map_err(|e| Failure::Other(format!("the daemon is of another version than this program: {e}")))?;
    if let Some(mac) = args.filter.mac {
        rows.retain(|r| r.nics.iter().any(|n| n.mac == mac));
    }
    if args.json {
        let version = evpn::node::view::VERSION;
        let whole = json!({ "version": version, "table": "hypervisors", "rows": rows });
        out::print(&format!("{whole:#}\n"))?;
    } else {
        out::print(&guests::render(&rows, out::Look::of_stdout()))?;
    }
    Ok(OK)
}

/// BFD sessions; their own thread knows them, not the daemon's node.
async fn bfd_sessions(client: &Client, args: &ShowArgs) -> Result<u8, Failure> {
    let mut table: BfdTable = serde_json::from_value(client.get("/v1/bfd").await?)
        .map_err(|e| Failure::Other(format!("the daemon is of another version than this program: {e}")))?;
    if let Some(ip) = args.filter.ip {
        table.rows.retain(|r| r.neighbor == ip);
    }
    if args.json {
        let version = evpn::node::view::VERSION;
        let whole =
            json!({ "version": version, "table": "bfd", "rows": table.rows, "dropped": table.dropped });
        out::print(&format!("{whole:#}\n"))?;
    } else {
        out::print(&bfd::render(&table, out::Look::of_stdout()))?;
    }
    Ok(OK)
}

/// The history, oldest first.
async fn events(client: &Client, args: &ShowArgs) -> Result<u8, Failure> {
    let color = out::Look::of_stdout().color;
    let (mut after, mut lagged, mut all) = (0, 0, Vec::new());
    for _ in 0..MAX_SLICES {
        let parameters = [("after", after.to_string()), ("follow", "false".to_owned())];
        let page = client.get(&path_with("/v1/events", &parameters)).await?;
        lagged += page["lagged"].as_u64().unwrap_or(0);
        let lines = page["events"].as_array().cloned().unwrap_or_default();
        all.extend(lines.into_iter().filter(|l| watch::matches(&args.filter, l)));
        match page["next"].as_u64() {
            Some(n) if n > after => after = n,
            _ => break,
        }
    }
    if args.json {
        let version = evpn::node::view::VERSION;
        let whole = json!({ "version": version, "table": "events", "lagged": lagged, "rows": all });
        out::print(&format!("{whole:#}\n"))?;
        return Ok(OK);
    }
    let mut text = String::new();
    if lagged > 0 {
        text.push_str(&watch::lagged_line(lagged, color));
    }
    for line in &all {
        text.push_str(&watch::human(line, color));
    }
    out::print(&text)?;
    Ok(OK)
}
