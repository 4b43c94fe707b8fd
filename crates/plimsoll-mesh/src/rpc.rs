//! Calls: to a service of this node, or of another that offers it.
//!
//! [`Services`] is the table of what this node offers, each entry kept by its running call server. The [`Router`] is
//! where every edge ends: it serves a call here if it can.

mod local;
mod router;
mod services;

pub use router::Router;
pub use services::{MAX_SERVICES, NotProvided, Registration, Served, Services, provide};
