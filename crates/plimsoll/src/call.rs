//! Calls that settle exactly once, each served by a short-lived worker of its own.
//!
//! A [`CallServer`] runs a [`Service`]: an actor that starts a worker for each call and serves none itself. Admission is
//! decided in the caller's task; then the server starts a worker for the call, linked to the server, and is free for the next
//! one. The reply goes from the worker straight to the caller. A call settles at once when it ends: with a reply, an error, a
//! panic, its deadline, its caller's exit or the server's end. Each call ends in exactly one of these ways, and
//! `started = settled + in flight` holds in every reading of the counters.
//!
//! ```
//! use std::convert::Infallible;
//! use plimsoll::BoxError;
//! use plimsoll::call::{CallContext, CallServer, Service};
//!
//! struct WordCount;
//!
//! impl Service for WordCount {
//!     type Request = String;
//!     type Reply = usize;
//!     type Error = Infallible;
//!
//!     async fn call(&self, _: CallContext, text: String) -> Result<usize, Infallible> {
//!         Ok(text.split_whitespace().count())
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), BoxError> {
//!     let server = CallServer::builder(WordCount).max_in_flight(100).start().await?;
//!     assert_eq!(server.client().call("to be or not".to_owned()).await?, 4);
//!     Ok(())
//! }
//! ```
//!
//! ```text
//! caller's task          router (actor)         worker (actor or task, linked)
//!   permit, slot, timer
//!   ---- call ----------> starts a worker ------> service.call(..)
//!   <------------------------------------------- reply, or the panic's message
//! ```
//!
#![doc = include_str!("../../../docs/semantics.md")]

mod admission;
pub(crate) mod call_table;
mod caller_exit;
mod caller_index;
mod calling;
mod child_client;
mod client;
pub(crate) mod counters;
pub(crate) mod deadline;
mod error;
pub(crate) mod limits;
mod protocol;
mod router;
mod server;
mod service;
pub(crate) mod settlement;
pub(crate) mod shared;
mod stream;
pub(crate) mod target;
mod worker;

pub use calling::Calling;
pub use client::{CallClient, multi_call};
pub use error::{CallError, Died, Overload};
pub use limits::OnCallerExit;
pub use protocol::Protocol;
pub use server::{CallServer, CallServerBuilder, StartedServer};
pub use service::{CallContext, Service};
pub use stream::{NotTaken, Part, ReplyStream, Sink};
pub use worker::Worker;
