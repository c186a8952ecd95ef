//! One VNI: its devices, its hosts, and the routes we originate for it.

use super::config::{Flooding, Targets, VniConfig};
use crate::fabric::{Row, RowKey};
use crate::hosts::Hosts;
use crate::mobility::Memory;
use crate::rib::Import;
use crate::types::{Asn, Esi, EthTag, IfIndex, Label, Mac, Rd, Seq, Span};
use crate::wire::{AsPath, Attrs, EvpnRoute, ExtCommunity, Imet, MacIp, Origin, Pmsi, RouteKey, TunnelId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Attribute sets kept for reuse; sequences above this many are built anew each time.
const CACHED_ATTRS: usize = 64;

/// Key of an attribute set: sequence, sticky, and flags of the ARP/ND community (PROXY-EC-01).
type AttrKey = (u32, bool, Option<u8>);

/// A VNI at work.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) config: VniConfig,
    pub(super) rd: Rd,
    pub(super) bridge: Option<IfIndex>,
    pub(super) vxlan: Option<IfIndex>,
    /// Addresses of the bridge and its ports: the kernel keeps them for itself, no route may have them.
    pub(super) own: BTreeSet<Mac>,
    /// Devices are there, up and connected.
    pub(super) ready: bool,
    /// What is missing or wrong.
    pub(super) problems: Vec<String>,
    /// Our routes for it have been originated.
    pub(super) advertised: bool,
    pub(super) hosts: Hosts,
    pub(super) memory: Memory,
    /// Addresses by the MACs that may have them ([`super::static_hosts`]).
    static_ips: BTreeSet<(Mac, IpAddr)>,
    export: Vec<ExtCommunity>,
    attrs: BTreeMap<AttrKey, Arc<Attrs>>,
}

impl Segment {
    pub(super) fn new(config: VniConfig, asn: Asn, rd: Rd, memory_time: Span) -> Self {
        let export = match &config.export {
            Targets::Auto => vec![ExtCommunity::auto_target(asn, config.vni)],
            Targets::AutoRfc8365 => {
                let ExtCommunity([t, s, a, b, _, x, y, z]) = ExtCommunity::auto_target(asn, config.vni);
                vec![ExtCommunity([t, s, a, b, 0x10, x, y, z])]
            }
            Targets::List(l) => l.clone(),
        };
        let statics = config.hosts.static_hosts.iter();
        let static_ips = statics.flat_map(|(ip, macs)| macs.iter().map(|m| (*m, *ip))).collect();
        Self {
            config,
            rd,
            bridge: None,
            vxlan: None,
            own: BTreeSet::new(),
            ready: false,
            problems: vec!["not looked at yet".into()],
            advertised: false,
            hosts: Hosts::default(),
            memory: Memory::new(memory_time),
            static_ips,
            export,
            attrs: BTreeMap::new(),
        }
    }

    pub(super) fn import(config: &VniConfig) -> Import {
        match &config.import {
            Targets::Auto | Targets::AutoRfc8365 => Import::Auto,
            Targets::List(l) => Import::List(l.clone()),
        }
    }

    /// Addresses that are configured for a MAC.
    pub(super) fn static_ips(&self, mac: Mac) -> Vec<IpAddr> {
        let low = (mac, IpAddr::from([0, 0, 0, 0]));
        self.static_ips.range(low..).take_while(|(m, _)| *m == mac).map(|(_, ip)| *ip).collect()
    }

    /// Key of the wanted row of a MAC; `None` while there is no bridge.
    pub(super) fn mac_key(&self, mac: Mac) -> Option<RowKey> {
        self.bridge.map(|bridge| RowKey::Mac { bridge, mac })
    }

    pub(super) fn neigh_key(&self, ip: IpAddr) -> Option<RowKey> {
        self.bridge.filter(|_| self.config.arp_suppression).map(|dev| RowKey::Neigh { dev, ip })
    }

