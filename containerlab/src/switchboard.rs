//! The patch between a VM and the one place where it is: tc redirects between two interfaces of the switchboard.
//!
//! No process carries the frames. A `u32` filter that matches everything is used instead of `matchall`, which not
//! every kernel has. Everything of the guest stays as it is when the patch is changed: interface, carrier, addresses,
//! neighbours, sockets (PIT-21).

use crate::error::{Error, Result};
use crate::iproute;
use crate::netns;
use crate::patch::Patch;
use crate::state::State;
use crate::sys::{self, PacketSocket};
use crate::topology::Vm;
use std::time::Duration;

/// How QEMU announces a VM that has arrived: five rounds, the first at once, then 50, 150, 250 and 350 ms apart.
pub const ANNOUNCE_AT_MS: [u64; 5] = [0, 50, 200, 450, 800];

/// A RARP frame as QEMU sends it for a virtio NIC: broadcast, "who am I", padded to the Ethernet minimum.
pub fn rarp(mac: [u8; 6]) -> [u8; 60] {
    let mut f = [0; 60];
    f[..6].fill(0xff);
    f[6..12].copy_from_slice(&mac);
    // EtherType RARP; hardware Ethernet, protocol IPv4, lengths 6 and 4, operation 3 (request reverse).
    f[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    f[22..28].copy_from_slice(&mac);
    f[32..38].copy_from_slice(&mac);
    f
}

/// The filter that passes everything arriving at one interface on to another.
pub(crate) fn redirect(from: &str, to: &str) -> String {
    format!(
        "filter replace dev {from} ingress prio 1 handle 800::800 protocol all u32 match u32 0 0 \
         action mirred egress redirect dev {to}"
    )
}

/// Makes the switchboard ready and plugs every VM in at its home.
pub(crate) fn build(state: &State) -> Result<()> {
    let Some(board) = &state.switchboard else { return Ok(()) };
    let mut lines = Vec::new();
    for vm in state.vms.values() {
        let w = &vm.wiring;
        lines.push(format!("qdisc add dev {} clsact", w.plug));
        for s in &w.sockets {
            lines.push(format!("qdisc add dev {} clsact", s.socket));
        }
        let home = socket(w, &vm.at)?;
        lines.push(redirect(home, &w.plug));
        lines.push(redirect(&w.plug, home));
    }
    iproute::tc_batch(Some(&state.node(board)?.namespace), &lines)
}

fn socket<'a>(vm: &'a Vm, node: &str) -> Result<&'a str> {
    vm.socket_at(node).map(|s| s.socket.as_str()).ok_or_else(|| {
        let all: Vec<_> = vm.sockets.iter().map(|s| s.port.node.as_str()).collect();
        Error::refused(format!("the VM has no port at `{node}`; it can be at: {}", all.join(", ")))
    })
}

/// What happened when, in nanoseconds of the boot clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// The VM heard nothing from here on (QEMU's STOP).
    pub stopped: u64,
    /// It was plugged in at the target (QEMU's RESUME).
    pub resumed: u64,
    /// First announcement sent.
    pub announced: Option<u64>,
}

/// A move prepared so far that only writes to open descriptors are left.
#[derive(Debug)]
pub struct Mover {
    patch: Patch,
    announcer: PacketSocket,
    mac: [u8; 6],
    /// Interface indexes at the switchboard.
    old: u32,
    new: u32,
    plug: u32,
    vm: String,
    to: String,
}

