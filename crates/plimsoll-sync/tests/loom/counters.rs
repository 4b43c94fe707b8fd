//! Level and occupancy.

use loom::sync::Arc;
use loom::thread;
use plimsoll_sync::level_cell::LevelCell;
use plimsoll_sync::occupancy::Occupancy;
use plimsoll_sync::permits::{Load, PermitGate};

pub(crate) fn latest_level_is_taken() {
    let cell = Arc::new(LevelCell::new(0));
    let setters = [1, 2].map(|level| {
        let cell = Arc::clone(&cell);
        thread::spawn(move || usize::from(cell.set(level)))
    });
    let first = cell.take_change();
    let notified: usize = setters.into_iter().map(|setter| setter.join().unwrap()).sum();
    let last = cell.take_change();
    let taken = usize::from(first.is_some()) + usize::from(last.is_some());
    assert_eq!(notified, taken, "one notification for each change taken");
    assert_eq!(last.or(first), Some(cell.get()), "the last change taken is the level");
}

/// A thread that has seen `critical` is not admitted: the limit was lowered before the level was set.
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
    cell.set(3);
    let admitted = admitters.into_iter().map(|admitter| u32::from(admitter.join().unwrap())).sum();
    assert_eq!(gate.used().count, admitted);
}

/// Two enter while one leaves: never more inside than the limit, in any reading.
pub(crate) fn occupancy_never_over_its_limit() {
    let occupancy = Arc::new(Occupancy::<1>::new());
    occupancy.enter(1).unwrap();
    let others = [(), ()].map(|()| {
        let occupancy = Arc::clone(&occupancy);
        thread::spawn(move || u64::from(occupancy.enter(1).is_ok()))
    });
    occupancy.leave(0);
    assert!(occupancy.read().inside <= 1);
    let entered: u64 = others.into_iter().map(|other| other.join().unwrap()).sum();
    let reading = occupancy.read();
    assert_eq!((reading.entered, reading.inside, reading.high_water), (1 + entered, entered, 1));
}

/// An item that comes after another has left enters, however stale the count that was last read.
pub(crate) fn occupancy_refuses_only_when_full() {
    let occupancy = Arc::new(Occupancy::<1>::new());
    occupancy.enter(2).unwrap();
    let other = {
        let occupancy = Arc::clone(&occupancy);
        thread::spawn(move || {
            occupancy.enter(2).unwrap();
            occupancy.leave(0);
        })
    };
    occupancy.leave(0);
    occupancy.enter(2).unwrap();
    other.join().unwrap();
    occupancy.enter(2).unwrap();
    assert_eq!(occupancy.enter(2), Err(2));
}

/// An item that is seen to have left is seen to have entered.
pub(crate) fn occupancy_sums_hold() {
    let occupancy = Arc::new(Occupancy::<1>::new());
    let reader = {
        let occupancy = Arc::clone(&occupancy);
        thread::spawn(move || occupancy.read())
    };
    occupancy.enter(2).unwrap();
    occupancy.leave(0);
    let reading = reader.join().unwrap();
    assert!(reading.inside <= 1, "{reading:?}");
    assert_eq!((occupancy.read().inside, occupancy.read().left), (0, [1]));
}
