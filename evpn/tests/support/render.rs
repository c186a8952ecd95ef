//! A message as JSON, in the words of the golden vectors: every field of the value shows.

use super::to_hex;
use evpn::wire::{
    AddPathMode, Admin, Attrs, Capability, EvpnNlri, EvpnRoute, ExtCommunity, ExtKind, Family, Ipv4Prefix,
    Message, MulticastKey, NextHop, Nlri, Notification, Open, Refresh, RefreshKind, Shutdown, TunnelId,
    Update,
};
use serde_json::{Map, Value, json};

pub fn message(m: &Message) -> Value {
    match m {
        Message::Open(o) => open(o),
        Message::Update(u) => update(u),
        Message::Notification(n) => notification(n),
        Message::Keepalive => json!({ "type": "KEEPALIVE" }),
        Message::Refresh(r) => refresh(*r),
    }
}

fn family(f: Family) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("afi".into(), f.afi.into());
    out.insert("safi".into(), f.safi.into());
    out
}

fn with(mut base: Map<String, Value>, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    base.extend(more);
    Value::Object(base)
}

fn refresh(r: Refresh) -> Value {
    let subtype = match r.kind {
        RefreshKind::Request => 0,
        RefreshKind::Begin => 1,
        RefreshKind::End => 2,
        RefreshKind::Unknown(n) => n,
    };
    with(family(r.family), json!({ "type": "ROUTE-REFRESH", "subtype": subtype }))
}

fn open(o: &Open) -> Value {
    let last_gr = o.capabilities.iter().rposition(|c| matches!(c, Capability::GracefulRestart { .. }));
    let caps: Vec<_> = o
        .capabilities
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let mut v = capability(c);
            // Of several instances the last counts (BGP-GR-04); ask the library which that is.
            if matches!(c, Capability::GracefulRestart { .. }) {
                assert_eq!(o.graceful_restart().unwrap(), &o.capabilities[last_gr.unwrap()]);
                if Some(i) != last_gr {
                    v["superseded"] = true.into();
                }
            }
            v
        })
        .collect();
    let mut out = json!({
        "type": "OPEN", "version": 4, "my_as": o.my_as, "hold_time": o.hold_time, "bgp_id": o.id,
        "capabilities": caps,
    });
    if o.extended {
        out["extended_optional_parameters"] = true.into();
    }
    out
}

fn capability(c: &Capability) -> Value {
    match c {
        Capability::Multiprotocol(f) => with(family(*f), json!({ "code": 1, "name": "multiprotocol" })),
        Capability::RouteRefresh => json!({ "code": 2, "name": "route-refresh" }),
        Capability::ExtendedNextHop(list) => {
            let tuples: Vec<_> = list
                .iter()
                .map(|(f, hop)| json!({ "nlri_afi": f.afi, "nlri_safi": f.safi, "nexthop_afi": hop }))
                .collect();
            json!({ "code": 5, "name": "extended-next-hop", "tuples": tuples })
        }
        Capability::ExtendedMessage => json!({ "code": 6, "name": "extended-message" }),
        Capability::GracefulRestart { restarting, notification, time, families } => {
            let families: Vec<_> = families
                .iter()
                .map(|f| with(family(f.family), json!({ "forwarding": f.forwarding })))
                .collect();
            json!({
                "code": 64, "name": "graceful-restart", "restart_state": restarting,
                "notification": notification, "restart_time": time, "families": families,
            })
        }
        Capability::As4(n) => json!({ "code": 65, "name": "as4", "asn": n }),
        Capability::AddPath(list) => {
            let families: Vec<_> = list
                .iter()
                .map(|(f, mode)| {
                    let mode = match mode {
                        AddPathMode::Receive => "receive".to_owned(),
                        AddPathMode::Send => "send".to_owned(),
                        AddPathMode::Both => "both".to_owned(),
                        AddPathMode::Unknown(n) => n.to_string(),
                    };
                    with(family(*f), json!({ "mode": mode }))
                })
                .collect();
            json!({ "code": 69, "name": "add-path", "families": families })
        }
        Capability::EnhancedRefresh => json!({ "code": 70, "name": "enhanced-route-refresh" }),
        Capability::Llgr(list) => {
            let families: Vec<_> = list
                .iter()
                .map(|f| with(family(f.family), json!({ "preserved": f.forwarding, "stale_time": f.time })))
                .collect();
            json!({ "code": 71, "name": "llgr", "families": families })
        }
        // Host and domain name, each behind a length octet: of no use to us but in the vectors.
        Capability::Unknown { code: 73, value } => {
            let (host, rest) = value[1..].split_at(usize::from(value[0]));
            let domain = &rest[1..=usize::from(rest[0])];
            json!({
                "code": 73, "name": "fqdn", "hostname": String::from_utf8_lossy(host),
                "domain": String::from_utf8_lossy(domain),
            })
        }
        Capability::Unknown { code, value } => {
            json!({ "code": code, "name": "unknown", "value": to_hex(value) })
        }
    }
}

