//! Providers by name, each with an owner and a lease that expires.
//!
//! An entry exists until its owner withdraws it, its owner is removed, or its lease has expired, whichever comes first. A
//! look-up never returns an entry whose lease has expired, whether it has been swept or not; [`TtlRegistry::sweep`] releases
//! the memory. Leases are in the order of their expiry, so a sweep visits those that have expired and one more. It is due
//! every [`TtlRegistry::tick`], so no entry is held for longer than its lease and one tick.

mod actor_registry;
mod settings;
mod table;
#[cfg(test)]
mod tests;

pub use actor_registry::{ActorRegistry, AdvertiseError};
pub use settings::{RegistryEvent, RegistryRefusal, RegistrySettings};
pub use table::{Advertised, LeaseKey, TtlRegistry};
