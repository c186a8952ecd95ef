//! The source of our probes (PIT-15): an address of its own per VNI and VTEP.
//!
//! The bridge has it as a permanent address, so that an answer ends here and nobody can take it; peers are told it as a
//! sticky MAC without an address, so that an answer from behind another VTEP comes back by unicast, also where nothing is
//! flooded. It is derived from VTEP and VNI: the same after every start, and everybody can tell it from a host.

use super::Node;
use super::segment::Segment;
use crate::fabric::Row;
use crate::types::{IfIndex, Mac, Seq, Vni};
use std::net::{IpAddr, Ipv6Addr};

/// The source of a VTEP's probes in a VNI.
pub fn probe_mac(vtep: IpAddr, vni: Vni) -> Mac {
    Mac::derived(0x6c62_272e_07bb_0142, vtep, vni)
}

impl Segment {
    /// Whether this MAC is the one that a remote VTEP probes with.
    pub(super) fn is_probe_mac(&self, mac: Mac) -> bool {
        let owner = self.hosts.macs.get(&mac).and_then(|e| e.remote());
        owner.is_some_and(|r| r.claim.sticky && mac == probe_mac(r.claim.vtep, self.config.vni))
    }

    /// Remote MACs without those that VTEPs probe with.
    pub(super) fn remote_macs(&self) -> usize {
        let vni = self.config.vni;
        let probes = self.hosts.vteps().filter(|v| self.is_probe_mac(probe_mac(*v, vni))).count();
        self.hosts.remotes() - probes
    }
}

impl Node {
    /// Source of our probes in a VNI, while there is a bridge that has it.
    pub(super) fn probe_mac(&self, vni: Vni) -> Option<Mac> {
        let seg = self.segments.get(&vni)?;
        seg.bridge.map(|_| seg.config.hosts.probe_mac).filter(|m| m.is_host())
    }

    /// The bridge is to have it.
    pub(super) fn want_probe_mac(&mut self, vni: Vni) {
        let Some(seg) = self.segments.get(&vni) else { return };
        if let Some(key) = self.probe_mac(vni).and_then(|m| seg.mac_key(m)) {
            self.want_set(key, Row::Own, true);
        }
    }

    /// The peers are to know it: sticky, sequence 0, without an address.
    pub(super) fn originate_probe_mac(&mut self, vni: Vni) {
        let next_hop = self.next_hop();
        let Some(mac) = self.probe_mac(vni) else { return };
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let attrs = seg.type2_attrs(Seq::ZERO, true, None);
        let route = seg.type2(mac, None);
        self.rib.originate(route, attrs, next_hop, false);
    }

    /// Somebody speaks with an address of ours, or the forwarding table has it on a port: that is no host. The bridge's row
    /// is looked at again.
    pub(super) fn own_mac_seen(&mut self, vni: Vni, mac: Mac, port: IfIndex) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        if mac != seg.config.hosts.probe_mac || Some(port) == seg.bridge {
            return false;
        }
        if let Some(key) = seg.mac_key(mac) {
            self.want.mark(key, true);
        }
        self.journal.count("own_macs_seen");
        true
    }
}

/// Link-local address of a MAC (RFC 4291 appendix A).
pub(super) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let w = |h: u8, l: u8| u16::from_be_bytes([h, l]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, w(a ^ 2, b), w(c, 0xff), w(0xfe, d), w(e, f))
}
