//! Servers that own their state and handle one message at a time: OTP's gen_server.
//!
//! Use one where state is the point and each piece of work is short. Work that takes long, or builds up memory, belongs
//! into a [`CallServer`](crate::call::CallServer), which runs every call in a worker of its own.
//!
//! A [`Server`] handles calls and returns each reply:
//!
//! ```
//! use plimsoll::BoxError;
//! use plimsoll::server::{self, Context, Server};
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
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), BoxError> {
//!     let counter = server::builder(Counter(40)).start().await?.client();
//!     assert_eq!(counter.call(2).await?, 42);
//!     Ok(())
//! }
//! ```
//!
//! A [`GenServer`] has all of OTP's callbacks: casts, messages to itself, an error of its own, replies that come later.
//! Every [`Server`] is a `GenServer` without those. A client of either is a [`ServerRef`].
//!
//! ```
//! use std::convert::Infallible;
//! use plimsoll::BoxError;
//! use plimsoll::server::{self, Context, GenServer, Reply, Response};
//!
//! /// A mailbox of one letter: a reader who comes first waits for the next letter.
//! #[derive(Default)]
//! struct LetterBox {
//!     letter: Option<String>,
//!     reader: Option<Reply<Self>>,
//! }
//!
//! impl GenServer for LetterBox {
//!     type Call = ();
//!     type Reply = String;
//!     type Error = Infallible;
//!     type Cast = String;
//!     type Message = ();
//!
//!     async fn call(&mut self, (): (), ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
//!         if let Some(letter) = self.letter.take() {
//!             return Ok(Response::Reply(letter));
//!         }
//!         self.reader = ctx.take_reply();
//!         Ok(Response::Later)
//!     }
//!
//!     async fn cast(&mut self, letter: String, _: &mut Context<Self>) -> Result<(), BoxError> {
//!         match self.reader.take() {
//!             Some(reader) => drop(reader.ok(letter)),
//!             None => self.letter = Some(letter),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let letters = server::builder(LetterBox::default()).start().await?.client();
//! let read = letters.call(());
//! letters.cast("dear all".to_owned())?;
//! assert_eq!(read.await?, "dear all");
//! # Ok(())
//! # }
//! ```
//!
//! # Stop
//!
//! A stop closes admission at once: later calls are [`ShuttingDown`](crate::call::CallError::ShuttingDown). The handler that
//! runs is finished, then [`stopping`](GenServer::stopping) runs, then what was queued is handled while the grace of the
//! server's [`ChildSpec`](crate::supervisor::ChildSpec) lasts; the rest is `ShuttingDown`. Then [`stopped`](GenServer::stopped)
//! runs, and replies that are still owed end as [`Died::Exit`](crate::call::Died::Exit) with `shutdown`.

mod actor;
mod builder;
mod context;
mod event_loop;
mod monitors;
mod protocol;
mod reply;
mod reply_drop;
mod server_ref;
mod timers;

use std::convert::Infallible;
use std::future::Future;

pub use builder::{ServerBuilder, builder};
pub use context::{Context, RequestResult};
pub use monitors::{Down, DownReason, MonitorRef, MonitorsFull};
pub use protocol::ServerProtocol;
pub use reply::{Reply, Response};
pub use server_ref::{CastError, ServerRef};
pub use timers::{TimerKey, TimersFull};

pub use crate::BoxError;

/// A server that handles calls and returns each reply.
///
/// An `Err` or a panic from any callback ends the server with that reason, and every open call with it; its supervisor
/// decides what happens then. For errors of single calls, casts, timers or late replies implement [`GenServer`].
pub trait Server: Sized + Send + 'static {
    /// A request.
    type Call: Send + 'static;
    /// Its reply.
    type Reply: Send + 'static;

    /// Runs before the start succeeds. A failure is a failed start. Default: nothing.
    fn init(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// Handles a call and returns the reply.
    fn call(
        &mut self,
        call: Self::Call,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<Self::Reply, BoxError>> + Send;

    /// A monitored actor has exited, see [`Context::monitor`]. Default: nothing.
    fn down(&mut self, down: Down, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = (down, ctx);
        async { Ok(()) }
    }

    /// Nothing came for as long as [`ServerBuilder::idle`] says, see [`GenServer::idle`]. Default: nothing.
    fn idle(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The last callback before an orderly end, see [`GenServer::stopped`]. Default: nothing.
    fn stopped(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The name under which a call is counted and timed. Default: `call` for all.
    fn method(_call: &Self::Call) -> &'static str {
        "call"
    }
}

/// A server with all of OTP's callbacks.
///
/// An `Err` or a panic from any of these ends the server with that reason, and every open call with it; its supervisor
/// decides what happens then.
pub trait GenServer: Sized + Send + 'static {
    /// A request.
    type Call: Send + 'static;
    /// Its reply.
    type Reply: Send + 'static;
    /// The error of a single call; reaches the caller as [`CallError::App`](crate::call::CallError::App).
    type Error: Send + 'static;
    /// A request without a reply.
    type Cast: Send + 'static;
    /// What it sends itself: continuations, timers, replies to its own requests.
    type Message: Send + 'static;

    /// Runs before the start succeeds. A failure is a failed start. Default: nothing.
    fn init(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// Handles a call: returns the reply, an error, or [`Response::Later`] after [`Context::take_reply`].
    fn call(
        &mut self,
        call: Self::Call,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<Response<Self>, BoxError>> + Send;

    /// Handles a cast. Default: drops it.
    fn cast(&mut self, cast: Self::Cast, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = (cast, ctx);
        async { Ok(()) }
    }

    /// Handles a message of its own. Default: drops it.
    fn message(
        &mut self,
        message: Self::Message,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = (message, ctx);
        async { Ok(()) }
    }

    /// A monitored actor has exited, see [`Context::monitor`] (OTP's `'DOWN'`). Default: nothing.
    fn down(&mut self, down: Down, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = (down, ctx);
        async { Ok(()) }
    }

    /// Nothing came for as long as [`ServerBuilder::idle`] says: the time to shrink what is kept (OTP's hibernate). Called
    /// once, and again only after something came. Default: nothing.
    fn idle(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The server was asked to stop and admits nothing any more. Runs once, before what is queued is handled: the place to
    /// send replies that are owed. Default: nothing.
    fn stopping(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The last callback before an orderly end (OTP's `terminate`). Not called when the server fails or is killed.
    /// Default: nothing.
    fn stopped(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The name under which a call is counted and timed. Default: `call` for all.
    fn method(_call: &Self::Call) -> &'static str {
        "call"
    }
}

impl<S: Server> GenServer for S {
    type Call = S::Call;
    type Reply = S::Reply;
    type Error = Infallible;
    type Cast = Infallible;
    type Message = Infallible;

    fn init(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        Server::init(self, ctx)
    }

    async fn call(&mut self, call: S::Call, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        Server::call(self, call, ctx).await.map(Response::Reply)
    }

    fn down(&mut self, down: Down, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        Server::down(self, down, ctx)
    }

    fn idle(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        Server::idle(self, ctx)
    }

    fn stopped(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), BoxError>> + Send {
        Server::stopped(self, ctx)
    }

    fn method(call: &S::Call) -> &'static str {
        <S as Server>::method(call)
    }
}
