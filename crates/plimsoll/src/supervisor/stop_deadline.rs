//! The time by which a child that is stopping will be killed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

/// Where a supervisor writes when a child that it asks to stop will be killed, so that the child can end in order before
/// that: [`Child::stop_deadline`](super::Child::stop_deadline).
///
/// Servers use it: they serve their queue until shortly before this time, end the rest as
/// [`ShuttingDown`](crate::call::CallError::ShuttingDown) and run their last hook.
///
/// ```
/// use plimsoll::supervisor::StopDeadline;
///
/// let deadline = StopDeadline::default();
/// assert_eq!(deadline.get(), None, "the child has not been asked to stop");
/// ```
#[derive(Debug, Clone, Default)]
pub struct StopDeadline(Arc<OnceLock<Instant>>);

impl StopDeadline {
    /// When the child will be killed; `None` before its supervisor asks it to stop, and when it never kills it.
    pub fn get(&self) -> Option<Instant> {
        self.0.get().copied()
    }

    /// The child will be killed `grace` from now; the first call counts. A time that the clock cannot express is none.
    pub(crate) fn set_after(&self, grace: Duration) {
        if let Some(deadline) = Instant::now().checked_add(grace) {
            let _ = self.0.set(deadline);
        }
    }

    /// The time until which work may begin, asked at `now`: a tenth of what is left, 1 to 500 ms, is kept for the end.
    pub(crate) fn serve_until(&self, now: Instant) -> Option<Instant> {
        let deadline = self.get()?;
        let left = deadline.saturating_duration_since(now);
        let margin = (left / 10).clamp(Duration::from_millis(1), Duration::from_millis(500));
        Some(deadline.checked_sub(margin).unwrap_or(now))
    }
}
