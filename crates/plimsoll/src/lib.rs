//! OTP supervision, supervised calls and bounded memory for long-running Rust services, on [`ractor`] and tokio.
//!
//! - [`supervisor`]: child specs, strategies, restart intensity, ordered stop.
//! - [`call`]: calls that settle exactly once, each served by a short-lived worker of its own.
//! - [`server`]: servers that own their state and handle one message at a time, as OTP's gen_server.
//! - [`mailbox`]: bounded mailboxes for ordinary actors.
//! - [`bounded`]: pools, registries, caches and queues that cannot grow without a limit.
//! - [`exit`]: why an actor or a task ended.
//! - [`inspect`]: one typed snapshot of the whole runtime.
//! - [`panics`]: opt-in places of panics in exit reasons.

#[cfg(panic = "abort")]
compile_error!(
    "plimsoll cannot supervise under `panic = \"abort\"`: a panicking child would end the process. \
     Remove `panic = \"abort\"` from the profile."
);

pub mod bounded;
pub mod call;
mod current_server;
pub mod exit;
mod exit_monitor;
pub mod inspect;
pub mod mailbox;
pub mod panics;
pub mod server;
pub mod supervisor;
mod timer_wheel;
mod wait_graph;

pub use ractor;
pub use supervisor::BoxError;
