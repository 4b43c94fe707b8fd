//! The gateway over real QUIC on loopback.

mod accounts;
mod advertise;
mod aioquic;
mod calls;
mod door;
mod guard;
mod holding;
mod limits;
mod pubsub;
mod shutdown;
mod support;
