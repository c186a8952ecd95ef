//! Our own routes: when a VNI may be advertised, and what goes out for its hosts.

use super::Node;
use super::segment::nd_flags;
use crate::hosts::Binding;
use crate::types::{Mac, Time, Vni};
use crate::wire::NextHop;
use std::net::IpAddr;

impl Node {
    pub(super) fn next_hop(&self) -> NextHop {
        match self.config.vtep {
            IpAddr::V4(a) => NextHop::V4(a),
            IpAddr::V6(a) => NextHop::V6(a),
        }
    }

    /// Nothing is advertised before the kernel has been read completely, or while a VNI cannot forward.
    fn may_advertise(&self, vni: Vni) -> bool {
        self.synced && !self.stopping && self.segments.get(&vni).is_some_and(|s| s.advertised)
    }

    pub(super) fn advertise_when_ready(&mut self, vni: Vni, _at: Time) {
        let vtep = self.config.vtep;
        let next_hop = self.next_hop();
        let synced = self.synced;
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if !synced || !seg.ready || seg.advertised {
            return;
        }
        seg.advertised = true;
        let (route, attrs) = seg.imet(vtep);
        let macs: Vec<Mac> =
            seg.hosts.macs.iter().filter(|(_, e)| e.local().is_some()).map(|(m, _)| *m).collect();
        let ips: Vec<(Mac, IpAddr)> =
            seg.hosts.bindings().filter(|(_, b)| b.is_local()).map(|(ip, b)| (b.mac, *ip)).collect();
        self.rib.originate(route, attrs, next_hop, false);
        self.originate_probe_mac(vni);
        for mac in macs {
            self.originate_mac(vni, mac, false);
        }
        for (mac, ip) in ips {
            self.originate_ip(vni, mac, ip, false);
        }
    }

    pub(super) fn stop_advertising(&mut self, vni: Vni) {
        let vtep = self.config.vtep;
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if !std::mem::take(&mut seg.advertised) {
            return;
        }
        let mut keys = vec![seg.imet_key(vtep), seg.type2_key(seg.config.hosts.probe_mac, None)];
        keys.extend(
            seg.hosts.macs.iter().filter(|(_, e)| e.local().is_some()).map(|(m, _)| seg.type2_key(*m, None)),
        );
        keys.extend(
            seg.hosts.bindings().filter(|(_, b)| b.is_local()).map(|(ip, b)| seg.type2_key(b.mac, Some(*ip))),
        );
        for k in keys {
            self.rib.withdraw(&k, false);
        }
    }

    /// MAC-only route of a local MAC.
    pub(super) fn originate_mac(&mut self, vni: Vni, mac: Mac, urgent: bool) {
        if !self.may_advertise(vni) {
            return;
        }
        let next_hop = self.next_hop();
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let Some(seq) = seg.hosts.macs.get(&mac).and_then(|e| e.local()).map(|l| l.seq) else { return };
        let attrs = seg.type2_attrs(seq, seg.is_static(mac), None);
        let route = seg.type2(mac, None);
        let attrs = self.marked_attrs(vni, mac, attrs);
        self.rib.originate(route, attrs, next_hop, urgent);
    }

    /// MAC+IP route of a local binding; inherits its MAC's sequence (EVPN-XMOB-01).
    pub(super) fn originate_ip(&mut self, vni: Vni, mac: Mac, ip: IpAddr, urgent: bool) {
        if !self.may_advertise(vni) {
            return;
        }
        let next_hop = self.next_hop();
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let Some(seq) = seg.hosts.macs.get(&mac).and_then(|e| e.local()).map(|l| l.seq) else { return };
        let Some(router) =
            seg.hosts.binding(ip).filter(|b| b.mac == mac && Binding::is_local(b)).map(|b| b.router)
        else {
            return;
        };
        let attrs =
            seg.type2_attrs(seq, seg.is_static(mac), nd_flags(ip, router, seg.is_static_host(mac, ip)));
        self.rib.originate(seg.type2(mac, Some(ip)), attrs, next_hop, urgent);
    }
}
