//! Faults of supervision that were found from outside, each with its siblings: lost exits, operations during delays and
//! hanging starts, actors of abandoned starts, and waits for oneself.

mod abandoned_starts;
mod delays;
mod hanging_starts;
mod killed;
mod late_outcomes;
mod left_callers;
mod locked_values;
mod self_waits;
mod stage;
mod stress;
#[path = "../support/mod.rs"]
mod support;
