//! The gateway over real QUIC on loopback.

mod admission;
mod advertise;
mod aioquic;
mod attacks;
mod backlogs;
mod byte_budgets;
mod calls;
mod client;
mod events;
mod frame_guard;
mod limits;
mod listings;
mod malformed;
mod migration;
mod pubsub;
mod reports;
mod shutdown;
mod streams;
mod support;
mod workers;
