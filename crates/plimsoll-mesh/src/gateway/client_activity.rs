//! What one client does: its requests in flight, when it was last active, how many requests it cancelled, how often its
//! address changed. Decides when the client is to be disconnected.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use h3::error::Code as H3Code;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::origin_requests::{OriginFull, OriginShare};
use super::unacknowledged::Unacknowledged;
use crate::problem::{Code, Problem};

/// Requests of one client over which cancellations are counted.
pub(super) const CANCEL_WINDOW: usize = 200;

/// A request that a client ends itself after this time is not counted as cancelled: a subscription ends in no other way.
const LONG_REQUEST: Duration = Duration::from_secs(1);

/// Why the gateway disconnects a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disconnect {
    /// Over half of its last requests were cancelled.
    CancelledRequests,
    /// Its address changed too often.
    PathChanges,
    /// The gateway is full, and it was idle for longest.
    Idle,
}

impl Disconnect {
    pub(super) const ALL: [Self; 3] = [Self::CancelledRequests, Self::PathChanges, Self::Idle];

    /// The code of the close.
    pub(super) const fn code(self) -> H3Code {
        match self {
            Self::CancelledRequests | Self::PathChanges => H3Code::H3_EXCESSIVE_LOAD,
            Self::Idle => H3Code::H3_NO_ERROR,
        }
    }

    /// The reason of the close.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::CancelledRequests => "over half of the last 200 requests were cancelled",
            Self::PathChanges => "too many address changes in a minute",
            Self::Idle => "the gateway is full and this client was idle for longest",
        }
    }

    /// The name of its counter.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::CancelledRequests => "cancelled_requests",
            Self::PathChanges => "path_changes",
            Self::Idle => "idle",
        }
    }
}

/// The activity of one client. Shared by its requests, the driver of its connection and the table of sessions.
#[derive(Debug)]
pub(super) struct ClientActivity {
    opened: Instant,
    /// Milliseconds after `opened` of the end of the last request.
    last_active: AtomicU64,
    in_flight: AtomicU32,
    max_in_flight: u32,
    origin: OriginShare,
    cancelled: Mutex<CancelWindow>,
    path_changes: Mutex<PathChanges>,
    max_path_changes: u32,
    /// Small responses that it has not acknowledged.
    pub(super) unacknowledged: Unacknowledged,
    connection: quinn::Connection,
    disconnect: OnceLock<Disconnect>,
    disconnected: CancellationToken,
}

impl ClientActivity {
    pub(super) fn new(
        connection: quinn::Connection,
        origin: OriginShare,
        max_in_flight: u32,
        max_path_changes: u32,
    ) -> Self {
        Self {
            opened: Instant::now(),
            last_active: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            max_in_flight,
            origin,
            cancelled: Mutex::default(),
            path_changes: Mutex::default(),
            max_path_changes,
            unacknowledged: Unacknowledged::default(),
            connection,
            disconnect: OnceLock::new(),
            disconnected: CancellationToken::new(),
        }
    }

    /// Begins a request. Whether it is one too many is decided when its head is read.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        let excess = self.in_flight.fetch_add(1, Relaxed) >= self.max_in_flight;
        let origin = self.origin.begin();
        ActiveRequest { activity: Arc::clone(self), excess, origin, ended_by_client: None }
    }

    /// For how long the client has had no request; `None` while it has one.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        let last = self.opened + Duration::from_millis(self.last_active.load(Relaxed));
        Some(now.saturating_duration_since(last))
    }

    /// Records the end of a request. The client is disconnected when too many were cancelled.
    pub(super) fn record(&self, cancelled: bool) {
        if self.cancelled.lock().push(cancelled) {
            self.disconnect(Disconnect::CancelledRequests);
        }
    }

    /// Checks the client, once a second: its address changes, and its unacknowledged responses. Returns how many responses
    /// were reset.
    pub(super) fn check(&self, now: Instant, response_timeout: Duration) -> usize {
        // A change of address sends a challenge on the new path and one on the old path.
        self.record_path_changes(self.connection.stats().frame_tx.path_challenge.div_ceil(2), now);
        self.unacknowledged.sweep(now, response_timeout)
    }

    /// Records how often the address of the client has changed so far. The client is disconnected when it changed too often
    /// within a minute.
    fn record_path_changes(&self, total: u64, now: Instant) {
        if self.path_changes.lock().push(total, now) > u64::from(self.max_path_changes) {
            self.disconnect(Disconnect::PathChanges);
        }
    }

    /// Asks the driver to disconnect the client. The first reason counts; returns whether this is it.
    pub(super) fn disconnect(&self, reason: Disconnect) -> bool {
        let first = self.disconnect.set(reason).is_ok();
        self.disconnected.cancel();
        first
    }

    /// Whether the client is to be disconnected.
    pub(super) fn is_disconnected(&self) -> bool {
        self.disconnect.get().is_some()
    }

    /// Waits until the client is to be disconnected.
    ///
    /// Cancel safe.
    pub(super) async fn disconnected(&self) -> Disconnect {
        self.disconnected.cancelled().await;
        self.disconnect.get().copied().unwrap_or(Disconnect::Idle)
    }
}

