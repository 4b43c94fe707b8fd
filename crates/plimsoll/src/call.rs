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
mod book;
mod callers;
mod client;
mod clock;
mod context;
mod counters;
mod door;
mod error;
mod protocol;
mod router;
mod server;
mod service;
mod shared;
mod started;
mod waits;
mod wheel;
mod work;
mod worker;

pub use client::{CallClient, Calling};
pub use context::CallContext;
pub use error::{CallError, Died, Overload};
pub use protocol::Protocol;
pub use server::{CallServer, CallServerBuilder};
pub use service::Service;
pub use started::StartedServer;
pub use worker::Worker;
