//! The admin side of a plimsoll service: its snapshot as JSON over a Unix socket that only its user can open.
//!
//! [`Console`] is a supervised child, and [`client::get`] reads from it. [`LossyWriter`] is for the log of such a service.
//!
//! | route | response |
//! |---|---|
//! | `GET /v1/admin/snapshot` | the value of the service's snapshot function, as JSON |
//!
//! One request a connection; at most [`MAX_CONNECTIONS`] at once, later ones wait in the socket's backlog.

pub mod client;
mod console;
mod lossy;
mod routes;
mod socket;

pub use console::{Console, MAX_CONNECTIONS, StartError};
pub use lossy::LossyWriter;
pub use socket::BindError;
