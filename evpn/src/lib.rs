//! BGP EVPN (RFC 7432, RFC 8365) for VXLAN tunnel endpoints, as a pure library.
//!
//! Bytes, kernel facts, commands and time go in; bytes, wanted forwarding state and events come out.
//! No sockets, no clock, no tasks: `Instant::now()` does not occur here, so everything that the library
//! decides can be recorded, replayed, simulated and fuzzed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | MAC, VNI, ESI, RD, sequence number, time |
//! | [`wire`] | every BGP message and attribute, EVPN route types, ARP/RARP/ND frames |
//! | [`session`] | the RFC 4271 state machine of one neighbour |
//! | [`bfd`] | bidirectional forwarding detection: is a neighbour still there, in milliseconds |
//! | [`rib`] | Adj-RIB-In, import by route target, best path, Adj-RIB-Out |
//! | [`mobility`] | whose MAC it is: sequence numbers, claims, the late-frame rule |
//! | [`hosts`] | what is known about MACs and IPs behind local ports and remote VTEPs |
//! | [`fabric`] | the kernel rows we want, and what the kernel says it has |
//! | [`node`] | the whole VTEP as one state machine |
#![forbid(unsafe_code)]

pub mod bfd;
pub mod fabric;
pub mod hosts;
pub mod mobility;
pub mod node;
pub mod rib;
pub mod session;
pub mod types;
pub mod wire;
