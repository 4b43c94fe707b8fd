//! The state machines behind Plimsoll's calls and mailboxes: synchronous, small, checked by loom.
//!
//! Nothing here parks a thread, reads a clock or knows of an executor: whoever waits leaves a waiter of a type of its
//! own (a [`std::task::Waker`] as a rule) and gets it back when there is something to do. Under `--cfg plimsoll_loom`
//! atomics and locks are loom's, and the models in `tests/loom` explore their interleavings.
//!
//! - [`cell`]: the settlement of one call.
//! - [`permits`]: admission by count and bytes, fair.
//! - [`slots`]: a table whose keys never resolve to a later entry.
//! - [`mailbox`]: a queue whose messages carry credits.
//! - [`latch`]: whether the last one has left after the door was closed.
//! - [`level`]: the latest level told, and whether it was heard.
//! - [`flow`]: counters whose sums hold in every reading.
//! - [`tide`]: how many may be inside, where one side comes in and another leaves.

mod sync;

pub mod cell;
pub mod flow;
pub mod latch;
pub mod level;
pub mod mailbox;
pub mod permits;
pub mod slots;
pub mod tide;
