//! What happens to the children of a supervisor, for the log and for an observer.
//!
//! Records are queued under the supervisor's lock, which fixes their order, and delivered after it is released, one at a
//! time. The thread that releases the lock delivers them, unless another thread does already. The observer and the program's
//! `tracing` subscriber may therefore use the supervisor, and a panic in them is caught.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::event::SupervisorEvent;
use super::log::{AfterExit, Line, Log};
use crate::exit::ExitReason;
use crate::panics::guarded;

/// Records that wait for delivery. Beyond it they are dropped and counted.
const CAPACITY: usize = 4_096;

/// Receives the events of one supervisor, and the supervisor's name.
pub(crate) type EventObserver = Arc<dyn Fn(&str, &SupervisorEvent) + Send + Sync>;

/// The events of one supervisor on their way to the log and the observer.
pub(crate) struct Events {
    supervisor: Arc<str>,
    observer: Option<EventObserver>,
    pending: AtomicBool,
    queue: Mutex<Queue>,
    /// Locked by the thread that delivers.
    log: Mutex<Log>,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<(Duration, Record)>,
    omitted: u64,
}

enum Record {
    Event(SupervisorEvent),
    Line(Line),
}

impl Events {
    /// `one_kind`: failures of all children are throttled together.
    pub(crate) fn new(supervisor: Arc<str>, observer: Option<EventObserver>, one_kind: bool) -> Self {
        Self {
            supervisor,
            observer,
            pending: AtomicBool::new(false),
            queue: Mutex::default(),
            log: Mutex::new(Log::new(one_kind)),
        }
    }

    /// Whether an event that is logged at this level has a receiver.
    pub(crate) fn wants(&self, level: Level) -> bool {
        self.observer.is_some() || LevelFilter::current() >= level
    }

    /// Whether there is an observer.
    pub(crate) fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Queues an event for the log and the observer.
    pub(crate) fn push(&self, event: SupervisorEvent, now: Duration) {
        self.queue(Record::Event(event), now);
    }

    /// Queues the log line of a child's exit, and the event of the restart that follows.
    pub(crate) fn push_exit(&self, child: &Arc<str>, reason: ExitReason, then: AfterExit, now: Duration) {
        if let (AfterExit::Restart(delay), true) = (then, self.is_observed()) {
            self.push(SupervisorEvent::ChildRestarting { child: child.clone(), delay }, now);
        }
        self.push_line(Line::Exited { child: child.clone(), reason, then }, now);
    }

    /// Queues a line for the log alone.
    pub(crate) fn push_line(&self, line: Line, now: Duration) {
        self.queue(Record::Line(line), now);
    }

    fn queue(&self, record: Record, now: Duration) {
        let mut queue = self.queue.lock();
        if queue.records.len() < CAPACITY {
            queue.records.push_back((now, record));
        } else {
            queue.omitted += 1;
        }
        // ORDERING: set under the queue's lock, read without it; the records themselves are read under the lock.
        self.pending.store(true, Ordering::Release);
    }

    /// Delivers what is queued. Not to be called under the supervisor's lock.
    pub(crate) fn deliver(&self) {
        while self.pending.load(Ordering::Acquire) {
            // Another thread delivers, or this one does further up its stack: that one takes these records, too.
            let Some(mut log) = self.log.try_lock() else { return };
            while let Some((now, record)) = self.next() {
                self.deliver_record(&mut log, &record, now);
            }
        }
    }

    fn next(&self) -> Option<(Duration, Record)> {
        let mut queue = self.queue.lock();
        if let Some(record) = queue.records.pop_front() {
            return Some(record);
        }
        if queue.omitted > 0 {
            let count = std::mem::take(&mut queue.omitted);
            return Some((Duration::MAX, Record::Event(SupervisorEvent::Omitted { count })));
        }
        self.pending.store(false, Ordering::Release);
        None
    }

    fn deliver_record(&self, log: &mut Log, record: &Record, now: Duration) {
        match record {
            Record::Line(line) => log.line(&self.supervisor, line, now),
            Record::Event(event) => {
                log.event(&self.supervisor, event, now);
                if let Some(observer) = &self.observer {
                    let _ = guarded(|| observer(&self.supervisor, event));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(observer: impl Fn(&SupervisorEvent) + Send + Sync + 'static) -> Events {
        Events::new("top".into(), Some(Arc::new(move |_: &str, event: &SupervisorEvent| observer(event))), false)
    }

    fn started(n: usize) -> SupervisorEvent {
        SupervisorEvent::ChildStarted { child: n.to_string().into(), actor: "0.1".into() }
    }

    #[test]
    fn events_are_delivered_in_order_and_a_panic_of_the_observer_is_caught() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inner = seen.clone();
        let events = observed(move |event| {
            inner.lock().push(event.clone());
            panic!("an observer that panics");
        });
        for n in 0..3 {
            events.push(started(n), Duration::ZERO);
        }
        events.deliver();
        assert_eq!(*seen.lock(), [started(0), started(1), started(2)]);
    }

    #[test]
    fn what_a_slow_observer_does_not_receive_is_counted() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inner = seen.clone();
        let events = observed(move |event| inner.lock().push(event.clone()));
        for n in 0..CAPACITY + 7 {
            events.push(started(n), Duration::ZERO);
        }
        events.deliver();
        assert_eq!(seen.lock().len(), CAPACITY + 1);
        assert_eq!(seen.lock().last(), Some(&SupervisorEvent::Omitted { count: 7 }));
    }

    #[test]
    fn an_event_that_the_observer_causes_is_delivered_after_the_current_one() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (inner, cell) = (seen.clone(), Arc::new(std::sync::OnceLock::<Arc<Events>>::new()));
        let own = cell.clone();
        let events = Arc::new(observed(move |event| {
            inner.lock().push(event.clone());
            if *event == started(0) {
                let events = own.get().unwrap();
                events.push(started(1), Duration::ZERO);
                events.deliver();
                assert_eq!(inner.lock().len(), 1);
            }
        }));
        assert!(cell.set(events.clone()).is_ok());
        events.push(started(0), Duration::ZERO);
        events.deliver();
        assert_eq!(*seen.lock(), [started(0), started(1)]);
    }
}