fn notification(n: &Notification) -> Value {
    let plain = |n: &Notification| json!({ "code": n.code, "subcode": n.subcode, "data": to_hex(&n.data) });
    let mut out = plain(n);
    out["type"] = "NOTIFICATION".into();
    match n.shutdown_communication() {
        Some(Shutdown::Text(t)) => out["shutdown_communication"] = t.into(),
        Some(Shutdown::Invalid(b)) => out["invalid_communication"] = to_hex(b).into(),
        None => {}
    }
    if let Some(inner) = n.hard_reset_reason() {
        out["inner"] = plain(&inner);
    }
    if let Some((f, limit)) = n.prefix_limit() {
        out["afi"] = f.afi.into();
        out["safi"] = f.safi.into();
        out["limit"] = limit.into();
    }
    if let Some(kind) = n.unexpected_type() {
        out["unexpected_type"] = kind.into();
    }
    if (n.code, n.subcode) == (2, 7) {
        let caps: Vec<_> = n
            .data
            .chunks(6)
            .map(|c| json!({ "code": c[0], "afi": u16::from_be_bytes([c[2], c[3]]), "safi": c[5] }))
            .collect();
        out["capabilities"] = caps.into();
    }
    out
}

pub fn update(u: &Update) -> Value {
    if let Some(f) = u.end_of_rib() {
        return json!({ "type": "UPDATE", "end_of_rib": family(f) });
    }
    let mut out = attrs(&u.attrs);
    out.insert("type".into(), "UPDATE".into());
    if let Some(m) = &u.reach {
        let mut v = nlri(&m.nlri);
        v.extend(family(m.family));
        let next_hop = match (m.family, m.next_hop) {
            (Family::IPV4, NextHop::V6(a)) => json!([a]),
            (_, NextHop::V6Both(a, b)) => json!([a, b]),
            (_, hop) => json!(hop.addr()),
        };
        v.insert("next_hop".into(), next_hop);
        out.insert("mp_reach".into(), v.into());
    }
    if let Some(m) = &u.unreach {
        let mut v = nlri(&m.nlri);
        v.extend(family(m.family));
        out.insert("mp_unreach".into(), v.into());
    }
    if !u.withdrawn.is_empty() {
        out.insert("withdrawn".into(), u.withdrawn.iter().map(ipv4).collect());
    }
    if !u.nlri.is_empty() {
        out.insert("nlri".into(), u.nlri.iter().map(ipv4).collect());
    }
    out.into()
}

fn ipv4(p: &Ipv4Prefix) -> Value {
    let prefix = format!("{}/{}", p.addr, p.len);
    match p.path_id {
        None => prefix.into(),
        Some(id) => json!({ "path_id": id, "prefix": prefix }),
    }
}

fn nlri(n: &Nlri) -> Map<String, Value> {
    let mut out = Map::new();
    match n {
        // The vectors show only the ends of a long list.
        Nlri::Evpn(list) if list.len() > 10 => {
            out.insert("nlri_count".into(), list.len().into());
            out.insert("first".into(), evpn(&list[0]));
            out.insert("last".into(), evpn(&list[list.len() - 1]));
        }
        Nlri::Evpn(list) => {
            out.insert("nlri".into(), list.iter().map(evpn).collect());
        }
        Nlri::Ipv4(list) => {
            out.insert("nlri".into(), list.iter().map(ipv4).collect());
        }
        Nlri::Ipv6(list) => {
            let list = list.iter().map(|p| format!("{}/{}", p.addr, p.len)).collect();
            out.insert("nlri".into(), list);
        }
        Nlri::Rtc(list) => {
            let one = |m: &evpn::wire::Membership| match m.bits {
                0 => json!({ "prefix_len": 0 }),
                n => json!({ "prefix_len": n, "origin_as": m.origin, "route_target": to_hex(&m.target.0) }),
            };
            out.insert("nlri".into(), list.iter().map(one).collect());
        }
        Nlri::Unknown(b) => {
            out.insert("nlri".into(), to_hex(b).into());
        }
    }
    out
}

