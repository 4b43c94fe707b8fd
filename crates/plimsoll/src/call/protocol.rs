//! What can be asked of a server, apart from how it is served.

use std::collections::BTreeMap;

use plimsoll_sync::slots::SlotKey;

use super::Service;
use super::shared::Shared;
use super::timing::Timings;
use crate::supervisor::CurrentMessage;

/// The types of a conversation: what a caller sends and what it may get back.
///
/// Every [`Service`] is one, and so is every [`Server`](crate::server::Server) as
/// [`Serving`](crate::server::Serving). Clients, books and settlement are the same for both.
pub trait Protocol: Sized + Send + Sync + 'static {
    /// What a call carries.
    type Request: Send + 'static;
    /// What it is answered with.
    type Reply: Send + 'static;
    /// What it is answered with instead.
    type Error: Send + 'static;
    /// What a server's actor is sent beside calls.
    #[doc(hidden)]
    type Post: Send + 'static;
    /// What a server keeps beside its call books.
    #[doc(hidden)]
    type Host: Send + Sync + 'static;
    /// Whether calls are served one at a time by the server's own actor, so that a circle of calls waits for itself.
    #[doc(hidden)]
    const IN_TURN: bool;

    /// Puts what is due at tick `now` into `due`; when more will be.
    #[doc(hidden)]
    fn tick(_host: &Self::Host, _now: u64, _due: &mut Vec<Self::Post>) -> Option<u64> {
        None
    }

    /// Whether the server itself will settle a call whose reply handle was dropped: it is at work on this very thread, or
    /// ending.
    #[doc(hidden)]
    #[allow(private_interfaces, reason = "not part of the public face")]
    fn keeps_unreplied(_shared: &Shared<Self>, _call: SlotKey) -> bool {
        false
    }

    /// Where the server's own actor writes down what it handles.
    #[doc(hidden)]
    fn current_message(_host: &Self::Host) -> Option<CurrentMessage> {
        None
    }

    /// Adds the host's own counters.
    #[doc(hidden)]
    fn describe(_host: &Self::Host, _counters: &mut BTreeMap<String, u64>) {}
}

/// The host of a [`Service`]: the service itself.
#[doc(hidden)]
#[derive(Debug)]
pub struct Hosted<S> {
    pub(crate) service: S,
    pub(crate) timings: Timings,
}

impl<S: Service> Protocol for S {
    type Request = S::Request;
    type Reply = S::Reply;
    type Error = S::Error;
    type Post = std::convert::Infallible;
    type Host = Hosted<S>;
    const IN_TURN: bool = false;

    fn describe(host: &Hosted<S>, counters: &mut BTreeMap<String, u64>) {
        host.timings.describe(counters);
    }
}
