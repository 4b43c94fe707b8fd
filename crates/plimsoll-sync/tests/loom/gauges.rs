//! Latch, level, flow and tide.

use loom::sync::Arc;
use loom::thread;
use plimsoll_sync::flow::Flow;
use plimsoll_sync::latch::DrainLatch;
use plimsoll_sync::level::LevelCell;
use plimsoll_sync::permits::{Load, PermitGate};
use plimsoll_sync::tide::Tide;

/// Exactly one learns of the end: the last worker or the closer.
pub(crate) fn last_worker_and_closer() {
    let latch = Arc::new(DrainLatch::new());
    assert!(latch.enter() && latch.enter());
    let workers = [(), ()].map(|()| {
        let latch = Arc::clone(&latch);
        thread::spawn(move || latch.leave())
    });
    let closer = latch.close();
    let ends = workers.into_iter().map(|worker| worker.join().unwrap()).chain([closer]);
    assert_eq!(ends.filter(|end| *end).count(), 1);
}

pub(crate) fn refuses_after_close() {
    let latch = Arc::new(DrainLatch::new());
    let late = {
        let latch = Arc::clone(&latch);
        thread::spawn(move || latch.enter().then(|| latch.leave()))
    };
    let closed_empty = latch.close();
    assert!(!latch.enter(), "closed");
    let worker_ended_it = late.join().unwrap() == Some(true);
    assert!(closed_empty ^ worker_ended_it, "one of them, never both");
}

pub(crate) fn latest_level_is_heard() {
    let cell = Arc::new(LevelCell::new(0));
    let tellers = [1, 2].map(|level| {
        let cell = Arc::clone(&cell);
        thread::spawn(move || usize::from(cell.tell(level)))
    });
    let early = cell.hear();
    let announced: usize = tellers.into_iter().map(|teller| teller.join().unwrap()).sum();
    let late = cell.hear();
    let heard = usize::from(early.is_some()) + usize::from(late.is_some());
    assert_eq!(announced, heard, "one announcement for each time it is heard");
    assert_eq!(late.or(early), Some(cell.get()), "the last thing heard is the level");
}

/// Who has seen `critical` is not let in: the limit was lowered before the level was told.
pub(crate) fn nobody_admits_after_critical() {
    let (cell, gate) = (Arc::new(LevelCell::new(0)), Arc::new(PermitGate::<()>::new(Load { count: 2, bytes: 0 }, 0)));
    let admitters = [(), ()].map(|()| {
        let (cell, gate) = (Arc::clone(&cell), Arc::clone(&gate));
        thread::spawn(move || {
            let critical = cell.get() == 3;
            let admitted = gate.try_acquire(0).is_ok();
            assert!(!(critical && admitted), "admitted after critical was seen");
            admitted
        })
    });
    gate.set_limit(Load { count: 0, bytes: 0 }, |()| ());
    cell.tell(3);
    let admitted = admitters.into_iter().map(|admitter| u32::from(admitter.join().unwrap())).sum();
    assert_eq!(gate.used().count, admitted);
}

pub(crate) fn flow_sums_hold() {
    let flow = Arc::new(Flow::<2>::new());
    let workers = [0, 1].map(|way| {
        let flow = Arc::clone(&flow);
        thread::spawn(move || {
            flow.enter();
            flow.leave(way);
        })
    });
    let reading = flow.read();
    assert!(reading.inside <= 2, "{reading:?}");
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!((flow.read().inside, flow.read().left), (0, [1, 1]));
}

/// Two come in while one leaves: never more inside than the limit, in any reading.
pub(crate) fn tide_never_over_its_limit() {
    let tide = Arc::new(Tide::<1>::new());
    tide.enter(1).unwrap();
    let comers = [(), ()].map(|()| {
        let tide = Arc::clone(&tide);
        thread::spawn(move || u64::from(tide.enter(1).is_ok()))
    });
    tide.leave(0);
    assert!(tide.read().inside <= 1);
    let entered: u64 = comers.into_iter().map(|comer| comer.join().unwrap()).sum();
    let level = tide.read();
    assert_eq!((level.entered, level.inside, level.high_water), (1 + entered, entered, 1));
}

/// Who comes when one has left is let in, however old the number that was last looked at.
pub(crate) fn tide_refuses_only_when_full() {
    let tide = Arc::new(Tide::<1>::new());
    tide.enter(2).unwrap();
    let other = {
        let tide = Arc::clone(&tide);
        thread::spawn(move || {
            tide.enter(2).unwrap();
            tide.leave(0);
        })
    };
    tide.leave(0);
    tide.enter(2).unwrap();
    other.join().unwrap();
    tide.enter(2).unwrap();
    assert_eq!(tide.enter(2), Err(2));
}

/// As of a flow: whoever is seen to have left is seen to have come in.
pub(crate) fn tide_sums_hold() {
    let tide = Arc::new(Tide::<1>::new());
    let reader = {
        let tide = Arc::clone(&tide);
        thread::spawn(move || tide.read())
    };
    tide.enter(2).unwrap();
    tide.leave(0);
    let level = reader.join().unwrap();
    assert!(level.inside <= 1, "{level:?}");
    assert_eq!((tide.read().inside, tide.read().left), (0, [1]));
}
