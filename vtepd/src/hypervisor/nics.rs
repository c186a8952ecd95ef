//! A guest's NICs and the host's side of each, as QEMU tells them.

use evpn::types::Mac;
use serde_json::Value;

/// NICs of one guest that are looked after; more are left out.
pub const MAX_NICS: usize = 32;

/// A NIC of a guest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nic {
    /// QEMU's name for the device.
    pub id: String,
    /// QEMU's name for what it is plugged into.
    pub netdev: Option<String>,
    /// Its MAC.
    pub mac: Mac,
    /// What it is plugged into.
    pub backend: Backend,
}

/// The host's side of a NIC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Backend {
    /// A device, by name.
    Port(String),
    /// A tap that somebody else opened and handed over as this file descriptor (libvirt does).
    Fd(u32),
    /// Nothing that is a port: user mode, a socket, vhost-user, unplugged.
    None,
}

/// Reads the answer of `info network`:
///
/// ```text
/// nic0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:01
///  \ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no
/// ```
///
/// Lines that are neither a NIC nor below one are skipped.
pub fn info_network(text: &str) -> Vec<Nic> {
    let mut out: Vec<Nic> = Vec::new();
    // Of a NIC that is left out, what it is plugged into is left out too.
    let mut taken = false;
    for line in text.lines() {
        let line = line.trim();
        let below = line.strip_prefix('\\').map(str::trim_start);
        let Some((id, rest)) = below.unwrap_or(line).split_once(": ") else { continue };
        let field = |key: &str| rest.split(',').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
        if below.is_some() {
            if let Some(nic) = out.last_mut().filter(|n| taken && n.netdev.is_none()) {
                nic.netdev = Some(id.to_owned());
                nic.backend = match (field("type"), field("ifname"), field("fd")) {
                    (Some("tap"), Some(name), _) => Backend::Port(name.to_owned()),
                    (Some("tap"), None, Some(fd)) => fd.parse().map_or(Backend::None, Backend::Fd),
                    _ => Backend::None,
                };
            }
            continue;
        }
        let mac = field("macaddr").and_then(|m| m.parse::<Mac>().ok()).filter(|m| m.is_host());
        taken = field("type") == Some("nic") && mac.is_some() && out.len() < MAX_NICS;
        if let (true, Some(mac)) = (taken, mac) {
            // A NIC with several queues is listed once per queue.
            if out.last().is_some_and(|n| n.id == id && n.mac == mac) {
                taken = false;
                continue;
            }
            out.push(Nic { id: id.to_owned(), netdev: None, mac, backend: Backend::None });
        }
    }
    out
}

/// Takes over the MACs that the guests' drivers have set, from the answer of `query-rx-filter`: NICs of which
/// QEMU knows it have `name` and `main-mac`. Returns the NICs whose MAC has changed, with the old one.
pub fn rx_filter(nics: &mut [Nic], answer: &Value) -> Vec<(usize, Mac)> {
    let mut changed = Vec::new();
    for row in answer.as_array().into_iter().flatten() {
        let (Some(name), Some(mac)) = (row["name"].as_str(), row["main-mac"].as_str()) else { continue };
        let Some(mac) = mac.parse::<Mac>().ok().filter(|m| m.is_host()) else { continue };
        if let Some((i, nic)) = nics.iter_mut().enumerate().find(|(_, n)| n.id == name)
            && nic.mac != mac
        {
            changed.push((i, nic.mac));
            nic.mac = mac;
        }
    }
    changed
}

/// The name of the tap behind a file descriptor of a process: the kernel tells it in `fdinfo` (`iff:`).
pub fn tap_of(pid: i32, fd: u32) -> Option<String> {
    iff(&std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?)
}

/// Frames that the kernel keeps for whoever reads from a device, if there is such a device.
pub fn queue_of(device: &str) -> Option<u32> {
    // What is no name of a device is none of a file either.
    if device.contains('/') || device.starts_with('.') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{device}/tx_queue_len")).ok()?.trim().parse().ok()
}

