//! A server that owns its state and serves in its own actor: OTP's gen_server.
//!
//! Use it where state is the point and each piece of work is short. Work that takes long, or builds up memory, belongs
//! into a [`CallServer`](crate::call::CallServer), which runs every call in a worker of its own.
//!
//! ```
//! use plimsoll::server::{self, BoxError, Reply, Server, Turn};
//!
//! struct Counter(u64);
//!
//! enum Ask { Next, Read }
//!
//! impl Server for Counter {
//!     type Args = u64;
//!     type Call = Ask;
//!     type Reply = u64;
//!     type Error = std::convert::Infallible;
//!     type Cast = u64;
//!     type Message = ();
//!
//!     async fn init(start: u64, _: &mut Turn<Self>) -> Result<Self, BoxError> {
//!         Ok(Counter(start))
//!     }
//!
//!     async fn call(&mut self, ask: Ask, reply: Reply<Self>, _: &mut Turn<Self>) -> Result<(), BoxError> {
//!         if let Ask::Next = ask {
//!             self.0 += 1;
//!         }
//!         reply.ok(self.0);
//!         Ok(())
//!     }
//!
//!     async fn cast(&mut self, add: u64, _: &mut Turn<Self>) -> Result<(), BoxError> {
//!         self.0 += add;
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let counter = server::builder::<Counter>(40).start().await?.client();
//! counter.cast(1)?;
//! assert_eq!(counter.call(Ask::Next).await, Ok(42));
//! assert_eq!(counter.call(Ask::Read).await, Ok(42));
//! # Ok(())
//! # }
//! ```

mod actor;
mod builder;
mod cast;
mod handling;
mod reply;
mod timers;
mod turn;
mod turns;

use std::future::Future;

pub use builder::{ServerBuilder, builder};
pub use cast::CastError;
pub use reply::Reply;
pub use timers::{TimerKey, TimersFull};
pub use turn::{Answer, Turn};
pub use turns::Serving;

/// An error that a server ends with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A server's behaviour. An `Err` or a panic from any of these ends the server with that reason, and every open call with
/// it; its supervisor decides what then.
pub trait Server: Sized + Send + 'static {
    /// What it starts with.
    type Args: Send + 'static;
    /// What it can be asked.
    type Call: Send + 'static;
    /// What it answers.
    type Reply: Send + 'static;
    /// What it answers instead; reaches the caller as [`CallError::App`](crate::call::CallError::App).
    type Error: Send + 'static;
    /// What it can be told without an answer.
    type Cast: Send + 'static;
    /// What it sends itself: continuations, timers, answers to its requests.
    type Message: Send + 'static;

    /// Makes the state. A failure is a failed start.
    fn init(args: Self::Args, turn: &mut Turn<Self>) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// Serves a call. The reply may be given later and elsewhere: keep the handle, or move it to another task.
    fn call(
        &mut self,
        call: Self::Call,
        reply: Reply<Self>,
        turn: &mut Turn<Self>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Takes a cast. Default: drops it.
    fn cast(&mut self, cast: Self::Cast, turn: &mut Turn<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = (cast, turn);
        async { Ok(()) }
    }

    /// Takes a message of its own. Default: drops it.
    fn message(
        &mut self,
        message: Self::Message,
        turn: &mut Turn<Self>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = (message, turn);
        async { Ok(()) }
    }

    /// Nothing came for as long as [`ServerBuilder::idle`] says: the time to shrink what is kept (OTP's hibernate). Called
    /// once, and again only after something came. Default: nothing.
    fn idle(&mut self, turn: &mut Turn<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = turn;
        async { Ok(()) }
    }

    /// The last call before an orderly end. Not called when the server fails or is killed. Default: nothing.
    fn stopped(&mut self, turn: &mut Turn<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = turn;
        async { Ok(()) }
    }

    /// The name under which a call is counted and timed. Default: `call` for all.
    fn method(_call: &Self::Call) -> &'static str {
        "call"
    }
}
