//! What runs inside the VMs of the demo: a UDP probe every millisecond and a TCP stream whose every byte is checked.
//!
//! Both ends print JSON lines: one for each line on their standard input, and the [`ServerReport`] or [`ClientReport`]
//! when it ends. So they end with the program that started them, whatever happens to it.
//!
//! The TCP stream goes one way, client to server, and the server acknowledges at once: when nothing reaches the
//! server, it has nothing to say, as a guest that is being moved.

use crate::error::{Error, Result};
use crate::sys;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// UDP and TCP port of the server.
pub const PORT: u16 = 7100;
/// Probes kept: ten minutes of one a millisecond.
const PROBES: usize = 600_000;
const MAGIC: u64 = 0x7674_6570_6c61_6231;

/// Options of the server.
#[derive(Args, Clone, Debug)]
pub struct ServerOptions {
    /// UDP and TCP port
    #[arg(long, default_value_t = PORT)]
    port: u16,
}

/// Options of the client.
#[derive(Args, Clone, Debug)]
pub struct ClientOptions {
    /// Address of the server
    server: Ipv4Addr,
    /// Its UDP and TCP port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Time between probes
    #[arg(long, default_value = "1ms", value_parser = crate::cli::duration)]
    interval: Duration,
    /// Octets of TCP payload in ten milliseconds
    #[arg(long, default_value_t = 14_000)]
    burst: usize,
}

/// Answer to a line on standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Probes sent (client) or received (server).
    pub probes: u64,
    /// Answers received (client).
    pub answers: u64,
    /// TCP octets written (client) or received in order (server).
    pub bytes: u64,
}

/// What the server saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerReport {
    /// Sequence number and arrival of each probe, boot clock nanoseconds.
    pub arrivals: Vec<(u64, u64)>,
    /// TCP octets that were the right ones in the right order.
    pub bytes: u64,
    /// Offset of the first wrong octet.
    pub wrong_at: Option<u64>,
    /// The client ended the stream properly.
    pub ended: bool,
    /// Connections accepted.
    pub connections: u64,
}

/// What the client saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClientReport {
    /// When each probe was sent, boot clock nanoseconds, and when its answer came (0: never).
    pub probes: Vec<(u64, u64)>,
    /// TCP octets written.
    pub bytes: u64,
    /// Segment size that TCP uses.
    pub segment: u32,
    /// TCP segments sent again.
    pub retransmitted: u32,
    /// The server confirmed the end of the stream.
    pub ended: bool,
    /// What went wrong with the connection.
    pub error: Option<String>,
}

/// The octets of the stream from `offset` on.
pub fn pattern(offset: u64, buffer: &mut [u8]) {
    let mut at = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = mix(at / 8).to_le_bytes();
        let from = (at % 8) as usize;
        let n = rest.len().min(8 - from);
        let (now, later) = rest.split_at_mut(n);
        now.copy_from_slice(&word[from..from + n]);
        at += n as u64;
        rest = later;
    }
}