    pub(super) fn flood_key(&self, vtep: IpAddr) -> Option<RowKey> {
        self.vxlan
            .filter(|_| self.ready && self.config.flooding == Flooding::Replicate)
            .map(|vxlan| RowKey::Flood { vxlan, vtep })
    }

    pub(super) fn remote_row(&self, vtep: IpAddr, sticky: bool) -> Option<Row> {
        self.vxlan.filter(|_| self.ready).map(|vxlan| Row::Remote { vxlan, vtep, sticky })
    }

    /// Attributes of our Type-2 routes with this sequence; `nd` are the flags of the ARP/ND community.
    pub(super) fn type2_attrs(&mut self, seq: Seq, sticky: bool, nd: Option<u8>) -> Arc<Attrs> {
        if let Some(a) = self.attrs.get(&(seq.0, sticky, nd)) {
            return a.clone();
        }
        let mut attrs = self.base_attrs();
        // EVPN-MOB-02: the first advertisement carries no community; EVPN-MOB-17: a sticky one does.
        if seq != Seq::ZERO || sticky {
            attrs.ext_communities.push(ExtCommunity::mac_mobility(seq, sticky));
        }
        if let Some(flags) = nd {
            attrs.ext_communities.push(ExtCommunity([0x06, 0x08, flags, 0, 0, 0, 0, 0]));
        }
        let attrs = Arc::new(attrs);
        if self.attrs.len() < CACHED_ATTRS {
            self.attrs.insert((seq.0, sticky, nd), attrs.clone());
        }
        attrs
    }

    fn base_attrs(&self) -> Attrs {
        let mut ext_communities = self.export.clone();
        ext_communities.push(ExtCommunity::VXLAN);
        Attrs {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::default()),
            ext_communities,
            ..Attrs::default()
        }
    }

    /// EVPN-IMET-01, -02: originator, next hop and tunnel end point are the VTEP. Marked, because we tell our hosts of
    /// changed MACs (PIT-17).
    pub(super) fn imet(&self, vtep: IpAddr) -> (EvpnRoute, Arc<Attrs>) {
        let mut attrs = self.base_attrs();
        attrs.ext_communities.push(ExtCommunity::TELLS);
        attrs.pmsi = Some(Pmsi {
            flags: 0,
            tunnel_type: 6,
            label: Label::from(self.config.vni),
            tunnel: TunnelId::Ip(vtep),
        });
        (EvpnRoute::Imet(Imet { rd: self.rd, tag: EthTag(0), originator: vtep }), Arc::new(attrs))
    }

    pub(super) fn imet_key(&self, vtep: IpAddr) -> RouteKey {
        RouteKey::Imet(self.rd, EthTag(0), vtep)
    }

    /// With one label: packets are routed where they come in and then bridged (EVPN-IRB-09).
    pub(super) fn type2(&self, mac: Mac, ip: Option<IpAddr>) -> EvpnRoute {
        EvpnRoute::MacIp(MacIp {
            rd: self.rd,
            esi: Esi::ZERO,
            tag: EthTag(0),
            mac,
            ip,
            label1: Label::from(self.config.vni),
            label2: None,
        })
    }

    pub(super) fn type2_key(&self, mac: Mac, ip: Option<IpAddr>) -> RouteKey {
        RouteKey::MacIp(self.rd, EthTag(0), mac, ip)
    }
}

/// R, O and I flags of the ARP/ND community: exactly one on every Type 2 with IPv6 (PROXY-EC-01); with IPv4 only for a static
/// host (PROXY-EC-04), and without R and O (PROXY-EC-03).
pub(super) fn nd_flags(ip: IpAddr, router: bool, immutable: bool) -> Option<u8> {
    let i = u8::from(immutable) << 3;
    if ip.is_ipv6() { Some(i | 0x02 | u8::from(router)) } else { immutable.then_some(i) }
}
