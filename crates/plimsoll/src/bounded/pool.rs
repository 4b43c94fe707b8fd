//! A pool of handles by key, which makes room by closing the least recently used idle handle.
//!
//! [`LruPool`] decides and performs nothing: it takes the time as an argument and leaves what has to be done in a queue of
//! [`PoolAction`]s, which its owner performs. [`DialPool`] is the thin asynchronous shell around it for callers that wait,
//! for a connection to be made or for one to be released.
//!
//! Each open handle takes one *place*, from before it is opened until it is closed, so there are never more open handles
//! than places. A leased handle is never closed: when it is retired it leaves the index, so that no caller finds it, and it
//! is closed when the last lease is released. Rows hold their own list links, so a use or an eviction visits a few rows
//! however many there are.

mod action;
mod dial;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod waiters;

pub use action::{CloseOutcome, Closing, Creation, EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal, WaitKey};
pub use dial::{Connect, DialLease, DialPool, Exclusive, Key, LeaseError, LeaseMode, Shared};
pub use settings::{PoolSettings, Sharing};
pub use table::{LruPool, Requested, WhenFull};