impl Mover {
    /// Prepares a move of `vm` to the node `to`. Nothing changes yet.
    pub fn prepare(state: &State, vm: &str, to: &str) -> Result<Self> {
        let v = state.vm(vm)?;
        let new = socket(&v.wiring, to)?.to_owned();
        let old = socket(&v.wiring, &v.at)?.to_owned();
        if v.at == to {
            return Err(Error::refused(format!("VM `{vm}` is at `{to}` already")));
        }
        let board = state.switchboard.as_deref().unwrap_or_default();
        let board = &state.node(board)?.namespace;
        let mac = mac_of(&state.node(vm)?.namespace, &v.wiring.interface)?;
        let announcer = netns::inside(board, || PacketSocket::open(&new, true))?;
        let index = |name: &str| {
            let links = iproute::json("ip", board, &["link", "show", "dev", name])?;
            let index = links.first().and_then(|l| l["ifindex"].as_u64()).map(|n| n as u32);
            index.ok_or_else(|| Error::refused(format!("{board}:{name} is not there")))
        };
        Ok(Self {
            patch: Patch::open(board)?,
            announcer,
            mac,
            old: index(&old)?,
            new: index(&new)?,
            plug: index(&v.wiring.plug)?,
            vm: vm.to_owned(),
            to: to.to_owned(),
        })
    }

    /// Stops the VM's traffic at the source, resumes it at the target after `pause`, and sends the first
    /// announcement from the hypervisor's side (not for `silent` moves). `arrived` is called between the two.
    pub fn go(
        mut self,
        state: &mut State,
        pause: Duration,
        silent: bool,
        arrived: impl FnOnce(),
    ) -> Result<(Moved, Announcer)> {
        // The standstill is then as long as asked for, however busy the machine is.
        sys::run_first(10);
        sys::precise_timers();
        let done = self.switch(pause, silent, arrived);
        sys::run_as_others();
        let done = done?;
        if let Some(v) = state.vms.get_mut(&self.vm) {
            v.at.clone_from(&self.to);
        }
        state.save()?;
        Ok((done, Announcer { socket: self.announcer, mac: self.mac }))
    }

    fn switch(&mut self, pause: Duration, silent: bool, arrived: impl FnOnce()) -> Result<Moved> {
        let stopped = sys::boottime();
        // The guest hears nothing any more; what it says still leaves at the source.
        self.patch.cut(self.old)?;
        std::thread::sleep(pause);
        self.patch.redirect(self.new, self.plug)?;
        self.patch.redirect(self.plug, self.new)?;
        let resumed = sys::boottime();
        arrived();
        let announced = if silent { None } else { Some(announce(&self.announcer, self.mac)?) };
        Ok(Moved { stopped, resumed, announced })
    }
}

/// Sends a VM's announcements at its new place, as its hypervisor does.
#[derive(Debug)]
pub struct Announcer {
    socket: PacketSocket,
    mac: [u8; 6],
}

impl Announcer {
    /// One frame; when it was sent.
    pub fn send(&self) -> Result<u64> {
        announce(&self.socket, self.mac)
    }
    /// The rounds after the first, in QEMU's rhythm; ends early when `stop` says so.
    pub fn rest(&self, first: u64, stop: impl Fn() -> bool) -> Result<()> {
        for at in &ANNOUNCE_AT_MS[1..] {
            let due = first + at * 1_000_000;
            loop {
                let now = sys::boottime();
                if now >= due {
                    break;
                }
                if stop() || sys::interrupted() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_nanos((due - now).min(20_000_000)));
            }
            self.send()?;
        }
        Ok(())
    }
}

fn announce(socket: &PacketSocket, mac: [u8; 6]) -> Result<u64> {
    socket.send(&rarp(mac)).map_err(Error::io("announcing the VM"))?;
    Ok(sys::boottime())
}

/// MAC of an interface.
pub fn mac_of(namespace: &str, interface: &str) -> Result<[u8; 6]> {
    let links = iproute::json("ip", namespace, &["link", "show", "dev", interface])?;
    let text = links.first().and_then(|l| l["address"].as_str()).unwrap_or_default();
    parse_mac(text).ok_or_else(|| Error::refused(format!("{namespace}:{interface} has no MAC (`{text}`)")))
}

/// `aa:bb:cc:dd:ee:ff`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for b in &mut mac {
        *b = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}
