//! `[[qmp]]` and `[libvirt]`.

use super::names;
use super::vtep::choice;
use super::walk::{At, Collector, Place, Section};
use crate::hypervisor::HypervisorSettings;
use crate::hypervisor::libvirt::LibvirtSettings;
use crate::hypervisor::qmp::QmpSettings;
use crate::hypervisor::qmp::machine::{ActivateAt, Options};
use evpn::types::Mac;
use std::collections::BTreeMap;
use std::path::PathBuf;

const QMP_KEYS: [&str; 4] = ["socket", "activate-at", "ports", "max-sockets"];
/// Sockets of one section, unless configured.
const MAX_SOCKETS: usize = 256;

pub(super) fn hypervisor(root: &Section<'_>, c: &mut Collector) -> HypervisorSettings {
    let mut seen = BTreeMap::new();
    let mut out = HypervisorSettings::default();
    for s in root.sections("qmp", &QMP_KEYS, c) {
        out.qmp.extend(qmp(&s, &mut seen, c));
    }
    (out.libvirt, out.libvirt_at_stop) = libvirt(root, c);
    out
}

/// Whether its hook's preparations are activated at the stop, too.
fn libvirt(root: &Section<'_>, c: &mut Collector) -> (Option<LibvirtSettings>, bool) {
    let s = root.section("libvirt", &["activate-at", "events", "uri", "virsh"], c);
    let events = s.boolean("events", c).unwrap_or(false);
    let at_stop = activate_at(&s, c) == ActivateAt::Stop;
    let mut text = |key: &str, default: &str, what: &str| match s.text(key, c) {
        Some(At { value, place }) if value.is_empty() || value.starts_with('-') || value.contains('\0') => {
            c.push(s.problem(key, place, what));
            default.to_owned()
        }
        Some(At { value, .. }) => value.to_owned(),
        None => default.to_owned(),
    };
    let uri = text("uri", "qemu:///system", "not a connection URI, such as \"qemu:///system\"");
    let virsh = text("virsh", "virsh", "not the name or the path of a program").into();
    (events.then_some(LibvirtSettings { uri, virsh, at_stop }), at_stop)
}

fn qmp(s: &Section<'_>, seen: &mut BTreeMap<String, Place>, c: &mut Collector) -> Option<QmpSettings> {
    let activate_at = activate_at(s, c);
    let ports = ports(s, c);
    let max_sockets = s.integer("max-sockets", 1..=4096, c).map_or(MAX_SOCKETS, |n| n.value as usize);
    let socket = socket(s, seen, c)?;
    Some(QmpSettings { socket, max_sockets, options: Options { activate_at, ports } })
}

fn activate_at(s: &Section<'_>, c: &mut Collector) -> ActivateAt {
    match choice(s, "activate-at", &["resume", "stop"], c) {
        Some("stop") => ActivateAt::Stop,
        _ => ActivateAt::Resume,
    }
}

fn socket(s: &Section<'_>, seen: &mut BTreeMap<String, Place>, c: &mut Collector) -> Option<PathBuf> {
    const HELP: &str = "name the sockets by an absolute path, with `*` and `?` in its last part only, such as \
                        \"/run/qemu/*.sock\"";
    if s.get("socket").is_none() {
        s.missing("socket", HELP, c);
        return None;
    }
    let At { value, place } = s.text("socket", c)?;
    let problem = match value.rsplit_once('/') {
        _ if value.contains('\0') => Some("not a path"),
        None => Some("not an absolute path"),
        Some(_) if !value.starts_with('/') => Some("not an absolute path"),
        Some((_, "" | "." | "..")) => Some("names a directory, not sockets"),
        Some((dir, _)) if dir.contains(['*', '?']) => Some("only the last part may have `*` or `?`"),
        Some(_) => None,
    };
    if let Some(what) = problem {
        c.push(s.problem("socket", place, what).help(HELP));
        return None;
    }
    if let Some(first) = seen.get(value) {
        c.push(
            s.problem("socket", place, "sockets given twice")
                .label("given again here")
                .also(first.clone(), "first given here"),
        );
        return None;
    }
    seen.insert(value.to_owned(), place);
    Some(value.into())
}

/// Ports by NIC; the devices may come later than vtepd.
fn ports(s: &Section<'_>, c: &mut Collector) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Some((v, place)) = s.get("ports") else { return out };
    let Some(table) = v.as_table() else {
        let help = "write `ports = { net0 = \"tap0\" }`: the NIC's or netdev's id in QEMU, or its MAC, and the device here";
        c.push(s.problem("ports", place, "expected a table of NICs and their ports").help(help));
        return out;
    };
    for (nic, port) in table {
        let key = format!("ports.{}", nic.get_ref());
        let Some(name) = port.get_ref().as_str() else {
            c.push(s.problem(&key, port.span(), "expected the name of a device"));
            continue;
        };
        if let Err(what) = names::device(name) {
            c.push(s.problem(&key, port.span(), what));
            continue;
        }
        // A MAC however it is written.
        let nic = nic.get_ref().as_ref();
        let nic = nic.parse().map_or_else(|_| nic.to_owned(), |m: Mac| m.to_string());
        out.insert(nic, name.to_owned());
    }
    out
}
