//! Everything that can change a node's state.

use crate::fabric::{KernelEvent, RowKey, WriteResult};
use crate::types::{ConnId, IfIndex, Mac, Vni};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// An input, to be given to `Node::handle` with the time of its receipt.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// From the kernel monitor or a resync.
    Kernel(KernelEvent),
    /// A frame seen inbound on an access port by the tap (ARP, RARP, ND).
    Frame {
        /// The port.
        port: IfIndex,
        /// From the destination MAC on, VLAN tag restored if the kernel had stripped one.
        bytes: Bytes,
    },
    /// Something happened on a transport connection.
    Conn {
        /// Which.
        conn: ConnId,
        /// What.
        event: ConnEvent,
    },
    /// How rows handed out by [`crate::fabric::Want::take_dirty`] ended.
    Written(Vec<(RowKey, WriteResult)>),
    /// A request from the API.
    Command {
        /// Returned in the [`super::Reply`].
        id: u64,
        /// Request.
        command: Command,
    },
    /// The underlay's path MTU to a VTEP was measured, or changed (PIT-11).
    PathMtu {
        /// Remote VTEP.
        vtep: IpAddr,
        /// Octets of the largest IP packet that arrives.
        mtu: u32,
    },
    /// Wall clock at this time, in seconds since 1970, for views only.
    Wall {
        /// Seconds since 1970.
        unix: u64,
    },
    /// Withdraw everything and close all sessions with Cease/2; `Output::Stopped` follows.
    Shutdown,
}

/// Life of a TCP connection. Its id is the driver's for accepted ones and the node's for dialled ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnEvent {
    /// A peer connected to us.
    Accepted {
        /// Peer.
        remote: SocketAddr,
        /// Our side.
        local: SocketAddr,
    },
    /// A connection that we dialled is up.
    Connected {
        /// Our side.
        local: SocketAddr,
    },
    /// A connection that we dialled did not come up.
    Failed {
        /// For people.
        why: String,
    },
    /// Octets arrived, at most 64 KiB.
    Bytes(Bytes),
    /// So many octets fit into the send path now (at most 64 KiB are unsent at any time).
    Room(usize),
    /// Closed by the peer or by an error. No further event follows; not sent after `Hangup`.
    Closed {
        /// For people.
        why: String,
    },
}

/// A request from the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One slice of a table.
    Show(Query),
    /// Events after number `after`, oldest first (`vtepd watch`).
    Events {
        /// Last event number seen; 0 for none.
        after: u64,
        /// At most so many.
        limit: usize,
    },
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Show {
    /// BGP neighbours.
    Neighbors,
    /// VNIs.
    Vnis,
    /// MACs, local and remote.
    Macs,
    /// IP bindings.
    Hosts,
    /// EVPN routes, received and originated.
    Routes,
    /// Moves.
    Moves,
    /// Wanted kernel rows.
    Kernel,
    /// One row: who we are, since when, counters.
    Status,
}

/// A page of a table: rows after `cursor`, at most `limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Table.
    pub show: Show,
    /// Only these.
    pub filter: MacFilter,
    /// `next` of the page before; `None` for the first.
    pub cursor: Option<String>,
    /// At most so many rows, and never more than 256.
    pub limit: usize,
}

/// Filter of `show`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacFilter {
    /// Only this VNI.
    pub vni: Option<Vni>,
    /// Only this MAC.
    pub mac: Option<Mac>,
    /// Only this IP.
    pub ip: Option<IpAddr>,
}
