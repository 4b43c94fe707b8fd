//! Providers by name, each with an owner and a lease that runs out.
//!
//! An entry lives until its owner withdraws it, its owner is gone, or its lease has run out, whichever comes first. A
//! look-up never returns an entry whose lease has run out, whether it has been swept or not; [`TtlRegistry::sweep`] gives
//! the memory back. Leases stand in the order in which they run out, so that a sweep looks at those that have and at one
//! more. It is due every [`TtlRegistry::tick`], so that nothing is held for longer than its lease and one tick.

mod settings;
mod table;
#[cfg(test)]
mod tests;

pub use settings::{RegistryEvent, RegistryRefusal, RegistrySettings};
pub use table::{Advertised, LeaseKey, TtlRegistry};