/// SplitMix64: no two offsets look alike, so a lost, doubled or swapped segment cannot go unseen.
fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    probes: AtomicU64,
    answers: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    fn status(&self) -> Status {
        Status {
            probes: self.probes.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
    /// Answers lines on standard input until it ends.
    fn converse(&self) {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            print_json(&self.status());
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn print_json<T: Serialize>(value: &T) {
    crate::cli::say(&(serde_json::to_string(value).expect("plain data") + "\n"));
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream that stands still for this long is given up.
const STALL: Duration = Duration::from_secs(3);
/// Time that a blocked read lasts before the thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(20);

/// The server.
pub fn server(o: &ServerOptions) -> Result<()> {
    let here = SocketAddr::from((Ipv4Addr::UNSPECIFIED, o.port));
    let udp = UdpSocket::bind(here).map_err(Error::io(format!("UDP port {}", o.port)))?;
    udp.set_read_timeout(Some(TICK)).map_err(Error::io("UDP"))?;
    let tcp = TcpListener::bind(here).map_err(Error::io(format!("TCP port {}", o.port)))?;
    tcp.set_nonblocking(true).map_err(Error::io("TCP"))?;
    let shared = Arc::new(Shared::default());
    let report = Arc::new(Mutex::new(ServerReport::default()));
    let (s, r) = (shared.clone(), report.clone());
    let echo = std::thread::spawn(move || serve_udp(&udp, &s, &r));
    let (s, r) = (shared.clone(), report.clone());
    let stream = std::thread::spawn(move || serve_tcp(&tcp, &s, &r));
    // Says that it is there.
    print_json(&shared.status());
    shared.converse();
    let _ = (echo.join(), stream.join());
    print_json(&*lock(&report));
    Ok(())
}

fn serve_udp(udp: &UdpSocket, shared: &Shared, report: &Mutex<ServerReport>) {
    sys::run_first(5);
    let mut arrivals = Vec::with_capacity(1 << 16);
    let mut b = [0; 64];
    while !shared.stopped() {
        let Ok((24, from)) = udp.recv_from(&mut b) else { continue };
        let at = sys::boottime();
        let Some((MAGIC, seq)) = parse_probe(&b) else { continue };
        let _ = udp.send_to(&b[..24], from);
        if arrivals.len() < PROBES {
            arrivals.push((seq, at));
        }
        shared.probes.fetch_add(1, Ordering::Relaxed);
    }
    lock(report).arrivals = arrivals;
}

fn parse_probe(b: &[u8]) -> Option<(u64, u64)> {
    let word = |i: usize| b.get(i..i + 8).and_then(|w| w.try_into().ok()).map(u64::from_le_bytes);
    Some((word(0)?, word(8)?))
}

fn serve_tcp(listener: &TcpListener, shared: &Shared, report: &Mutex<ServerReport>) {
    while !shared.stopped() {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(TICK);
            continue;
        };
        lock(report).connections += 1;
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(TICK));
        let mut got = vec![0; 64 << 10];
        let mut right = vec![0; 64 << 10];
        let mut offset = 0;
        loop {
            // Not sticky: asked for again before each read, so that nothing is left to be acknowledged later.
            let _ = rustix::net::sockopt::set_tcp_quickack(&stream, true);
            match stream.read(&mut got) {
                Ok(0) => {
                    lock(report).ended = true;
                    break;
                }
                Ok(n) => {
                    pattern(offset, &mut right[..n]);
                    if let Some(i) = (0..n).find(|i| got[*i] != right[*i]) {
                        lock(report).wrong_at = Some(offset + i as u64);
                        break;
                    }
                    offset += n as u64;
                    shared.bytes.store(offset, Ordering::Relaxed);
                }
                Err(e) if retry(&e) && !shared.stopped() => {}
                Err(_) => break,
            }
        }
        lock(report).bytes = offset;
    }
}

fn retry(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(e.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The client.
pub fn client(o: &ClientOptions) -> Result<()> {
    let there = SocketAddr::from((o.server, o.port));
    let shared = Arc::new(Shared::default());
    let mut report = ClientReport::default();
    let stream = TcpStream::connect_timeout(&there, Duration::from_secs(5));
    let stream = match stream {
        Ok(s) => s,
        Err(e) => {
            report.error = Some(format!("no connection to {there}: {e}"));
            print_json(&report);
            return Ok(());
        }
    };
    let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(Error::io("UDP"))?;
    udp.connect(there).map_err(Error::io("UDP"))?;
    udp.set_read_timeout(Some(TICK)).map_err(Error::io("UDP"))?;
    let udp = Arc::new(udp);
    let probes = Arc::new(Mutex::new(Vec::with_capacity(1 << 16)));
    let (s, p, u, interval) = (shared.clone(), probes.clone(), udp.clone(), o.interval);
    let sender = std::thread::spawn(move || probe(&u, interval, &s, &p));
    let (s, p) = (shared.clone(), probes.clone());
    let receiver = std::thread::spawn(move || collect(&udp, &s, &p));
    let (s, burst) = (shared.clone(), o.burst);
    let writer = std::thread::spawn(move || pour(stream, burst, &s));
    print_json(&shared.status());
    shared.converse();
    let _ = (sender.join(), receiver.join());
    if let Ok(done) = writer.join() {
        report = done;
    }
    report.probes = std::mem::take(&mut lock(&probes));
    print_json(&report);
    Ok(())
}

fn probe(udp: &UdpSocket, interval: Duration, shared: &Shared, probes: &Mutex<Vec<(u64, u64)>>) {
    sys::run_first(5);
    sys::precise_timers();
    let step = interval.as_nanos() as u64;
    let mut due = sys::boottime();
    let mut b = [0; 24];
    b[..8].copy_from_slice(&MAGIC.to_le_bytes());
    for seq in 0..PROBES as u64 {
        if shared.stopped() {
            return;
        }
        let now = sys::boottime();
        if let Some(wait) = due.checked_sub(now) {
            std::thread::sleep(Duration::from_nanos(wait));
        }
        due += step;
        b[8..16].copy_from_slice(&seq.to_le_bytes());
        lock(probes).push((sys::boottime(), 0));
        // A full queue or an unreachable neighbour is a lost probe like any other.
        let _ = udp.send(&b);
        shared.probes.fetch_add(1, Ordering::Relaxed);
    }
}

fn collect(udp: &UdpSocket, shared: &Shared, probes: &Mutex<Vec<(u64, u64)>>) {
    sys::run_first(5);
    let mut b = [0; 64];
    let mut end = None;
    // Answers may still be under way when the last probe has been sent.
    while end.is_none_or(|t| Instant::now() < t) {
        if shared.stopped() && end.is_none() {
            end = Some(Instant::now() + Duration::from_millis(200));
        }
        let Ok(24) = udp.recv(&mut b) else { continue };
        let at = sys::boottime();
        let Some((MAGIC, seq)) = parse_probe(&b) else { continue };
        if let Some(p) = lock(probes).get_mut(seq as usize)
            && p.1 == 0
        {
            p.1 = at;
            shared.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn pour(mut stream: TcpStream, burst: usize, shared: &Shared) -> ClientReport {
    let mut report = ClientReport::default();
    let mut buffer = vec![0; burst];
    let mut offset = 0;
    let _ = stream.set_write_timeout(Some(STALL));
    let _ = stream.set_read_timeout(Some(STALL));
    let mut due = Instant::now();
    while !shared.stopped() {
        pattern(offset, &mut buffer);
        if let Err(e) = stream.write_all(&buffer) {
            let why =
                if retry(&e) { format!("it stood still for {} s", STALL.as_secs()) } else { e.to_string() };
            report.error = Some(format!("the TCP stream ended after {offset} octets: {why}"));
            break;
        }
        offset += buffer.len() as u64;
        shared.bytes.store(offset, Ordering::Relaxed);
        due += Duration::from_millis(10);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    report.bytes = offset;
    (report.segment, report.retransmitted) = sys::tcp_facts(&stream).unwrap_or_default();
    let _ = stream.shutdown(Shutdown::Write);
    // The server has read everything when it closes its side too.
    report.ended = matches!(stream.read(&mut [0; 16]), Ok(0));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_same_however_it_is_cut() {
        let mut whole = [0; 100];
        pattern(3, &mut whole);
        let mut parts = [0; 100];
        let (a, b) = parts.split_at_mut(37);
        pattern(3, a);
        pattern(40, b);
        assert_eq!(whole, parts);
        let mut shifted = [0; 100];
        pattern(4, &mut shifted);
        assert_eq!(whole[1..], shifted[..99]);
        assert_ne!(whole, shifted);
    }
}
