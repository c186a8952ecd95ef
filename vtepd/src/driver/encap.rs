//! Frames to one VTEP, past the kernel's flood list and suppression: VXLAN by hand over a UDP socket (PIT-14,
//! PIT-17, PIT-19). A few frames, never a guest's traffic.

use evpn::types::Vni;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Octets of the VXLAN header (RFC 7348 §5).
const HEADER: usize = 8;
/// Longest frame that is sent: what a tap takes in.
const FRAME: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct Encap {
    local: IpAddr,
    port: u16,
    /// Opened at the first frame: the VTEP's address may come late.
    socket: Option<UdpSocket>,
    /// Frames that could not be sent.
    pub(super) failures: u64,
}

impl Encap {
    /// For our VTEP address and the VXLAN port of all.
    pub(super) fn new(local: IpAddr, port: u16) -> Self {
        Self { local, port, socket: None, failures: 0 }
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
        let socket = match self.socket.take() {
            Some(s) => s,
            None => open(self.local)?,
        };
        let sent = socket.send_to(&packet[..HEADER + frame.len()], SocketAddr::new(vtep, self.port));
        // An error of an earlier packet (port unreachable) is told here; the socket is as good as before.
        self.socket = Some(socket);
        sent.map(|_| ())
    }
}

fn open(local: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
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
