//! What an actor under test did, collected and awaited without sleeping.

use std::fmt::Debug;
use std::time::Duration;

use tokio::sync::mpsc;

/// How long [`Probe::next`] waits. Under paused time it passes at once when nothing else can happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The receiving end, held by the test.
#[derive(Debug)]
pub struct Probe<T> {
    events: mpsc::Receiver<T>,
}

/// The sending end, held by the code under test. Cloning shares the probe.
#[derive(Debug)]
pub struct Mark<T> {
    events: mpsc::Sender<T>,
}

impl<T> Clone for Mark<T> {
    fn clone(&self) -> Self {
        Self { events: self.events.clone() }
    }
}

/// A probe for up to `capacity` events that wait to be looked at.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mark, mut probe) = plimsoll_testkit::probe::probe(8);
/// tokio::spawn(async move { mark.note("started") });
/// assert_eq!(probe.next().await, "started");
/// probe.assert_ended().await;
/// # }
/// ```
pub fn probe<T>(capacity: usize) -> (Mark<T>, Probe<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Mark { events: sender }, Probe { events: receiver })
}

impl<T> Mark<T> {
    /// Notes an event. The end of the test's interest is no failure.
    ///
    /// # Panics
    /// When more events wait than the probe was made for: the test does not look at what it asked for.
    pub fn note(&self, event: T) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            panic!("the probe is full: {} events wait", self.events.max_capacity());
        }
    }
}

impl<T: Debug> Probe<T> {
    /// The next event.
    ///
    /// # Panics
    /// When none comes within ten seconds, or every mark is gone.
    ///
    /// Cancel safe: no event is lost.
    pub async fn next(&mut self) -> T {
        match tokio::time::timeout(PATIENCE, self.events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("every mark of the probe is gone"),
            Err(_) => panic!("no event within {PATIENCE:?}"),
        }
    }

    /// The next `n` events.
    ///
    /// # Panics
    /// As [`next`](Self::next).
    ///
    /// Not cancel safe: events taken so far are lost.
    pub async fn take(&mut self, n: usize) -> Vec<T> {
        let mut events = Vec::with_capacity(n);
        for _ in 0..n {
            events.push(self.next().await);
        }
        events
    }

    /// What has been noted and not looked at yet.
    pub fn waiting(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Waits until every mark is gone, that is, until whatever held them was really dropped.
    ///
    /// # Panics
    /// When an event comes first, or a mark lives on for ten seconds.
    ///
    /// Cancel safe, but for an event that would have been a panic.
    pub async fn assert_ended(&mut self) {
        match tokio::time::timeout(PATIENCE, self.events.recv()).await {
            Ok(None) => {}
            Ok(Some(event)) => panic!("an event in place of the end: {event:?}"),
            Err(_) => panic!("a mark of the probe lived on for {PATIENCE:?}"),
        }
    }
}