fn evpn(n: &EvpnNlri) -> Value {
    let mut v = route(&n.route);
    if let Some(id) = n.path_id {
        v["path_id"] = id.into();
    }
    v
}

pub fn route(r: &EvpnRoute) -> Value {
    match r {
        EvpnRoute::EthernetAd(r) => json!({
            "route_type": 1, "rd": r.rd, "esi": r.esi, "eth_tag": r.tag, "label_vni": r.label,
        }),
        EvpnRoute::MacIp(r) => {
            let mut v = json!({
                "route_type": 2, "rd": r.rd, "esi": r.esi, "eth_tag": r.tag, "mac": r.mac, "ip": r.ip,
                "label1_vni": r.label1,
            });
            if let Some(l) = r.label2 {
                v["label2_vni"] = json!(l);
            }
            v
        }
        EvpnRoute::Imet(r) => json!({
            "route_type": 3, "rd": r.rd, "eth_tag": r.tag, "originator": r.originator,
        }),
        EvpnRoute::EthernetSegment(r) => json!({
            "route_type": 4, "rd": r.rd, "esi": r.esi, "originator": r.originator,
        }),
        EvpnRoute::Prefix(r) => json!({
            "route_type": 5, "rd": r.rd, "esi": r.esi, "eth_tag": r.tag,
            "prefix": format!("{}/{}", r.prefix, r.prefix_len), "gateway": r.gateway,
            "label_vni": r.label,
        }),
        EvpnRoute::Smet(k) => multicast(6, k),
        EvpnRoute::JoinSync(r) => {
            let mut v = multicast(7, &r.key);
            v["esi"] = json!(r.esi);
            v
        }
        EvpnRoute::LeaveSync(r) => {
            let mut v = multicast(8, &r.key);
            v["esi"] = json!(r.esi);
            v["max_response_time"] = r.max_response.into();
            v
        }
        EvpnRoute::Unknown(r) => json!({ "route_type": r.route_type, "body": to_hex(&r.body) }),
    }
}

fn multicast(route_type: u8, k: &MulticastKey) -> Value {
    let v6 = k.originator.is_ipv6() || k.group.is_some_and(|g| g.is_ipv6());
    let versions: Vec<_> = (0..3).filter(|bit| k.flags & 1 << bit != 0).map(|bit| bit + 1).collect();
    let mut v = json!({
        "route_type": route_type, "rd": k.rd, "eth_tag": k.tag, "source": k.source, "group": k.group,
        "originator": k.originator, "exclude": k.flags & 8 != 0,
    });
    v[if v6 { "mld_versions" } else { "igmp_versions" }] = versions.into();
    v
}

