//! The patch between a VM and the one place where it is: tc redirects between two interfaces of the switchboard.
//!
//! No process carries the frames. A `u32` filter that matches everything is used instead of `matchall`, which not
//! every kernel has. Everything of the guest stays as it is when the patch is changed: interface, carrier, addresses,
//! neighbours, sockets (PIT-21).

use crate::error::{Error, Result};
use crate::iproute;
use crate::netns;
use crate::state::State;
use crate::sys::{self, PacketSocket};
use crate::topology::Vm;
use std::io::Write;
use std::process::{Child, Command, Stdio};
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

fn cut(from: &str) -> String {
    format!("filter del dev {from} ingress")
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
    tc: Child,
    announcer: PacketSocket,
    mac: [u8; 6],
    old: String,
    new: String,
    plug: String,
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
        let tc = Command::new("tc")
            .args(["-n", board, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io("tc"))?;
        // The length of the standstill is then the one asked for, however busy the machine is.
        sys::let_run_first(tc.id(), 10);
        Ok(Self {
            tc,
            announcer,
            mac,
            old,
            new,
            plug: v.wiring.plug.clone(),
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
        let failed = Error::io("tc");
        sys::run_first(10);
        sys::precise_timers();
        let mut stdin = self.tc.stdin.take().expect("piped above");
        let mut say = |lines: &[String]| stdin.write_all((lines.join("\n") + "\n").as_bytes());
        let mut moved = Moved::default();
        // The guest hears nothing any more; what it says still leaves at the source.
        let first = say(&[cut(&self.old)]);
        moved.stopped = sys::boottime();
        std::thread::sleep(pause);
        let second = say(&[redirect(&self.new, &self.plug), redirect(&self.plug, &self.new)]);
        drop(stdin);
        let out = self.tc.wait_with_output().map_err(failed)?;
        moved.resumed = sys::boottime();
        if !out.status.success() || first.is_err() || second.is_err() {
            return Err(Error::Command {
                command: format!("tc -batch (moving {} to {})", self.vm, self.to),
                place: state.switchboard.clone().unwrap_or_default(),
                output: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
            });
        }
        arrived();
        let announcer = Announcer { socket: self.announcer, frame: rarp(self.mac) };
        if !silent {
            moved.announced = Some(announcer.send()?);
        }
        sys::run_as_others();
        if let Some(v) = state.vms.get_mut(&self.vm) {
            v.at.clone_from(&self.to);
        }
        state.save()?;
        Ok((moved, announcer))
    }
}

/// Sends a VM's announcements at its new place, as its hypervisor does.
#[derive(Debug)]
pub struct Announcer {
    socket: PacketSocket,
    frame: [u8; 60],
}

impl Announcer {
    /// One frame; when it was sent.
    pub fn send(&self) -> Result<u64> {
        self.socket.send(&self.frame).map_err(Error::io("announcing the VM"))?;
        Ok(sys::boottime())
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
