//! A Linux host that talks all the time to an address, and two Linux guests that take the address from each other: how long
//! until the host finds it under its new MAC? All three have the kernel's default settings.

use crate::fabric::{Fabric, Host, test_mac};
use crate::frame;
use crate::packet::{Wire, now};
use crate::poll::{LATER, eventually};
use evpn::types::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The address that moves, by family.
pub const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 168, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, 200)),
];
/// Name of the guests' ports at their VTEPs.
const PORT: &str = "h1";
/// UDP port that nobody listens on.
const DISCARD: u16 = 9;

/// How the address comes to the other guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// The guest that had it is shut down first: its port loses its carrier.
    Cold,
    /// It lives on and gives the address up just before.
    Failover,
}

/// See the module.
#[derive(Debug)]
pub struct Talkers {
    sites: [Host; 2],
    host: Host,
}

/// What became of a guest whose site was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rescue {
    /// Nobody said that its address is somebody else's.
    pub kept: bool,
    /// From its announcement to the host's first packet, in ns.
    pub gap: Option<u64>,
}

/// Packets of the host, one every half millisecond, until this ends.
#[derive(Debug)]
struct Talk {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Talk {
    fn begin(host: &Host, ip: IpAddr) -> Self {
        let any: IpAddr =
            if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = host.ns.enter(|| UdpSocket::bind((any, 0)).expect("a socket"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // What the network makes of it, and says of an earlier one, is what is measured.
                let _ = socket.send_to(&[0; 16], (ip, DISCARD));
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// The frame is one of these, to this MAC from that one.
fn is_talk(frame: &[u8], to: Mac, from: Mac) -> Option<()> {
    let port = match frame.get(12..14)? {
        [0x08, 0x00] if frame.get(23) == Some(&17) => frame.get(36..38)?,
        [0x86, 0xdd] if frame.get(20) == Some(&17) => frame.get(56..58)?,
        _ => return None,
    };
    (port == DISCARD.to_be_bytes() && frame.get(..6)? == to.0 && frame.get(6..12)? == from.0).then_some(())
}

impl Talkers {
    /// Guests behind VTEPs 0 and 1, the host behind VTEP 2, in VNI 100, whose bridges are there.
    pub fn new(f: &Fabric) -> Self {
        let attached = |vtep: usize, addresses: &[&str]| {
            let h = f.host(vtep, PORT, test_mac(0x300 + vtep as u16), addresses);
            f.vteps[vtep].ns.sh(&format!("ip link set {PORT} master br100"));
            h
        };
        let host = attached(2, &["192.168.100.2/24", "fd00:100::2/64"]);
        Self { sites: [attached(0, &[]), attached(1, &[])], host }
    }

    /// The host's MAC.
    pub fn host_mac(&self) -> Mac {
        self.host.mac
    }

    /// The guests' MACs.
    pub fn site_macs(&self) -> [Mac; 2] {
        [self.sites[0].mac, self.sites[1].mac]
    }

    /// The host reaches the address, or why not.
    ///
    /// # Errors
    /// What ping says.
    pub fn settled(&self, ip: IpAddr) -> Result<(), String> {
        self.host.try_ping(&ip.to_string())
    }

    /// The guest at this site has the address and says so, by a socket that is there already: to close one takes the kernel
    /// 10 ms.
    fn give(&self, ip: IpAddr, site: usize, wire: &Wire) -> u64 {
        let h = &self.sites[site];
        let (bits, nodad) = if ip.is_ipv4() { (24, "") } else { (64, " nodad") };
        h.ns.sh(&format!("ip addr replace {ip}/{bits} dev eth0{nodad}"));
        let announcement = match ip {
            IpAddr::V4(ip) => frame::garp(h.mac, ip),
            IpAddr::V6(ip) => frame::unsolicited_na(h.mac, ip),
        };
        wire.send(&announcement)
    }

    fn take(&self, ip: IpAddr, site: usize) {
        self.sites[site].ns.sh(&format!("ip addr flush to {ip} dev eth0"));
    }

    /// The guest at this site has the address, and the host talks to it.
    ///
    /// # Panics
    /// When they do not find each other.
    pub fn settle(&self, ip: IpAddr, site: usize) {
        self.give(ip, site, &Wire::deaf(&self.sites[site].ns, "eth0"));
        eventually(LATER, "they talk", || self.host.try_ping(&ip.to_string()));
    }

    /// The address goes from one site to the other while the host talks to it. Returns how long after the new
    /// guest's announcement the first packet reached it, in ns; `None` when none did within `limit`.
    ///
    /// # Panics
    /// When they do not talk before.
    pub fn change(&self, f: &Fabric, ip: IpAddr, to: usize, how: Change, limit: Duration) -> Option<u64> {
        let from = 1 - to;
        let (old, new) = (&self.sites[from], &self.sites[to]);
        let talk = Talk::begin(&self.host, ip);
        let before = Wire::open(&old.ns, "eth0");
        let talks = before.find(LATER, |x| is_talk(x, old.mac, self.host.mac));
        assert!(talks.is_some(), "they talk before the change");
        drop(before);
        let heard = Wire::open(&new.ns, "eth0");
        self.take(ip, from);
        if how == Change::Cold {
            old.ns.sh("ip link set eth0 down");
            // All have heard of it, also behind FRR's queues.
            std::thread::sleep(Duration::from_millis(400));
        }
        let begun = self.give(ip, to, &heard);
        let end = now() + limit.as_nanos() as u64;
        let mut found = None;
        while found.is_none() && now() < end {
            found = heard.find(Duration::from_millis(200), |x| is_talk(x, new.mac, self.host.mac));
        }
        drop(talk);
        if how == Change::Cold {
            self.boot(f, from);
        }
        found.map(|(at, ())| at.saturating_sub(begun))
    }

    /// The site of the address loses its power (`dies`: its VTEP goes, without a word), and the guest at the other one checks the
    /// address as carefully as there are rules for, takes it and announces it.
    ///
    /// # Panics
    /// When they do not talk before.
    pub fn rescue(&self, ip: IpAddr, to: usize, limit: Duration, dies: impl FnOnce()) -> Rescue {
        let (old, new) = (&self.sites[1 - to], &self.sites[to]);
        let talk = Talk::begin(&self.host, ip);
        let before = Wire::open(&old.ns, "eth0");
        let talks = before.find(LATER, |x| is_talk(x, old.mac, self.host.mac));
        assert!(talks.is_some(), "they talk before");
        drop(before);
        dies();
        self.take(ip, 1 - to);
        old.ns.sh("ip link set eth0 down");
        let heard = Wire::open(&new.ns, "eth0");
        let kept = match ip {
            // Silence is what it wants to hear.
            IpAddr::V4(_) => new.ns.try_sh(&format!("arping -q -D -c 3 -w 3 -I eth0 {ip}")).is_ok(),
            IpAddr::V6(_) => {
                new.ns.sh(&format!("ip addr add {ip}/64 dev eth0"));
                let done = || {
                    let flags = new.ns.sh(&format!("ip -6 addr show dev eth0 to {ip}"));
                    if flags.contains("dadfailed") {
                        return Ok(false);
                    }
                    if flags.contains("tentative") { Err(flags) } else { Ok(true) }
                };
                eventually(LATER, "duplicate address detection ends", done)
            }
        };
        heard.drain();
        let begun = self.give(ip, to, &heard);
        let end = now() + limit.as_nanos() as u64;
        let mut found = None;
        while found.is_none() && now() < end {
            found = heard.find(Duration::from_millis(200), |x| is_talk(x, new.mac, self.host.mac));
        }
        drop(talk);
        Rescue { kept, gap: found.map(|(at, ())| at.saturating_sub(begun)) }
    }

    /// A site's port is connected again, and its guest has no address.
    pub fn plug(&self, f: &Fabric, site: usize) {
        self.boot(f, site);
    }

    /// The port of a guest comes back and is heard.
    fn boot(&self, f: &Fabric, site: usize) {
        let h = &self.sites[site];
        h.ns.sh("ip link set eth0 up");
        let (far, near) = (Wire::deaf(&h.ns, "eth0"), Wire::open(&f.vteps[site].ns, PORT));
        let hello = frame::data(Mac::BROADCAST, Mac::ZERO, 0);
        eventually(LATER, "the port is heard again", || {
            far.send(&hello);
            let heard = near.find(Duration::from_millis(5), |x| frame::as_data(x, Mac::BROADCAST));
            heard.map(drop).ok_or("nothing")
        });
    }
}
