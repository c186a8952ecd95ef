//! A ping every millisecond, and when its answers came.

use crate::ns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two pings.
pub const EVERY: Duration = Duration::from_millis(1);

/// Wall clock in microseconds, as QEMU stamps its events.
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// What became of the pings.
#[derive(Clone, Debug, Default)]
pub struct Pings {
    /// When each was sent, by its number.
    pub sent: Vec<u64>,
    /// Its number and when it was answered, in the order of the answers.
    pub answered: Vec<(usize, u64)>,
}

/// Pings until it is ended.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<u64>>,
    receiver: JoinHandle<Vec<(usize, u64)>>,
}

const ECHO: u8 = 8;
const REPLY: u8 = 0;
/// Marks our own among the answers.
const ID: u16 = 0x7674;

fn request(n: u32) -> Vec<u8> {
    let mut b = vec![ECHO, 0, 0, 0];
    b.extend_from_slice(&ID.to_be_bytes());
    b.extend_from_slice(&(n as u16).to_be_bytes());
    b.extend_from_slice(&n.to_be_bytes());
    let sum: u32 = b.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let check = !((sum + (sum >> 16)) as u16);
    b[2..4].copy_from_slice(&check.to_be_bytes());
    b
}

/// The number of the ping that a packet answers.
fn answer(packet: &[u8]) -> Option<usize> {
    let head = usize::from(packet.first()? & 15) * 4;
    let icmp = packet.get(head..)?;
    let ours = *icmp.first()? == REPLY && icmp.get(4..6)? == ID.to_be_bytes();
    ours.then(|| icmp.get(8..12)).flatten().map(|n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]) as usize)
}

impl Probe {
    /// Begins.
    ///
    /// # Panics
    /// Without root.
    pub fn start(ns: &Netns, to: Ipv4Addr) -> Self {
        let socket = ns.enter(|| {
            let s = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("root may ping");
            let _ = s.set_recv_buffer_size(4 << 20);
            s.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
            s
        });
        let to = SocketAddr::from((to, 0)).into();
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, out) = (Arc::clone(&stop), socket.try_clone().expect("a socket can be cloned"));
        let sender = std::thread::spawn(move || {
            let mut sent = Vec::new();
            let begun = std::time::Instant::now();
            while !ended.load(Ordering::Relaxed) {
                let due = EVERY * sent.len() as u32;
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
                let n = sent.len() as u32;
                sent.push(wall());
                let _ = out.send_to(&request(n), &to);
            }
            sent
        });
        let ended = Arc::clone(&stop);
        let receiver = std::thread::spawn(move || {
            let mut answered = Vec::new();
            let mut buffer = [0; 2048];
            while !ended.load(Ordering::Relaxed) {
                if let Ok(n) = (&socket).read(&mut buffer)
                    && let Some(n) = answer(&buffer[..n])
                {
                    answered.push((n, wall()));
                }
            }
            answered
        });
        Self { stop, sender, receiver }
    }

    /// Ends.
    ///
    /// # Panics
    /// When a thread of it has.
    pub fn end(self) -> Pings {
        self.stop.store(true, Ordering::Relaxed);
        Pings {
            sent: self.sender.join().expect("it sends"),
            answered: self.receiver.join().expect("it receives"),
        }
    }
}

/// One migration as the pings saw it. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// From STOP at the source to RESUME at the target.
    pub pause: f64,
    /// The longest time without an answer.
    pub gap: f64,
    /// From RESUME to the next answer.
    pub after: f64,
    /// Pings without an answer.
    pub lost: usize,
}

/// The middle one of some numbers; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Pings {
    /// What happened around a migration; `stop` and `resume` by the wall clock.
    pub fn around(&self, stop: u64, resume: u64) -> Option<Seen> {
        let (from, to) = (stop.saturating_sub(500_000), resume + 2_000_000);
        let mut times: Vec<u64> =
            self.answered.iter().map(|(_, t)| *t).filter(|t| (from..to).contains(t)).collect();
        times.sort_unstable();
        let gap = times.windows(2).map(|w| w[1] - w[0]).max()?;
        let after = times.iter().find(|t| **t >= resume)?;
        let answered: std::collections::HashSet<usize> = self.answered.iter().map(|(n, _)| *n).collect();
        // The last ones may still be under way.
        let sent = self.sent.iter().enumerate().filter(|(_, t)| (from..to - 1_000_000).contains(*t));
        let lost = sent.filter(|(n, _)| !answered.contains(n)).count();
        let ms = |us: u64| us as f64 / 1000.0;
        Some(Seen { pause: ms(resume.saturating_sub(stop)), gap: ms(gap), after: ms(after - resume), lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_checksum_and_its_answer_is_recognised() {
        let mut r = request(0x0001_ffff);
        let sum: u32 = r.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        r[0] = REPLY;
        let packet = [&[0x45; 20][..], &r].concat();
        assert_eq!(answer(&packet), Some(0x0001_ffff));
        assert_eq!(answer(&packet[..24]), None);
        assert_eq!(answer(&[]), None);
    }

    #[test]
    fn gap_loss_and_the_time_after_the_resume_are_told_apart() {
        let at = |ms: u64| 10_000_000 + ms * 1000;
        let sent: Vec<u64> = (0..3000).map(at).collect();
        // Stopped at 1000, running at 1070; the pings of 1020 to 1069 were lost, and those from 1000 to 1019 waited.
        let answers = (0..3000usize).filter(|n| !(1020..1070).contains(n));
        let when = |n: usize| if (1000..1020).contains(&n) { at(1071) } else { at(n as u64) + 300 };
        let answered = answers.map(|n| (n, when(n))).collect();
        let seen = Pings { sent, answered }.around(at(1000), at(1070)).expect("answers");
        assert_eq!(seen.lost, 50);
        assert!((seen.pause - 70.0).abs() < 0.01 && (seen.after - 0.3).abs() < 0.01, "{seen:?}");
        assert!((seen.gap - 71.0).abs() < 0.01, "{seen:?}");
    }
}
