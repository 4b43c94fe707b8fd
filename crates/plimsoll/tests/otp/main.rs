//! OTP's supervisor, case by case: what `supervisor_SUITE` checks, what OTP itself answered, and what misbehaves.

mod administration;
mod blocked_threads;
mod dynamic;
mod ends;
mod half_starts;
mod ignored_starts;
mod intensity;
mod kills;
mod links;
mod many_at_once;
mod names;
mod nested;
mod operations_meanwhile;
mod own_failures;
mod panics;
mod recorded;
mod retries;
mod significant;
mod specs;
mod start;
mod start_failures;
mod stop;
mod strategies;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod trees;
