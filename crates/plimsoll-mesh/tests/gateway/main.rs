//! The gateway over real QUIC on loopback.

mod aioquic;
mod calls;
mod door;
mod guard;
mod holding;
mod limits;
mod shutdown;
mod support;