/// A request in flight; the client is active while it exists.
#[derive(Debug)]
#[must_use]
pub(super) struct ActiveRequest {
    activity: Arc<ClientActivity>,
    /// Whether its client had as many requests as it may.
    excess: bool,
    /// Whether its origin had room for it.
    origin: Result<(), OriginFull>,
    /// When it began, if only its client ends it.
    ended_by_client: Option<Instant>,
}

impl ActiveRequest {
    /// Whether the request is within the shares of its client and its origin.
    pub(super) fn within_shares(&self) -> Result<(), Problem> {
        if self.excess {
            let max = self.activity.max_in_flight;
            let detail = format!("this client has {max} requests in flight, as many as one may");
            return Err(Problem::new(Code::RateLimited, detail));
        }
        self.origin.map_err(|full| Problem::new(Code::RateLimited, full.to_string()))
    }

    /// Marks a request that only its client ends: a cancellation counts only within the first second.
    pub(super) fn ended_by_client(&mut self) {
        self.ended_by_client = Some(Instant::now());
    }

    /// Records how the request ended.
    pub(super) fn ended(&self, cancelled: bool) {
        let long = self.ended_by_client.is_some_and(|began| began.elapsed() >= LONG_REQUEST);
        self.activity.record(cancelled && !long);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.origin.end();
        let now = u64::try_from(activity.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        activity.last_active.store(now, Relaxed);
        activity.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Which of the last [`CANCEL_WINDOW`] requests were cancelled.
#[derive(Debug, Default)]
struct CancelWindow {
    bits: [u64; CANCEL_WINDOW.div_ceil(64)],
    next: u16,
    cancelled: u16,
}

impl CancelWindow {
    /// Records one request. Returns whether over half of the window is cancelled.
    fn push(&mut self, cancelled: bool) -> bool {
        let (word, bit) = (usize::from(self.next) / 64, 1_u64 << (self.next % 64));
        self.cancelled -= u16::from(self.bits[word] & bit != 0);
        self.cancelled += u16::from(cancelled);
        if cancelled {
            self.bits[word] |= bit;
        } else {
            self.bits[word] &= !bit;
        }
        self.next = (self.next + 1) % CANCEL_WINDOW as u16;
        usize::from(self.cancelled) > CANCEL_WINDOW / 2
    }
}

/// Address changes within the last minute.
#[derive(Debug, Default)]
struct PathChanges {
    total: u64,
    /// The total at the beginning of the minute.
    minute: Option<(Instant, u64)>,
}

impl PathChanges {
    const MINUTE: Duration = Duration::from_secs(60);

    /// Records the total so far. Returns the changes since the minute began.
    fn push(&mut self, total: u64, now: Instant) -> u64 {
        let (began, before) = match self.minute {
            Some((began, before)) if now.saturating_duration_since(began) < Self::MINUTE => (began, before),
            _ => (now, self.total),
        };
        self.minute = Some((began, before));
        self.total = total;
        total - before.min(total)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of the last 200, also long after the first window.
        #[test]
        fn over_half_of_the_last_window_is_found(cancelled in prop::collection::vec(any::<bool>(), 0..900)) {
            let (mut window, mut last) = (CancelWindow::default(), VecDeque::new());
            for cancelled in cancelled {
                last.push_back(cancelled);
                if last.len() > CANCEL_WINDOW {
                    last.pop_front();
                }
                let over = last.iter().filter(|cancelled| **cancelled).count() > CANCEL_WINDOW / 2;
                prop_assert_eq!(window.push(cancelled), over);
            }
        }
    }

    #[test]
    fn half_of_the_window_is_not_over_half() {
        let mut window = CancelWindow::default();
        for n in 0..10 * CANCEL_WINDOW {
            assert!(!window.push(n % 2 == 0), "{n}");
        }
        let over = (0..CANCEL_WINDOW).position(|_| window.push(true)).unwrap();
        assert!(over <= 2, "{over}");
    }

    #[test]
    fn path_changes_count_by_the_minute() {
        let (mut changes, start) = (PathChanges::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(changes.push(1, at(0)), 1);
        assert_eq!(changes.push(4, at(59)), 4);
        assert_eq!(changes.push(5, at(60)), 1, "a new minute");
        assert_eq!(changes.push(9, at(119)), 5);
        assert_eq!(changes.push(9, at(180)), 0);
    }
}
