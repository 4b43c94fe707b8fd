//! A time limit that costs nothing when it is not needed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// The time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeUp;

/// Runs `work`, for `limit` at most. Unlike tokio's `timeout` it reads the clock and sets a timer only if `work` has to
/// wait, which a request that came in one packet never does.
pub(super) async fn within<F: Future>(limit: Duration, work: F) -> Result<F::Output, TimeUp> {
    let mut work = std::pin::pin!(work);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx).map(|()| Err(TimeUp))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_waits_too_long_is_given_up_in_time() {
        let began = tokio::time::Instant::now();
        let limit = Duration::from_secs(3);
        assert_eq!(within(limit, std::future::pending::<()>()).await, Err(TimeUp));
        assert_eq!(began.elapsed(), limit);
        assert_eq!(within(limit, sleep(Duration::from_secs(2))).await, Ok(()));
    }

    #[tokio::test]
    async fn work_that_is_done_at_once_needs_no_time() {
        assert_eq!(within(Duration::ZERO, async { 7 }).await, Ok(7));
    }
}
