//! `vtepd hook libvirt`: what `/etc/libvirt/hooks/qemu` calls (libvirt, "Hooks for specific system management").
//!
//! libvirt calls the hook with the domain's name, an operation, a sub-operation and one more word, and the domain's XML
//! on standard input. On the target all of it comes before QEMU is even started, so a hook can prepare, abort and
//! release, and never activate (PIT-25). In the order of a migration:
//!
//! | called with | where | what is done |
//! |---|---|---|
//! | `migrate begin -`, `prepare begin -` | target | *prepare* for devices that are there already |
//! | `start begin -`, `started begin -` | target | *prepare*: the taps have their names now |
//! | `stopped end -` | both | nothing: it does not say why |
//! | `release end REASON` | source | `migrated`: *release* |
//! | `release end REASON` | target | anything else (`failed`, and `-` before libvirt 10.5): *abort* |
//!
//! `prepare`, `start` and `started` come when a guest just boots, too: only MACs that another VTEP has are prepared
//! for. A hook that fails or hangs ends the migration; so this one prints nothing (its output would replace the XML),
//! ends within two seconds, and succeeds whatever happens, unless it is told to be strict.

use super::domain::{Domain, DomainError, MAX_XML};
use crate::cli::client::{Client, ClientError};
use evpn::types::Mac;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// All the time there is.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How long a preparation stands; there is no second call before the guest runs.
const PREPARED_FOR: &str = "1h";

/// What a call asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Prepare for interfaces whose devices exist.
    Prepare,
    /// The guest has left.
    Release,
    /// It does not come, or has ended.
    Abort,
}

/// What libvirt's arguments ask for; `None`: nothing.
pub fn plan(operation: &str, sub: &str, extra: &str) -> Option<Plan> {
    match (operation, sub, extra) {
        ("migrate" | "restore" | "prepare" | "start" | "started", "begin", _) => Some(Plan::Prepare),
        ("release", "end", "migrated") => Some(Plan::Release),
        ("release", "end", _) => Some(Plan::Abort),
        _ => None,
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The XML did not come, or not all of it.
    #[error("libvirt's description of the domain did not come within 2 seconds")]
    NoInput,
    /// It could not be read.
    #[error("cannot read the domain's description: {0}")]
    Input(std::io::Error),
    /// It is no domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// No runtime to be had.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon says no.
    #[error("{mac}: {why}")]
    Refused {
        /// For which NIC.
        mac: Mac,
        /// Its words.
        why: String,
    },
    /// Too late.
    #[error("vtepd did not answer within 2 seconds")]
    Late,
}

/// Does what a call asks for. Returns everything that did not work.
pub fn run(socket: &Path, operation: &str, sub: &str, extra: &str) -> Vec<HookError> {
    let begun = Instant::now();
    let Some(plan) = plan(operation, sub, extra) else { return Vec::new() };
    let domain = match input(DEADLINE).and_then(|xml| Ok(Domain::parse(&xml)?)) {
        Ok(d) => d,
        Err(e) => return vec![e],
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return vec![HookError::Start(e)],
    };
    let left = DEADLINE.saturating_sub(begun.elapsed());
    let job = async { tokio::time::timeout(left, all(&Client::new(socket), plan, &domain)).await };
    let problems = runtime.block_on(job).unwrap_or_else(|_| vec![HookError::Late]);
    runtime.shutdown_background();
    problems
}

/// Standard input to its end. On a thread of its own, because nothing else can give up on it.
fn input(limit: Duration) -> Result<String, HookError> {
    let (send, receive) = mpsc::sync_channel(1);
    let read = move || {
        let mut octets = Vec::new();
        let done = std::io::stdin().lock().take(MAX_XML as u64 + 1).read_to_end(&mut octets);
        let _ = send.send(done.map(|_| octets));
    };
    std::thread::Builder::new().name("stdin".into()).spawn(read).map_err(HookError::Start)?;
    let octets = receive.recv_timeout(limit).map_err(|_| HookError::NoInput)?.map_err(HookError::Input)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

async fn all(client: &Client, plan: Plan, domain: &Domain) -> Vec<HookError> {
    let mut problems = Vec::new();
    for i in &domain.interfaces {
        let mac = i.mac;
        let body = match (plan, &i.port) {
            (Plan::Prepare, None) => continue,
            (Plan::Prepare, Some(port)) => {
                if !Path::new("/sys/class/net").join(port).exists() {
                    continue;
                }
                match is_elsewhere(client, mac).await {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(e) => {
                        problems.push(e.into());
                        continue;
                    }
                }
                json!({ "step": "prepare", "mac": mac, "port": port, "timeout": PREPARED_FOR, "by": "libvirt" })
            }
            (Plan::Release, _) => json!({ "step": "release", "mac": mac, "by": "libvirt" }),
            (Plan::Abort, _) => json!({ "step": "abort", "mac": mac, "by": "libvirt" }),
        };
        match client.post("/v1/move", &body).await {
            Ok((status, _)) if status.is_success() => {}
            // The guest was heard here and has ended now: nothing to abort.
            Ok((status, _)) if plan == Plan::Abort && status.as_u16() == 409 => {}
            Ok((_, answer)) => {
                let why = answer["error"].as_str().unwrap_or("no reason given").to_owned();
                problems.push(HookError::Refused { mac, why });
            }
            Err(e) => problems.push(e.into()),
        }
    }
    problems
}

/// Whether another VTEP has the MAC.
async fn is_elsewhere(client: &Client, mac: Mac) -> Result<bool, ClientError> {
    let page = client.get(&format!("/v1/macs?mac={mac}")).await?;
    let rows = page["rows"]["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rows.iter().any(|r: &Value| r["place"]["vtep"].is_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_migration_in_their_order_prepare_release_and_abort_and_never_activate() {
        // At the target; QEMU is started between `start` and `started`.
        let target = [
            (("migrate", "begin", "-"), Some(Plan::Prepare)),
            (("prepare", "begin", "-"), Some(Plan::Prepare)),
            (("start", "begin", "-"), Some(Plan::Prepare)),
            (("started", "begin", "-"), Some(Plan::Prepare)),
        ];
        // Its end when the migration fails; the second one is libvirt before 10.5.
        let failed = [
            (("stopped", "end", "-"), None),
            (("release", "end", "failed"), Some(Plan::Abort)),
            (("release", "end", "-"), Some(Plan::Abort)),
        ];
        let source = [(("stopped", "end", "-"), None), (("release", "end", "migrated"), Some(Plan::Release))];
        let others = [
            (("release", "end", "shutdown"), Some(Plan::Abort)),
            (("restore", "begin", "-"), Some(Plan::Prepare)),
            (("reconnect", "begin", "-"), None),
            (("attach", "begin", "-"), None),
            (("shutdown", "begin", "-"), None),
            (("", "", ""), None),
        ];
        for ((operation, sub, extra), want) in target.into_iter().chain(failed).chain(source).chain(others) {
            assert_eq!(plan(operation, sub, extra), want, "{operation} {sub} {extra}");
        }
    }
}
