//! Nodes and their peers, over real QUIC on loopback.

#![allow(unreachable_pub, reason = "a test's modules are nobody's interface")]

mod calls;
mod connections;
mod refusals;
#[path = "../shared/mod.rs"]
mod shared;
mod support;
