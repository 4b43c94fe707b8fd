//! Calls: to a service of this node, or of another that offers it.
//!
//! [`Services`] is the table of what this node offers, each entry kept by its running call server. The [`Router`] is
//! where every edge ends: it serves a call here if it can, else asks a node that provides the service, and another one
//! when that is safe. Whom to ask (`choice`) and whether to ask again (`failover`) are rules without I/O.

mod choice;
mod failover;
mod local;
mod overview;
mod router;
mod services;

pub use choice::Choice;
pub use router::{Forward, Router};
pub use services::{MAX_SERVICES, NotProvided, Registration, Served, Services, provide};
