//! Frames to one VTEP, past the kernel's flood list and suppression: VXLAN by hand over a UDP socket (PIT-14,
//! PIT-17, PIT-19). A few frames, never a guest's traffic.

use evpn::types::Vni;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Octets of the VXLAN header (RFC 7348 §5).
const HEADER: usize = 8;
/// Longest frame that is sent: what a tap takes in.
const FRAME: usize = 2048;

/// Flows are spread over so many source ports, so that the underlay can spread them over its paths (VXLAN-03).
const SOURCES: usize = 16;
/// RFC 7348 §5: 49152 to 65535. Each source takes the first port that is free in a range of its own.
const FIRST: u16 = 49_152;
const RANGE: u16 = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Encap {
    local: IpAddr,
    port: u16,
    /// Each opened at its first frame: the VTEP's address may come late.
    sockets: [Option<UdpSocket>; SOURCES],
    /// Frames that could not be sent.
    pub(super) failures: u64,
}

impl Encap {
    /// For our VTEP address and the VXLAN port of all.
    pub(super) fn new(local: IpAddr, port: u16) -> Self {
        Self { local, port, sockets: [const { None }; SOURCES], failures: 0 }
    }

    /// Sends a frame. Never blocks: what the socket does not take is lost, as on any wire, and counted.
    ///
    /// # Errors
    /// As the kernel gives them, or the frame is longer than any that we send.
    pub(super) fn send(&mut self, vni: Vni, vtep: IpAddr, frame: &[u8]) -> io::Result<()> {
        let sent = self.try_send(vni, vtep, frame);
        self.failures += u64::from(sent.is_err());
        sent
    }

    fn try_send(&mut self, vni: Vni, vtep: IpAddr, frame: &[u8]) -> io::Result<()> {
        let mut packet = [0u8; HEADER + FRAME];
        let Some(room) = packet.get_mut(HEADER..HEADER + frame.len()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the frame is too long"));
        };
        room.copy_from_slice(frame);
        // VXLAN-02: the I flag, and the VNI in the upper 24 bits of the second word.
        packet[0] = 0x08;
        packet[4..8].copy_from_slice(&(vni.get() << 8).to_be_bytes());
        let source = source(frame);
        let Some(slot) = self.sockets.get_mut(source) else { return Ok(()) };
        let socket = match slot.take() {
            Some(s) => s,
            None => open(self.local, source)?,
        };
        let sent = socket.send_to(&packet[..HEADER + frame.len()], SocketAddr::new(vtep, self.port));
        // An error of an earlier packet (port unreachable) is told here; the socket is as good as before.
        *slot = Some(socket);
        sent.map(|_| ())
    }
}

/// Of a flow always the same, so that its frames stay in order: FNV-1a of the inner addresses and type.
fn source(frame: &[u8]) -> usize {
    let hash =
        frame.iter().take(14).fold(0x811c_9dc5_u32, |h, o| (h ^ u32::from(*o)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as usize % SOURCES
}

fn open(local: IpAddr, source: usize) -> io::Result<UdpSocket> {
    let first = FIRST + source as u16 * RANGE;
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for port in (0..RANGE).map(|n| first + n) {
        match UdpSocket::bind(SocketAddr::new(local, port)) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                return Ok(socket);
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => taken = e,
            Err(e) => return Err(e),
        }
    }
    Err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_with_the_header_of_its_vni() {
        let far = UdpSocket::bind("127.0.0.2:0").expect("socket");
        let port = far.local_addr().expect("address").port();
        far.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        let mut encap = Encap::new("127.0.0.1".parse().expect("address"), port);
        let vni = Vni::new(0x0001_0203).expect("in range");
        let frame: Vec<u8> = (0..60).collect();
        encap.send(vni, "127.0.0.2".parse().expect("address"), &frame).expect("sent");
        let mut buf = [0u8; 100];
        let (n, from) = far.recv_from(&mut buf).expect("received");
        assert_eq!(from.ip().to_string(), "127.0.0.1");
        // VXLAN-01, VXLAN-02
        assert_eq!(buf[..8], [0x08, 0, 0, 0, 0x01, 0x02, 0x03, 0]);
        assert_eq!(buf[8..n], frame[..]);
    }

    /// VXLAN-03, also where another socket has the first port of a range.
    #[test]
    fn the_source_port_is_a_hash_of_the_flow_in_the_dynamic_range() {
        let far = UdpSocket::bind("127.0.0.4:0").expect("socket");
        let port = far.local_addr().expect("address").port();
        far.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        let _others: Vec<_> = (0..SOURCES)
            .map(|s| UdpSocket::bind(("127.0.0.3", FIRST + s as u16 * RANGE)).expect("free"))
            .collect();
        let mut encap = Encap::new("127.0.0.3".parse().expect("address"), port);
        let vni = Vni::new(100).expect("in range");
        let mut from = |flow: u8| {
            let mut frame = [7u8; 60];
            frame[5] = flow;
            encap.send(vni, "127.0.0.4".parse().expect("address"), &frame).expect("sent");
            far.recv_from(&mut [0; 100]).expect("received").1.port()
        };
        let ports: Vec<u16> = (0..64).map(&mut from).collect();
        let again: Vec<u16> = (0..64).map(&mut from).collect();
        assert_eq!(ports, again, "a flow keeps its port");
        assert!(ports.iter().all(|p| *p >= FIRST && (*p - FIRST) % RANGE == 1), "{ports:?}");
        let distinct: std::collections::BTreeSet<u16> = ports.into_iter().collect();
        assert!(distinct.len() > SOURCES / 2, "{distinct:?}");
    }

    #[test]
    fn what_cannot_be_sent_is_an_error_and_counted() {
        let mut encap = Encap::new("127.0.0.1".parse().expect("address"), 4789);
        let vni = Vni::new(100).expect("in range");
        let far: IpAddr = "127.0.0.2".parse().expect("address");
        assert!(encap.send(vni, far, &[0; 4096]).is_err());
        let mut nowhere = Encap::new("192.0.2.1".parse().expect("address"), 4789);
        assert!(nowhere.send(vni, far, &[0; 60]).is_err(), "not an address of ours");
        assert_eq!((encap.failures, nowhere.failures), (1, 1));
    }
}
