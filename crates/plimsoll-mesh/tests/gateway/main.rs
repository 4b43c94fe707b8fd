//! The gateway over real QUIC on loopback.

mod calls;
mod support;
