//! What a node holds, under loads that would make it grow: crowds, leases, churn, dying callers, a subscriber that stops.
//!
//! `PLIMSOLL_E2E=full` runs each scenario in full size; otherwise it is about a tenth, without claims about times. Each runs
//! once more against the build with controls, with the mechanism switched off that it is about, and is red then. The
//! figures go to `target/e2e/bounded.json`.

mod callers;
mod churn;
mod clients;
mod crowd;
#[path = "../mesh/harness.rs"]
#[allow(dead_code, reason = "shared with the test `mesh`, which needs other parts of it")]
mod harness;
mod leases;
mod left;
mod peers;
mod reader;
