//! Calls: to a service of this node, or of another node that offers it.
//!
//! The [`Router`] is where every edge ends: it serves a call here if it can, else calls a node that provides the service, and
//! another one when that is safe. Which provider to call (`provider_choice`) and whether to call another (`failover`) are rules
//! without I/O.

mod failover;
mod overview;
mod provider_choice;
mod round_robin;
mod router;

pub use provider_choice::ProviderChoice;
pub use router::{Forward, Router};
