//! A timeout that reads no clock unless the future has to wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// The time limit passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elapsed;

/// Runs `future` for at most `limit`. Unlike tokio's `timeout` it reads the clock and sets a timer only if the future is
/// pending, so a request that arrived in one packet costs neither.
///
/// Cancel safe if `future` is.
pub(super) async fn lazy_timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pending_future_ends_at_the_limit() {
        let start = tokio::time::Instant::now();
        let limit = Duration::from_secs(3);
        assert_eq!(lazy_timeout(limit, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(start.elapsed(), limit);
        assert_eq!(lazy_timeout(limit, sleep(Duration::from_secs(2))).await, Ok(()));
    }

    #[tokio::test]
    async fn a_ready_future_needs_no_time() {
        assert_eq!(lazy_timeout(Duration::ZERO, async { 7 }).await, Ok(7));
    }
}
