//! Several whole nodes but for the gateway: directory, peers and router, over real QUIC on loopback.

#![allow(unreachable_pub, reason = "a test's modules are nobody's interface")]

mod directory;
mod reports;
mod routing;
#[path = "../shared/mod.rs"]
mod shared;
mod support;
