//! One winner, its value delivered once, everybody who waits told.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use plimsoll_sync::cell::{CallCell, Party};

/// Counts wake-ups and live values.
type Cell = CallCell<Value, Waker>;

struct Waker(Arc<AtomicUsize>);

struct Value {
    name: &'static str,
    live: Arc<AtomicUsize>,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether it won, and left a worker behind that does not know.
fn settle(cell: &Cell, by: Party, name: &'static str, live: &Arc<AtomicUsize>) -> Option<bool> {
    let won = cell.settle(by)?;
    live.fetch_add(1, Ordering::SeqCst);
    let waiters = cell.fill(Value { name, live: Arc::clone(live) });
    for waker in [waiters.caller, waiters.worker].into_iter().flatten() {
        waker.0.fetch_add(1, Ordering::SeqCst);
    }
    Some(won.abandoned)
}

fn race(parties: [(Party, &'static str); 2], here: (Party, &'static str), begin_here: bool) {
    let (cell, live) = (Arc::new(Cell::new()), Arc::new(AtomicUsize::new(0)));
    if !begin_here {
        cell.begin();
    }
    let threads = parties.map(|(by, name)| {
        let (cell, live) = (Arc::clone(&cell), Arc::clone(&live));
        thread::spawn(move || settle(&cell, by, name, &live))
    });
    let begun = !begin_here || cell.begin();
    let mine = if begun { settle(&cell, here.0, here.1, &live) } else { None };
    let won: Vec<(Party, &str, bool)> = threads
        .into_iter()
        .zip(parties)
        .filter_map(|(thread, (by, name))| Some((by, name, thread.join().unwrap()?)))
        .chain(mine.map(|abandoned| (here.0, here.1, abandoned)))
        .collect();
    assert_eq!(won.len(), 1, "one winner");
    let (by, name, abandoned) = won[0];
    assert_eq!(abandoned, begun && by == Party::Other, "a worker that has begun, and only such a one, is abandoned");
    let value = cell.take().expect("its value");
    assert_eq!(value.name, name);
    assert!(cell.take().is_none(), "once");
    drop(value);
    assert_eq!(live.load(Ordering::SeqCst), 0, "no value is leaked");
}

pub(crate) fn reply_timeout_died() {
    race([(Party::Worker, "reply"), (Party::Other, "timeout")], (Party::Other, "died"), false);
}

pub(crate) fn reply_drop_timeout() {
    race([(Party::Worker, "reply"), (Party::Other, "timeout")], (Party::Other, "cancelled"), false);
}

/// The worker begins while others settle: it serves or it never starts.
pub(crate) fn reply_shutdown_begin() {
    race([(Party::Other, "shutdown"), (Party::Other, "cancelled")], (Party::Worker, "reply"), true);
}

/// A caller that has left its waiter is woken, or finds the value at once.
pub(crate) fn waiting_caller_is_woken() {
    let (cell, live, woken) = (Arc::new(Cell::new()), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    cell.begin();
    let worker = {
        let (cell, live) = (Arc::clone(&cell), Arc::clone(&live));
        thread::spawn(move || settle(&cell, Party::Worker, "reply", &live))
    };
    let found = cell.take_or_wait(|_| Waker(Arc::clone(&woken))).is_some();
    assert!(worker.join().unwrap().is_some());
    assert_eq!(woken.load(Ordering::SeqCst), usize::from(!found));
    assert_eq!(cell.take().is_some(), !found);
}

/// A worker that waits when the call is settled by someone else is woken, or sees it before it waits.
pub(crate) fn abandoned_worker_is_told() {
    let (cell, live, woken) = (Arc::new(Cell::new()), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    cell.begin();
    let other = {
        let (cell, live) = (Arc::clone(&cell), Arc::clone(&live));
        thread::spawn(move || settle(&cell, Party::Other, "timeout", &live))
    };
    let seen = cell.settled_or_wait(|_| Waker(Arc::clone(&woken)));
    assert!(other.join().unwrap().is_some());
    assert!(seen || woken.load(Ordering::SeqCst) == 1, "neither seen nor woken");
}

/// Whoever abandons a worker counts it, and the worker uncounts exactly that.
pub(crate) fn overrunning_is_counted_and_uncounted() {
    let (cell, overrunning) = (Arc::new(Cell::new()), Arc::new(AtomicUsize::new(10)));
    let clock = {
        let (cell, overrunning) = (Arc::clone(&cell), Arc::clone(&overrunning));
        thread::spawn(move || {
            if let Some(won) = cell.settle(Party::Other)
                && won.abandoned
            {
                overrunning.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    if cell.begin() {
        let _ = cell.settle(Party::Worker);
        if cell.end().abandoned {
            overrunning.fetch_sub(1, Ordering::SeqCst);
        }
    }
    clock.join().unwrap();
    assert_eq!(overrunning.load(Ordering::SeqCst), 10);
}

/// A worker that ends without a settlement of its own (its reply handle went elsewhere) is not overrunning any more.
pub(crate) fn ended_worker_is_not_abandoned() {
    let (cell, overrunning) = (Arc::new(Cell::new()), Arc::new(AtomicUsize::new(10)));
    cell.begin();
    let clock = {
        let (cell, overrunning) = (Arc::clone(&cell), Arc::clone(&overrunning));
        thread::spawn(move || {
            if cell.settle(Party::Other).is_some_and(|won| won.abandoned) {
                overrunning.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    if cell.end().abandoned {
        overrunning.fetch_sub(1, Ordering::SeqCst);
    }
    clock.join().unwrap();
    assert_eq!(overrunning.load(Ordering::SeqCst), 10);
}
