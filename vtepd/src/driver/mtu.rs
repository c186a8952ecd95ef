//! Does the underlay carry what the VNIs may send (PIT-11)? Asked a few VTEPs at a time, so that the core is
//! never held for long; the kernel's answer includes what it learned from "fragmentation needed".

use evpn::fabric::{RowKey, Want};
use evpn::node::Config;
use netlink::Mirror;
use netlink::linux::mtu::{overhead, underlay_mtu};
use netlink::setup::DeviceProblem;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// VTEPs asked per slice; each takes some 10 µs.
const SLICE: usize = 4;

/// A bridge with an MTU, and the VTEPs that its VNI floods to.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Segment {
    bridge: String,
    mtu: u32,
    vteps: Vec<IpAddr>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MtuCheck {
    /// What the path to a VTEP carries, as far as asked.
    paths: BTreeMap<IpAddr, u32>,
    last: Option<IpAddr>,
}

impl MtuCheck {
    /// Asks the next few VTEPs and returns what is wrong as far as known.
    pub(super) fn slice(&mut self, config: &Config, want: &Want, mirror: &Mirror) -> Vec<DeviceProblem> {
        let segments = segments(config, want, mirror);
        let vteps: std::collections::BTreeSet<IpAddr> =
            segments.iter().flat_map(|s| s.vteps.iter().copied()).collect();
        self.paths.retain(|v, _| vteps.contains(v));
        let after = vteps.iter().filter(|v| self.last.is_none_or(|l| **v > l));
        let round: Vec<IpAddr> = after.chain(vteps.iter()).copied().take(SLICE.min(vteps.len())).collect();
        for vtep in round {
            self.last = Some(vtep);
            match underlay_mtu(config.vtep, vtep) {
                Ok(mtu) => drop(self.paths.insert(vtep, mtu)),
                // No route just now; BGP and the forwarding table say that better.
                Err(_) => drop(self.paths.remove(&vtep)),
            }
        }
        judge(&segments, &self.paths)
    }
}

fn segments(config: &Config, want: &Want, mirror: &Mirror) -> Vec<Segment> {
    let mut out = Vec::new();
    for v in &config.vnis {
        let (Some(bridge), Some(vxlan)) = (mirror.link_by_name(&v.bridge), mirror.link_by_name(&v.vxlan))
        else {
            continue;
        };
        let first = RowKey::Flood { vxlan: vxlan.index, vtep: IpAddr::from([0, 0, 0, 0]) };
        let vteps = want.range_from(first).map_while(|(key, _)| match key {
            RowKey::Flood { vxlan: dev, vtep } if *dev == vxlan.index => Some(*vtep),
            RowKey::Flood { .. } | RowKey::Mac { .. } | RowKey::Neigh { .. } => None,
        });
        let vteps = vteps.collect();
        out.push(Segment { bridge: v.bridge.clone(), mtu: v.mtu.unwrap_or(bridge.mtu), vteps });
    }
    out
}

fn judge(segments: &[Segment], paths: &BTreeMap<IpAddr, u32>) -> Vec<DeviceProblem> {
    let mut out = Vec::new();
    for s in segments {
        for vtep in &s.vteps {
            let Some(path) = paths.get(vtep) else { continue };
            let need = s.mtu + overhead(*vtep);
            if *path < need {
                let fits = path.saturating_sub(overhead(*vtep));
                let problem = format!(
                    "MTU {} needs {need} octets underneath, the path to {vtep} carries {path}; \
                     set `mtu = {fits}` for this VNI or raise the underlay's MTU",
                    s.mtu
                );
                out.push(DeviceProblem { device: s.bridge.clone(), problem, fatal: false });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_too_small_is_named_with_what_would_fit() {
        let v4: IpAddr = "10.0.0.2".parse().expect("address");
        let v6: IpAddr = "2001:db8::2".parse().expect("address");
        let segment = Segment { bridge: "br100".into(), mtu: 1450, vteps: vec![v4, v6] };
        let ok = judge(std::slice::from_ref(&segment), &[(v4, 1500), (v6, 1520)].into());
        assert_eq!(ok, vec![]);
        let small = judge(std::slice::from_ref(&segment), &[(v4, 1400), (v6, 1500)].into());
        assert_eq!(small.len(), 2);
        assert!(small[0].problem.contains("needs 1500 octets") && small[0].problem.contains("`mtu = 1350`"));
        assert!(small[1].problem.contains("needs 1520 octets") && small[1].problem.contains("`mtu = 1430`"));
        assert_eq!(judge(&[segment], &BTreeMap::new()), vec![], "what was not asked is not judged");
    }
}
