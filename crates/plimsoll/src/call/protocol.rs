//! What can be asked of a server, apart from how it is served.

use plimsoll_sync::slots::SlotKey;

use super::Service;

/// The types of a conversation: what a caller sends and what it may get back.
///
/// Every [`Service`] is one. Clients, books and settlement are the same for all.
pub trait Protocol: Sized + Send + Sync + 'static {
    /// What a call carries.
    type Request: Send + 'static;
    /// What it is answered with.
    type Reply: Send + 'static;
    /// What it is answered with instead.
    type Error: Send + 'static;
    /// What can be sent without an answer.
    type Cast: Send + 'static;
    /// What a server adds to its call books.
    #[doc(hidden)]
    type Host: Host;
    /// Whether calls are served one at a time by the server's own actor, so that a cycle of calls waits for itself.
    #[doc(hidden)]
    const IN_TURN: bool;
}

/// What a server adds to its call books.
#[doc(hidden)]
pub trait Host: Send + Sync + 'static {
    /// Does what is due at tick `now`; when more will be, and whether the server's actor has something to look at.
    fn tick(&self, _now: u64) -> (Option<u64>, bool) {
        (None, false)
    }

    /// Whether the server's actor is at work: then it is that which settles a call whose reply handle was dropped.
    fn keeps_unreplied(&self, _call: SlotKey) -> bool {
        false
    }
}

/// The host of a [`Service`]: the service itself.
#[doc(hidden)]
#[derive(Debug)]
pub struct Hosted<S>(pub(crate) S);

impl<S: Service> Host for Hosted<S> {}

impl<S: Service> Protocol for S {
    type Request = S::Request;
    type Reply = S::Reply;
    type Error = S::Error;
    type Cast = std::convert::Infallible;
    type Host = Hosted<S>;
    const IN_TURN: bool = false;
}
