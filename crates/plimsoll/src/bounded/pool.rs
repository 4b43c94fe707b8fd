//! A pool of handles, one for each key: it makes room by closing the idle one used longest ago.
//!
//! [`LruPool`] decides and does nothing: it is asked with the time in hand, and what has to be done it leaves in a queue
//! of [`PoolAction`]s that its owner works off. [`DialPool`] is the thin asynchronous shell around it for callers that
//! wait: for a connection to be made, or for one to come free.
//!
//! Each handle that was ever opened takes one *place* from before it is opened until it is closed, so that there are at
//! no time more open handles than places. A handle that is leased is never closed under its user: told to go, it first
//! leaves the index, so that nobody new finds it, and is closed when the last lease comes back. Rows keep their own
//! links, so that a use or an eviction visits a handful of rows however many there are.

mod actions;
mod dial;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

pub use actions::{CloseOutcome, Closing, Creation, EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal, WaitKey};
pub use dial::{Connect, DialLease, DialPool, Key, LeaseError};
pub use settings::{PoolSettings, Sharing};
pub use table::{LruPool, Requested, WhenFull};
