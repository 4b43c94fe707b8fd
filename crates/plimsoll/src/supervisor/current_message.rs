//! The message that an actor handles, for the report of a stop that it delays.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;

/// The message that an actor handles now, shared with its supervisor by
/// [`Child::current_message`](super::Child::current_message).
///
/// A [`ShutdownReport`](super::ShutdownReport) names this message when the actor has to be killed, or does not end after
/// a kill. ractor does not expose which message an actor handles, so the actor sets it here. A
/// [`Server`](crate::server::Server) does so by itself.
///
/// ```
/// use plimsoll::supervisor::CurrentMessage;
///
/// let current = CurrentMessage::default();
/// {
///     let _resize = current.set("resize");
///     assert_eq!(current.get().as_deref(), Some("resize"));
/// }
/// assert_eq!(current.get(), None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct CurrentMessage(Arc<Mutex<Option<Cow<'static, str>>>>);

impl CurrentMessage {
    /// Sets the message until the guard is dropped.
    ///
    /// Cost: one lock, contended only by a supervisor that kills the actor or writes a report; no allocation for a literal.
    pub fn set(&self, message: impl Into<Cow<'static, str>>) -> CurrentMessageGuard<'_> {
        *self.0.lock() = Some(message.into());
        CurrentMessageGuard(self)
    }

    /// The current message, `None` between messages.
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.lock().as_deref().map(Arc::from)
    }
}

/// Clears the [`CurrentMessage`] on drop.
#[derive(Debug)]
#[must_use = "the message is current until this is dropped"]
pub struct CurrentMessageGuard<'a>(&'a CurrentMessage);

impl Drop for CurrentMessageGuard<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}
