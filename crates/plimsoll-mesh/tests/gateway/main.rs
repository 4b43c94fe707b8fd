//! The gateway over real QUIC on loopback.

mod admission;
mod advertise;
mod aioquic;
mod byte_budgets;
mod calls;
mod frame_guard;
mod limits;
mod pubsub;
mod shutdown;
mod streams;
mod support;
