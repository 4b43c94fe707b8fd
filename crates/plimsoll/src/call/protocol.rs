//! The types of the calls to a server, apart from how they are served.

use plimsoll_sync::slots::SlotKey;

use crate::inspect::Metrics;
use crate::supervisor::{CurrentMessage, StopDeadline};

/// The types of a conversation: what a caller sends and what it may get back.
///
/// Every [`Service`](super::Service) is one, and so is every [`GenServer`](crate::server::GenServer) as
/// [`ServerProtocol`](crate::server::ServerProtocol). Clients, call table and settlement are the same for both.
pub trait Protocol: Sized + Send + Sync + 'static {
    /// What a call carries.
    type Request: Send + 'static;
    /// The reply.
    type Reply: Send + 'static;
    /// The service's own error, in place of a reply.
    type Error: Send + 'static;
    /// What a server is sent beside calls.
    #[doc(hidden)]
    type Message: Send + 'static;
    /// What a server keeps beside its call table.
    #[doc(hidden)]
    type Host: Send + Sync + 'static;
    /// Whether calls are served one at a time by the server's own actor, so that a cycle of calls waits for itself.
    #[doc(hidden)]
    const IN_TURN: bool;

    /// Adds the messages that are due at tick `now` to `events` and returns the tick of the next one.
    #[doc(hidden)]
    fn tick(_host: &Self::Host, _now: u64, _events: &mut Vec<Self::Message>) -> Option<u64> {
        None
    }

    /// Whether the server itself will settle `call`, whose reply handle was dropped: it is at work on this very thread, or
    /// ending. `server` is its identity; `exited` says whether its exit reason is known.
    #[doc(hidden)]
    fn keeps_unreplied(_host: &Self::Host, _server: usize, _exited: bool, _call: SlotKey) -> bool {
        false
    }

    /// What the server handles now.
    #[doc(hidden)]
    fn current_message(_host: &Self::Host) -> Option<CurrentMessage> {
        None
    }

    /// The time by which a server that stops will be killed.
    #[doc(hidden)]
    fn stop_deadline(host: &Self::Host) -> StopDeadline;

    /// Adds the host's own counters.
    #[doc(hidden)]
    fn describe(_host: &Self::Host, _metrics: &mut Metrics) {}
}
