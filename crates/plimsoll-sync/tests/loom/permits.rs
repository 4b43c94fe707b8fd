//! Never more out than the limit, nothing out at the end, every attempt granted or refused, nobody waits for ever.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use plimsoll_sync::permits::{Load, PermitGate};

type Gate = PermitGate<Arc<AtomicUsize>>;

fn gate(count: u32, bytes: u64) -> Arc<Gate> {
    Arc::new(PermitGate::new(Load { count, bytes }, 2))
}

fn wake(waiter: Arc<AtomicUsize>) {
    waiter.fetch_add(1, Ordering::SeqCst);
}

pub(crate) fn try_and_release() {
    let (gate, inside, granted) = (gate(1, 0), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let attempt = {
        let (gate, inside, granted) = (Arc::clone(&gate), Arc::clone(&inside), Arc::clone(&granted));
        move || match gate.try_acquire(0) {
            Ok(()) => {
                granted.fetch_add(1, Ordering::SeqCst);
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "one inside");
                inside.fetch_sub(1, Ordering::SeqCst);
                gate.release(0, wake);
                0
            }
            Err(_) => 1,
        }
    };
    let threads = [thread::spawn(attempt.clone()), thread::spawn(attempt.clone())];
    let refused = attempt() + threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
    assert_eq!(granted.load(Ordering::SeqCst) + refused, 3, "attempts = granted + refused");
    assert_eq!(gate.used(), Load::default());
}

/// The one who waits gives up while the permit is on its way to it: it goes on to the other, or is free.
pub(crate) fn cancel_while_waiting() {
    let gate = gate(1, 0);
    gate.try_acquire(0).unwrap();
    let (first, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let place = gate.enqueue(0, Arc::clone(&first), wake).unwrap();
    let other = gate.enqueue(0, Arc::clone(&second), wake).unwrap();
    let holder = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || gate.release(0, wake))
    };
    gate.cancel(place, wake);
    holder.join().unwrap();
    assert_eq!(second.load(Ordering::SeqCst), 1, "the other is woken");
    assert!(gate.claim(other, |waiter| waiter));
    gate.release(0, wake);
    assert_eq!((gate.used(), gate.waiting()), (Load::default(), 0));
}

/// Joining the queue while the last permit comes back: it is granted at once, or the waiter is woken.
pub(crate) fn no_wake_is_lost() {
    let gate = gate(1, 0);
    gate.try_acquire(0).unwrap();
    let holder = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || gate.release(0, wake))
    };
    let woken = Arc::new(AtomicUsize::new(0));
    let place = gate.enqueue(0, Arc::clone(&woken), wake).unwrap();
    holder.join().unwrap();
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(gate.claim(place, |waiter| waiter));
    gate.release(0, wake);
    assert_eq!(gate.used(), Load::default());
}

/// A permit takes its count and its bytes, or neither.
pub(crate) fn bytes_and_count_together() {
    let gate = gate(2, 10);
    let attempt = {
        let gate = Arc::clone(&gate);
        move |bytes| {
            if gate.try_acquire(bytes).is_ok() {
                let used = gate.used();
                assert!(used.bytes <= 10 && used.count <= 2, "{used:?}");
                gate.release(bytes, wake);
            }
        }
    };
    let threads =
        [(attempt.clone(), 7), (attempt.clone(), 3)].map(|(attempt, bytes)| thread::spawn(move || attempt(bytes)));
    attempt(4);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(gate.used(), Load::default());
}

/// Who waits under a lowered limit is served once enough has come back.
pub(crate) fn lowered_limit() {
    let gate = gate(2, 0);
    gate.try_acquire(0).unwrap();
    gate.try_acquire(0).unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let place = gate.enqueue(0, Arc::clone(&woken), wake).unwrap();
    let memory = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || gate.set_limit(Load { count: 1, bytes: 0 }, wake))
    };
    gate.release(0, wake);
    gate.release(0, wake);
    memory.join().unwrap();
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(gate.claim(place, |waiter| waiter));
    gate.release(0, wake);
    assert_eq!(gate.used(), Load::default());
}

/// Joining the queue while the limit is raised: it is granted at once, or by whoever raises it.
pub(crate) fn raised_limit() {
    let gate = gate(1, 0);
    gate.try_acquire(0).unwrap();
    let memory = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || gate.set_limit(Load { count: 2, bytes: 0 }, wake))
    };
    let woken = Arc::new(AtomicUsize::new(0));
    let place = gate.enqueue(0, Arc::clone(&woken), wake).unwrap();
    memory.join().unwrap();
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(gate.claim(place, |waiter| waiter));
    assert_eq!(gate.used().count, 2);
}
