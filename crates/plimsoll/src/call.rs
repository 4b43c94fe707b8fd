//! Calls that settle exactly once, each served by a short-lived worker of its own.
//!
//! A [`CallServer`] runs a [`Service`]: an actor that routes and never works. Admission is decided in the caller's task;
//! then the router starts a worker for the call, linked to the server, and is free for the next one. The reply goes from
//! the worker straight to the caller. Whatever ends the call settles it at once: reply, error, panic, deadline, the
//! caller's going away, the server's end. Each call ends in exactly one of these ways, and `started = settled + in
//! flight` holds in every reading of the counters.
//!
//! ```text
//! caller's task          router (actor)         worker (actor or task, linked)
//!   permit, slot, timer
//!   ---- call ----------> starts a worker ------> service.call(..)
//!   <------------------------------------------- reply, or the panic's message
//! ```

pub(crate) mod admission;
pub(crate) mod call_table;
pub(crate) mod caller_exit;
mod caller_index;
mod client;
pub(crate) mod counters;
pub(crate) mod deadline;
mod error;
mod protocol;
mod router;
mod server;
mod service;
pub(crate) mod settlement;
pub(crate) mod shared;
mod stream;
mod worker;

pub use caller_exit::OnCallerExit;
pub use client::{CallClient, Calling, multi_call};
pub use error::{CallError, Died, Overload};
pub use protocol::Protocol;
pub use server::{CallServer, CallServerBuilder, StartedServer};
pub use service::{CallContext, Service};
pub use stream::{NotTaken, Part, ReplyStream, Sink};
pub use worker::Worker;
