//! What an actor has in hand, for the report of a stop that it holds up.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;

/// Where an actor writes down the message that it handles, so that a [`ShutdownReport`](super::ShutdownReport) can name it
/// should the actor have to be killed, or not end at all: [`Child::in_hand`](super::Child::in_hand).
///
/// ractor tells nobody which message an actor handles. A [`Server`](crate::server::Server) writes its own down.
///
/// ```
/// use plimsoll::supervisor::InHand;
///
/// let in_hand = InHand::default();
/// {
///     let _resize = in_hand.hold("resize");
///     assert_eq!(in_hand.held().as_deref(), Some("resize"));
/// }
/// assert_eq!(in_hand.held(), None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct InHand(Arc<Mutex<Option<Cow<'static, str>>>>);

impl InHand {
    /// Writes down a message until the guard is dropped.
    ///
    /// Cost: one lock that nobody else takes but a supervisor that kills or reports; no allocation for a literal.
    pub fn hold(&self, message: impl Into<Cow<'static, str>>) -> Holding<'_> {
        *self.0.lock() = Some(message.into());
        Holding(self)
    }

    /// The message in hand.
    pub fn held(&self) -> Option<Arc<str>> {
        self.0.lock().as_deref().map(Arc::from)
    }
}

/// A message is in hand while this lives.
#[derive(Debug)]
#[must_use = "the message is in hand until this is dropped"]
pub struct Holding<'a>(&'a InHand);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}
