//! OTP supervision, supervised calls and bounded memory for long-running Rust services, on [`ractor`] and tokio.
//!
//! - [`supervisor`]: child specs, strategies, restart intensity, ordered stop.
//! - [`call`]: calls that settle exactly once, each served by a short-lived worker of its own.
//! - [`server`]: servers that own their state and handle one message at a time, as OTP's gen_server.
//! - [`mailbox`]: bounded mailboxes for ordinary actors.
//! - [`bounded`]: pools, registries, caches and queues that cannot grow without a limit.
//! - [`exit`]: why an actor or a task ended.
//! - [`inspect`]: one typed snapshot of the whole runtime.
//! - [`panics`]: opt-in locations of panics in exit reasons.
//!
//! # A tour
//!
//! A [`Supervisor`](supervisor::Supervisor) starts its children, restarts those that end, and stops all in reverse order.
//! By default a child is [permanent](supervisor::Restart::Permanent): it is restarted also after a normal end. After more
//! than one restart in five seconds the supervisor gives up, and [`run_until`](supervisor::SupervisorRef::run_until)
//! returns. A child is an actor,
//! an async function or another supervisor:
//!
//! ```
//! use std::time::Duration;
//! use plimsoll::supervisor::{Backoff, BoxError, CancellationToken, ChildSpec, Supervisor};
//!
//! async fn sweeper(stop: CancellationToken) -> Result<(), BoxError> {
//!     stop.cancelled().await;
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let tree = Supervisor::builder("app")
//!     .intensity(3, Duration::from_secs(10))
//!     .child(ChildSpec::task("sweeper", sweeper).backoff(Backoff::constant(Duration::from_millis(100))))
//!     .start()
//!     .await?;
//! assert!(tree.stop().await?.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! A [`Server`](server::Server) owns its state and handles one call at a time. An `Err` from `call` ends the server; errors
//! of single calls belong into the reply. Its client survives restarts, the state does not:
//!
//! ```
//! use plimsoll::server::{self, Context, Server};
//! use plimsoll::supervisor::{BoxError, ChildSpec, Supervisor};
//!
//! struct Counter(u64);
//!
//! impl Server for Counter {
//!     type Call = u64;
//!     type Reply = u64;
//!
//!     async fn call(&mut self, add: u64, _: &mut Context<Self>) -> Result<u64, BoxError> {
//!         self.0 += add;
//!         Ok(self.0)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let counter = ChildSpec::new("counter", |parent| server::builder(Counter(40)).start_linked(parent));
//! let tree = Supervisor::builder("app").child(counter).start().await?;
//! let counter = tree.server_ref::<Counter>("counter")?;
//! assert_eq!(counter.call(2).await?, 42);
//! # tree.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`SupervisorRef::child`](supervisor::SupervisorRef::child) returns one incarnation. References to the child survive its
//! restarts and find the incarnation that runs, by a path of ids:
//! [`child_handle`](supervisor::SupervisorRef::child_handle) for messages,
//! [`server_ref`](supervisor::SupervisorRef::server_ref) and [`call_client`](supervisor::SupervisorRef::call_client) for
//! calls. While none runs a call fails with [`Restarting`](call::CallError::Restarting), or waits with
//! [`wait_for_restart`](call::CallClient::wait_for_restart). A call that a server had begun when it ended is not repeated.
//! Children that are started while the program runs belong to a
//! [`DynamicSupervisor`](supervisor::DynamicSupervisor).
//!
//! A [`CallServer`](call::CallServer) runs each call in a worker of its own, so that a panic or a large buffer ends with its
//! call. What does not fit is refused at once:
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
//!         assert!(!text.is_empty(), "no text");
//!         Ok(text.split_whitespace().count())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let words = CallServer::builder(WordCount).max_in_flight(100).start().await?.client();
//! assert!(words.call(String::new()).await.is_err()); // this worker panics, and no other
//! assert_eq!(words.call("to be or not".to_owned()).await?, 4);
//! # Ok(())
//! # }
//! ```
//!
//! Bounded parts have a cap, a typed refusal, and counters that can be read at any time:
//!
//! ```
//! use bytes::Bytes;
//! use plimsoll::BoxError;
//! use plimsoll::bounded::{ByteCap, Delivery, Fanout, FanoutCaps};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let prices = Fanout::new("prices", FanoutCaps { backlog: ByteCap::of::<65_536>(), ..FanoutCaps::default() });
//! let mut reader = prices.subscribe(Delivery::Every)?;
//! prices.publish(Bytes::from_static(b"42"))?;
//! assert_eq!(reader.next().await, Some(Ok(Bytes::from_static(b"42"))));
//! # Ok(())
//! # }
//! ```
//!
//! [`SupervisorRef::inspect`](supervisor::SupervisorRef::inspect) returns the whole tree with the counters of its parts. The
//! rules are in the pages of [`supervisor`](supervisor#supervision) and [`call`](call#calls-and-messages-what-happens-when).
//! Each example in the package's `examples` folder is one file.

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
mod serialize_error;
pub mod server;
pub mod supervisor;
mod timer_wheel;
mod wait_graph;

pub use ractor;
pub use supervisor::BoxError;