fn iff(fdinfo: &str) -> Option<String> {
    fdinfo.lines().find_map(|l| l.strip_prefix("iff:")).map(|n| n.trim().to_owned()).filter(|n| !n.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mac(s: &str) -> Mac {
        s.parse().expect("a MAC")
    }

    #[test]
    fn nics_and_their_taps_are_read_from_info_network() {
        let text = "nic0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:01\r\n \\ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no\r\nnet1: index=0,type=nic,model=e1000,macaddr=52:54:00:aa:00:02\r\n \\ hostnet1: index=0,type=tap,fd=33\r\nu: index=0,type=nic,model=rtl8139,macaddr=52:54:00:aa:00:03\r\n \\ u0: index=0,type=user,net=10.0.2.0,restrict=off\r\nlone: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:04\r\nhub0\r\n \\ hub0port0: x: index=0,type=tap,ifname=tap9\r\n";
        let got = info_network(text);
        let backends: Vec<_> = got.iter().map(|n| (n.id.as_str(), n.mac, n.backend.clone())).collect();
        assert_eq!(
            backends[..3],
            [
                ("nic0", mac("52:54:00:aa:00:01"), Backend::Port("tap0".into())),
                ("net1", mac("52:54:00:aa:00:02"), Backend::Fd(33)),
                ("u", mac("52:54:00:aa:00:03"), Backend::None),
            ]
        );
        assert_eq!(got[0].netdev.as_deref(), Some("n0"));
        assert_eq!(got.len(), 4);
    }

    #[test]
    fn a_nic_with_several_queues_is_one_nic() {
        let queue = |n: u32| {
            format!(
                "nic0: index={n},type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:01\r\n \\ n0: index={n},type=tap,fd={}\r\n",
                30 + n
            )
        };
        let got = info_network(&[queue(0), queue(1)].concat());
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].backend, Backend::Fd(30));
    }

    #[test]
    fn impossible_answers_give_nothing_and_floods_are_cut() {
        for text in ["", ":::", "\\ x: ifname=tap0", "a: type=nic,macaddr=ff:ff:ff:ff:ff:ff", "a: type=nic"] {
            assert_eq!(info_network(text), [], "{text}");
        }
        let many: Vec<String> =
            (0..500).map(|i| format!("n{i}: type=nic,macaddr=52:54:00:00:00:{:02x}\n", i % 256)).collect();
        assert_eq!(info_network(&many.concat()).len(), MAX_NICS);
    }

    #[test]
    fn the_mac_that_the_guest_has_set_counts() {
        let mut nics = info_network("nic0: index=0,type=nic,model=virtio,macaddr=52:54:00:aa:00:01\n");
        let answer = json!([{ "name": "nic0", "main-mac": "52:54:00:bb:00:01", "vlan-table": [1] },
            { "name": "other", "main-mac": "52:54:00:bb:00:02" }, { "name": "nic0", "main-mac": "ff:ff:ff:ff:ff:ff" }, 7]);
        assert_eq!(rx_filter(&mut nics, &answer), [(0, mac("52:54:00:aa:00:01"))]);
        assert_eq!(nics[0].mac, mac("52:54:00:bb:00:01"));
        assert_eq!(rx_filter(&mut nics, &answer), []);
    }

    #[test]
    fn the_kernel_names_the_tap_of_a_descriptor() {
        assert_eq!(iff("pos:\t0\nflags:\t0104002\nmnt_id:\t15\niff:\tvnet3\n").as_deref(), Some("vnet3"));
        assert_eq!(iff("pos:\t0\niff:\t\n"), None);
        assert_eq!(tap_of(-1, 0), None);
        assert!(queue_of("lo").is_some());
        assert_eq!((queue_of("../net/lo"), queue_of("no-such-device")), (None, None));
    }
}
