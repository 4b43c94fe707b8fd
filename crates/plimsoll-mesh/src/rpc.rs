//! Calls: to a service of this node, or of another node that offers it.
//!
//! The [`Router`] serves a call here if this node offers the service, else calls a node that does, and another one when that
//! is safe. Which provider to call (`provider_choice`) and whether to call another (`failover`) are rules
//! without I/O.

mod failover;
mod overview;
mod provider_choice;
mod round_robin;
mod router;

pub use provider_choice::ProviderChoice;
pub use router::{Forward, Router};
