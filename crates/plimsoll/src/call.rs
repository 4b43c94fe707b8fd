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

mod admit;
mod binding;
pub(crate) mod book;
mod callers;
mod client;
pub(crate) mod clock;
mod context;
mod counters;
mod door;
mod error;
mod layers;
mod protocol;
mod request;
mod router;
mod server;
mod service;
pub(crate) mod shared;
mod started;
mod stream;
pub(crate) mod timing;
mod waits;
pub(crate) mod watch;
pub(crate) mod wheel;
pub(crate) mod work;
mod worker;

pub use client::{CallClient, Calling};
pub use context::CallContext;
pub use error::{CallError, Died, Overload};
pub use protocol::Protocol;
pub use request::multi_call;
pub use server::{CallServer, CallServerBuilder};
pub use service::Service;
pub use started::StartedServer;
pub use stream::{NotTaken, Part, ReplyStream, Sink};
pub use worker::Worker;