fn attrs(a: &Attrs) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |k: &str, v: Value| out.insert(k.into(), v);
    if let Some(o) = a.origin {
        put("origin", json!(o));
    }
    if let Some(p) = &a.as_path {
        // Plain sequences show as one list, as in the vectors.
        if p.0.iter().all(|s| s.kind == 2) {
            put("as_path", p.0.iter().flat_map(|s| &s.asns).map(|n| json!(n)).collect());
        } else {
            put("as_path", json!(p));
        }
    }
    if let Some(n) = a.next_hop {
        put("next_hop", json!(n));
    }
    if let Some(n) = a.med {
        put("med", json!(n));
    }
    if let Some(n) = a.local_pref {
        put("local_pref", json!(n));
    }
    if a.atomic_aggregate {
        put("atomic_aggregate", true.into());
    }
    if let Some(g) = a.aggregator {
        put("aggregator", json!(g));
    }
    if !a.communities.is_empty() {
        put("communities", a.communities.iter().map(|c| format!("{}:{}", c.0 >> 16, c.0 & 0xffff)).collect());
    }
    if let Some(id) = a.originator_id {
        put("originator_id", json!(id));
    }
    if !a.cluster_list.is_empty() {
        put("cluster_list", json!(a.cluster_list));
    }
    if !a.ext_communities.is_empty() {
        put("ext_communities", a.ext_communities.iter().map(|c| community(*c)).collect());
        let mobility = |c: &&ExtCommunity| matches!(c.kind(), ExtKind::MacMobility { .. });
        if a.ext_communities.iter().filter(mobility).count() > 1 {
            put("effective_mobility_sequence", json!(a.mobility().unwrap().0));
        }
    }
    if let Some(p) = &a.pmsi {
        let id = match &p.tunnel {
            TunnelId::Ip(a) => json!(a),
            TunnelId::Raw(b) => to_hex(b).into(),
        };
        let mut v = json!({
            "flags": p.flags, "tunnel_type": p.tunnel_type, "label_vni": p.label, "tunnel_id": id,
        });
        match p.flags >> 3 & 3 {
            0 => {}
            1 => v["ar_role"] = "replicator".into(),
            2 => v["ar_role"] = "leaf".into(),
            n => v["ar_role"] = n.into(),
        }
        for (bit, name) in [(4, "prune_bm"), (2, "prune_unknown")] {
            if p.flags & bit != 0 {
                v[name] = true.into();
            }
        }
        put("pmsi", v);
    }
    if !a.large_communities.is_empty() {
        let text = a.large_communities.iter().map(|c| format!("{}:{}:{}", c.0, c.1, c.2)).collect();
        put("large_communities", text);
    }
    if !a.others.is_empty() {
        let one = |o: &evpn::wire::RawAttr| json!({ "type": o.code, "flags": format!("{:#04x}", o.flags), "value": to_hex(&o.value) });
        put("unknown_attributes", a.others.iter().map(one).collect());
    }
    out
}

pub fn community(c: ExtCommunity) -> Value {
    match c.kind() {
        ExtKind::RouteTarget(a) => {
            let [t, s, ..] = c.0;
            json!({ "kind": "route-target", "type": format!("0x{t:02x}{s:02x}"), "value": a.to_string() })
        }
        ExtKind::SiteOfOrigin(a) => json!({ "kind": "site-of-origin", "value": a.to_string() }),
        ExtKind::Encapsulation(8) => json!({ "kind": "encapsulation", "tunnel_type": 8, "name": "vxlan" }),
        ExtKind::Encapsulation(n) => json!({ "kind": "encapsulation", "tunnel_type": n }),
        ExtKind::DefaultGateway => json!({ "kind": "default-gateway" }),
        ExtKind::MacMobility { sticky, seq } => {
            json!({ "kind": "mac-mobility", "sticky": sticky, "sequence": seq })
        }
        ExtKind::EsiLabel { single_active, label } => {
            json!({ "kind": "esi-label", "single_active": single_active, "label": label })
        }
        ExtKind::EsImport(m) => json!({ "kind": "es-import-rt", "mac": m }),
        ExtKind::RouterMac(m) => json!({ "kind": "router-mac", "mac": m }),
        ExtKind::L2Attr { flags, mtu } => json!({
            "kind": "layer2-attributes", "backup": flags & 1 != 0, "primary": flags & 2 != 0,
            "control_word": flags & 4 != 0, "mtu": mtu,
        }),
        ExtKind::DfElection { alg, bitmap, preference } => {
            let mut v = json!({
                "kind": "df-election", "alg": alg, "ac_df": bitmap & 0x4000 != 0,
                "dont_preempt": bitmap & 0x8000 != 0,
            });
            if matches!(alg, 2 | 3) {
                v["preference"] = preference.into();
            } else {
                assert_eq!(preference, 0);
            }
            v
        }
        ExtKind::ArpNd(n) => json!({
            "kind": "arp-nd", "router": n.router, "override": n.r#override, "immutable": n.immutable,
        }),
        ExtKind::MulticastFlags(n) => {
            json!({ "kind": "multicast-flags", "igmp_proxy": n & 1 != 0, "mld_proxy": n & 2 != 0 })
        }
        ExtKind::EviRt(a) => {
            let form = match a {
                Admin::As2(..) => 0,
                Admin::Ip(..) => 1,
                Admin::As4(..) => 2,
            };
            json!({ "kind": format!("evi-rt-type{form}"), "value": a.to_string() })
        }
        ExtKind::Unknown => json!({ "kind": "unknown", "value": to_hex(&c.0) }),
    }
}
