//! Calls: to a service of this node, or of another that offers it.
//!
//! [`ServiceTable`] is the table of what this node offers, each entry kept by its running call server. The [`Router`] is
//! where every edge ends: it serves a call here if it can, else asks a node that provides the service, and another one
//! when that is safe. Whom to ask (`choice`) and whether to ask again (`failover`) are rules without I/O.

mod failover;
mod overview;
mod provider_choice;
mod router;

pub use provider_choice::ProviderChoice;
pub use router::{Forward, Router};
