//! The gateway over real QUIC on loopback.

mod aioquic;
mod calls;
mod support;
