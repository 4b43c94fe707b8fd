//! What the tests of plimsoll, and of services built on it, share.
//!
//! - [`probe`]: what an actor under test did, collected and awaited without sleeping.
//! - [`gate`]: work that waits until the test lets it go.
//! - [`law`]: the sums that hold at all times, such as `started = settled + in flight`.
//! - [`ledger`]: every call by its own id: settled once, run at most once.
//! - [`census`]: the actors below a root, and the runtime's tasks, by kind.
//! - [`process`]: other processes: run within a time limit, their descriptors and memory.
//! - [`report`]: the results of end-to-end scenarios as JSON.

pub mod census;
pub mod gate;
pub mod law;
pub mod ledger;
pub mod probe;
pub mod process;
pub mod report;
