//! The session's tests, from a table of the state machine to recorded peers.

mod kit;
mod open;
mod pair;
mod pairs;
mod table;
mod timers;
