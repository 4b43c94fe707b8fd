//! Connecting to a host that has several addresses, as RFC 8305 ("Happy Eyeballs") does: attempts start one after the other, and
//! the first that succeeds wins.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// How long an attempt runs alone: the connection attempt delay of RFC 8305, section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to the first of these addresses that works. An attempt that fails starts the next one at once.
///
/// # Errors
/// What each address failed with, when all have.
///
/// Cancel safe: all attempts end.
pub(super) async fn connect<T, E>(
    addresses: &[SocketAddr],
    attempt: impl AsyncFn(SocketAddr) -> Result<T, E>,
) -> Result<T, Vec<(SocketAddr, E)>> {
    let attempt = &attempt;
    let (mut rest, mut running, mut failed) = (addresses.iter().copied(), FuturesUnordered::new(), Vec::new());
    loop {
        if let Some(address) = rest.next() {
            running.push(async move { (address, attempt(address).await) });
        }
        tokio::select! {
            Some((address, result)) = running.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => failed.push((address, error)),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if rest.len() > 0 => {}
            else => return Err(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect()
    }

    /// Connects to `count` addresses: which succeeded or which failed, how long it took, and which were tried.
    async fn outcome(
        count: u16,
        attempt: impl AsyncFn(u16) -> Result<u16, &'static str>,
    ) -> (Result<u16, Vec<u16>>, u128, Vec<u16>) {
        let (began, tried) = (Instant::now(), RefCell::new(Vec::new()));
        let addresses = addresses(count);
        let result = connect(&addresses, async |address: SocketAddr| {
            tried.borrow_mut().push(address.port());
            attempt(address.port()).await
        });
        let result = result.await.map_err(|failed| failed.iter().map(|(address, _)| address.port()).collect());
        (result, began.elapsed().as_millis(), tried.take())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_delays_the_next_one_by_a_quarter_of_a_second() {
        let silent_first = outcome(3, async |port| if port == 1 { pending().await } else { Ok(port) });
        assert_eq!(silent_first.await, (Ok(2), 250, vec![1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_delays_nothing() {
        let failing_first = outcome(3, async |port| if port == 3 { Ok(port) } else { Err("refused") });
        assert_eq!(failing_first.await, (Ok(3), 0, vec![1, 2, 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_attempt_may_still_win() {
        let slow_first = outcome(2, async |port| {
            if port == 1 {
                sleep(Duration::from_millis(300)).await;
                return Ok(port);
            }
            pending().await
        });
        assert_eq!(slow_first.await, (Ok(1), 300, vec![1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_each_has_its_error() {
        let failing = outcome(2, async |port| {
            sleep(Duration::from_millis(if port == 1 { 400 } else { 10 })).await;
            Err("no response")
        });
        assert_eq!(failing.await, (Err(vec![2, 1]), 400, vec![1, 2]));
        assert_eq!(outcome(0, async |port| Ok(port)).await.0, Err(vec![]));
    }
}
