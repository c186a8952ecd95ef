//! Names of network devices, and the MAC address of a bridge that we create.

use evpn::types::{Mac, Vni};
use std::net::IpAddr;

/// Whether the kernel takes this as a device name (`dev_valid_name`).
///
/// # Errors
/// What is wrong, for people.
pub(super) fn device(name: &str) -> Result<(), String> {
    let n = name.len();
    if name.is_empty() {
        return Err("a device name cannot be empty".into());
    }
    if n > 15 {
        return Err(format!("a device name has at most 15 octets, this one has {n}"));
    }
    if name == "."
        || name == ".."
        || name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
    {
        return Err("a device name has no `/`, `:` or white space in it".into());
    }
    Ok(())
}

/// A stable, locally administered address for the bridge of one VNI on one VTEP (PIT-01): the same after every
/// start, different on every VTEP, because the bridges of a VNI are hosts in one broadcast domain.
pub(super) fn bridge_mac(vtep: IpAddr, vni: Vni) -> Mac {
    Mac::derived(0xcbf2_9ce4_8422_2325, vtep, vni)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::node::probe_mac;

    #[test]
    fn a_bridge_mac_is_stable_local_and_unicast_and_differs_between_vteps_and_vnis() {
        let vni = |n| Vni::new(n).expect("in range");
        let a: IpAddr = "10.255.0.1".parse().expect("address");
        let b: IpAddr = "10.255.0.2".parse().expect("address");
        let mac = bridge_mac(a, vni(100));
        assert_eq!(mac, bridge_mac(a, vni(100)));
        assert_eq!(mac.0[0] & 3, 2);
        assert_ne!(mac, bridge_mac(b, vni(100)));
        assert_ne!(mac, bridge_mac(a, vni(101)));
        assert_ne!(mac, probe_mac(a, vni(100)));
        assert_ne!(probe_mac(b, vni(100)), probe_mac(a, vni(100)));
        assert_eq!(probe_mac(a, vni(100)).0[0] & 3, 2);
    }

    #[test]
    fn device_names_follow_the_kernel() {
        assert!(device("br100").is_ok());
        assert!(device("123456789012345").is_ok());
        for bad in ["", "1234567890123456", "a b", "a/b", "a:b", ".", ".."] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
