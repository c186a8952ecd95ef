//! The session's tests, from a table of the state machine to recorded peers.

mod graceful;
mod hostile;
mod kit;
mod laws;
mod open;
mod pair;
mod pairs;
mod pcap;
mod policy;
mod replay;
mod send_hold;
mod table;
mod timers;
