//! What `virsh event --event lifecycle --loop` prints, one line an event:
//!
//! ```text
//! event 'lifecycle' for domain 'vm1': Resumed Migrated                                  virsh 9.0
//! event 'lifecycle' for domain vm1: Resumed Migrated                                    older ones
//! 2026-11-23 07:51:13.097+0000: event 'lifecycle' for domain 'vm1': Resumed Migrated    with --timestamp
//! ```

use super::domain::good_name;

/// A lifecycle event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lifecycle {
    /// The domain.
    pub domain: String,
    /// `Started`, `Suspended`, `Resumed`, `Stopped` and so on.
    pub kind: String,
    /// `Migrated`, `Booted`, `Failed` and so on.
    pub detail: String,
}

/// Reads a line; `None` for one that is no lifecycle event, such as virsh's closing line.
pub fn parse(line: &str) -> Option<Lifecycle> {
    const HEAD: &str = "event 'lifecycle' for domain ";
    let at = line.find(HEAD)?;
    let rest = line.get(at + HEAD.len()..)?;
    // A name may contain what stands behind it, so that is looked for from the end.
    let (domain, what) = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.rsplit_once("': ")?,
        None => rest.rsplit_once(": ")?,
    };
    let (kind, detail) = what.trim().split_once(' ')?;
    good_name(domain).then(|| Lifecycle {
        domain: domain.to_owned(),
        kind: kind.to_owned(),
        detail: detail.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_versions_are_read() {
        let want = |domain: &str, kind: &str, detail: &str| {
            Some(Lifecycle { domain: domain.into(), kind: kind.into(), detail: detail.into() })
        };
        // As virsh 9.0.0 of Debian 12 prints them.
        assert_eq!(
            parse("event 'lifecycle' for domain 'test': Suspended Paused"),
            want("test", "Suspended", "Paused")
        );
        assert_eq!(
            parse("2026-11-23 07:51:13.097+0000: event 'lifecycle' for domain 'test': Resumed Unpaused"),
            want("test", "Resumed", "Unpaused")
        );
        assert_eq!(
            parse("event 'lifecycle' for domain vm1: Started Migrated\r"),
            want("vm1", "Started", "Migrated")
        );
        assert_eq!(
            parse("event 'lifecycle' for domain 'a': Stopped': Shutdown On guest request"),
            want("a': Stopped", "Shutdown", "On guest request")
        );
    }

    #[test]
    fn other_lines_are_nothing() {
        for line in [
            "",
            "events received: 4",
            "event 'reboot' for domain 'vm1'",
            "event 'lifecycle' for domain 'vm1': Resumed",
            "event 'lifecycle' for domain '': Resumed Migrated",
            "event 'lifecycle' for domain '../x': Resumed Migrated",
            "event 'lifecycle' for domain ",
            "error: Disconnected from qemu:///system due to end of file",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
