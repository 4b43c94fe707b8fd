//! Nodes as real processes: called, killed, flooded and left alone.
//!
//! `PLIMSOLL_E2E=full` runs each scenario in full size; otherwise it is about a tenth. The figures go to
//! `target/e2e/mesh.json`.

mod allocator;
mod calls;
mod census;
mod crowd;
mod frame_guard;
mod harness;
mod killed;
mod program;
mod reports;
mod settings;
mod tour;
mod trust;
mod vanished;
