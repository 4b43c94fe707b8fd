//! The state machines behind Plimsoll's calls and mailboxes: synchronous, small, checked by loom.
//!
//! Nothing here parks a thread, reads a clock or depends on an executor: a caller that waits leaves a waiter of its own type
//! (usually a [`std::task::Waker`]) and gets it back when there is something to do. Under `--cfg plimsoll_loom` atomics and
//! locks are loom's, and the models in `tests/loom` explore their interleavings.
//!
//! - [`cell`]: the settlement of one call.
//! - [`permits`]: admission by count and bytes, fair.
//! - [`slots`]: a table whose keys never resolve to a later entry.
//! - [`mailbox`]: a queue whose messages carry credits.
//! - [`level_cell`]: the latest level, and whether its reader has taken it.
//! - [`occupancy`]: how many items are inside, where one side enters and another leaves.

mod sync;

pub mod cell;
pub mod level_cell;
pub mod mailbox;
pub mod occupancy;
pub mod permits;
pub mod slots;
