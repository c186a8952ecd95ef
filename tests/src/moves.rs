//! What the tests of moves ask of a mixed fabric, on both sides: API, FRR's JSON, kernel tables, the wire.

use crate::fabric::{Guest, Place};
use crate::mixed::Mixed;
use crate::packet::Wire;
use crate::poll::{LATER, SOON, eventually, same};
use evpn::types::Mac;
use serde_json::Value;
use std::net::IpAddr;

impl Mixed {
    /// Sequence that a vtepd gives a guest; the largest number when it does not know it.
    pub fn seq(&self, vtep: usize, g: &Guest) -> u64 {
        self.vtepd(vtep).mac(&g.mac.to_string())["seq"].as_u64().unwrap_or(u64::MAX)
    }

    /// `Ok` when the kernel of a VTEP sends frames for the guest to `home`: to its first port there, by VXLAN
    /// elsewhere.
    pub fn sends_home(&self, vtep: usize, home: usize, g: &Guest) -> Result<(), Place> {
        let want = if vtep == home { Place::port("p1") } else { Place::vtep(self.vtep(home)) };
        self.vtep(vtep).sends_to(100, g.mac, &want)
    }

    /// `Ok` when the kernel of a VTEP answers for the guest's IP, with its MAC.
    pub fn answers(&self, vtep: usize, g: &Guest) -> Result<(), String> {
        same(self.vtep(vtep).neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
    }

    /// `Ok` when the kernel of a VTEP answers nobody for an IP.
    pub fn is_silent(&self, vtep: usize, ip: IpAddr) -> Result<(), String> {
        let row = self.vtep(vtep).neigh_row(100, ip);
        // What the host itself learned (FRR's do, from ARP) answers nobody: only `extern_learn` does.
        if row.get("extern_learn").is_none() { Ok(()) } else { Err(row.to_string()) }
    }

    /// The guest says gratuitous ARP at `home`; ends when all others have both MAC and IP.
    ///
    /// # Panics
    /// When they do not.
    pub fn appears(&self, g: &Guest, home: usize) {
        self.guest(home).send(&g.garp());
        for i in (0..self.fabric.vteps.len()).filter(|i| *i != home) {
            eventually(LATER, "the MAC is known everywhere", || self.sends_home(i, home, g));
            eventually(SOON, "and the IP", || self.answers(i, g));
        }
    }

    /// The guest moves by RARP; ends when all kernels point to the new place.
    ///
    /// # Panics
    /// When they do not.
    pub fn moves(&self, g: &Guest, to: usize) {
        self.guest(to).send(&g.rarp());
        for i in 0..self.fabric.vteps.len() {
            eventually(LATER, "all follow the move", || self.sends_home(i, to, g));
        }
    }

    /// The guest's port at a VTEP goes, as a tap does when its VM is shut down, and comes back without it.
    pub fn shut_down(&self, home: usize) {
        self.vtep(home).pull_port(&self.fabric.guests, "p1");
    }

    /// `Ok` when FRR's entry of the guest's MAC is of this kind (`local`, `remote`) with that sequence.
    pub fn frr_says(&self, vtep: usize, g: &Guest, kind: &str, seq: u64) -> Result<(), Value> {
        let row = self.frr(vtep).mac(100, &g.mac.to_string());
        if row["type"] == kind && row[format!("{kind}Sequence")] == seq { Ok(()) } else { Err(row) }
    }

    /// `Ok` when FRR uses exactly these of its neighbours' (or its own) routes for an IP: MAC of each.
    pub fn frr_ip_is(&self, vtep: usize, g: &Guest, kind: &str) -> Result<(), Value> {
        let row = self.frr(vtep).json(&format!("show evpn arp-cache vni 100 ip {} json", g.ip));
        if row["type"] == kind && row["mac"] == g.mac.to_string().as_str() { Ok(()) } else { Err(row) }
    }

    /// `Ok` when the routes of a guest that vtepd `at` holds from a neighbour (`None`: its own) are MAC-only, MAC+IP,
    /// both or none, with this sequence.
    pub fn routes_are(
        &self,
        at: usize,
        from: Option<usize>,
        g: &Guest,
        there: [bool; 2],
        seq: u64,
    ) -> Result<(), String> {
        let routes = self.guest_routes(at, from, g);
        let right = routes.iter().zip(there).all(|(r, want)| match r {
            Some(r) => want && r["seq"].as_u64().unwrap_or(0) == seq,
            None => !want,
        });
        if right { Ok(()) } else { Err(format!("want {there:?} with sequence {seq}: {routes:#?}")) }
    }

    /// The last move of this guest that a vtepd recorded.
    ///
    /// # Panics
    /// When it recorded none.
    pub fn last_move(&self, vtep: usize, g: &Guest) -> Value {
        let moves = self.vtepd(vtep).show("moves", &[]);
        moves.into_iter().rfind(|r| r["mac"] == g.mac.to_string().as_str()).expect("a record of the move")
    }

    /// Carrier changes of all first ports: the same all along, because a guest that moves notices nothing (PIT-21).
    pub fn carrier_changes(&self) -> Vec<String> {
        let read = |n: usize| self.fabric.guests.sh(&format!("cat /sys/class/net/x{n}p1/carrier_changes"));
        (1..=self.fabric.vteps.len()).map(read).collect()
    }

    /// Takes a VTEP off the underlay, or puts it back; its own carrier stays, as behind a broken WAN.
    pub fn wan(&self, vtep: usize, up: bool) {
        let n = self.vtep(vtep).number;
        let _ = self.fabric.spine.sh(&if up {
            format!("ip link set u{n} master b0")
        } else {
            format!("ip link set u{n} nomaster")
        });
    }
}

/// Type-2 NLRI of one MAC on the wire, both ways, at a VTEP's underlay interface: what was said how often.
#[derive(Debug)]
pub struct Mentions {
    wire: Wire,
    mac: Mac,
    vtep: IpAddr,
}

impl Mentions {
    /// Listens from now on.
    pub fn open(m: &Mixed, vtep: usize, mac: Mac) -> Self {
        let v = m.vtep(vtep);
        Self { wire: Wire::open(&m.fabric.spine, &format!("u{}", v.number)), mac, vtep: v.address }
    }

    /// Sources of what was said since the last call: an address for each NLRI, announced or withdrawn.
    pub fn heard(&self) -> Vec<IpAddr> {
        let mut key = vec![48];
        key.extend(self.mac.0);
        let mut out = Vec::new();
        while let Some((_, f)) = self.wire.poll() {
            // IPv4, TCP, port 179 on either side.
            let bgp = f.get(12..14) == Some(&[8, 0])
                && f.get(23) == Some(&6)
                && f.len() > 38
                && (f[34..36] == [0, 179] || f[36..38] == [0, 179]);
            // The spine floods what is for a VTEP that has gone.
            let ours = |a: &[u8]| IpAddr::from([a[0], a[1], a[2], a[3]]) == self.vtep;
            if bgp && (ours(&f[26..30]) || ours(&f[30..34])) {
                let n = f.windows(key.len()).filter(|w| *w == key).count();
                out.extend(std::iter::repeat_n(IpAddr::from([f[26], f[27], f[28], f[29]]), n));
            }
        }
        out
    }
}
