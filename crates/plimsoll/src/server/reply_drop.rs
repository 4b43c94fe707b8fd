//! Whether a reply handle is dropped by a handler of its own server.
//!
//! A handle that is dropped by the handler itself may be dropped because the handler fails, which shows only when its poll
//! returns. One that is dropped anywhere else, while the handler runs on, ends its call at once. Being on the handler's thread
//! during its poll tells the two apart.

use std::cell::{Cell, RefCell};

use plimsoll_sync::slots::SlotKey;

thread_local! {
    /// The server whose handler is being polled; 0 is none.
    static SERVER: Cell<usize> = const { Cell::new(0) };
    static ANY_DROPPED: Cell<bool> = const { Cell::new(false) };
    static DROPPED: RefCell<Vec<(usize, SlotKey)>> = const { RefCell::new(Vec::new()) };
}

/// Polls a handler of `server`. Also returns the calls whose reply handles were dropped meanwhile on this thread.
pub(crate) fn during<R>(server: usize, poll: impl FnOnce() -> R) -> (R, Vec<SlotKey>) {
    let outer = SERVER.replace(server);
    let polled = poll();
    SERVER.set(outer);
    let mine = if ANY_DROPPED.get() { take_dropped(server) } else { Vec::new() };
    (polled, mine)
}

#[cold]
fn take_dropped(server: usize) -> Vec<SlotKey> {
    DROPPED.with_borrow_mut(|dropped| {
        let mine = dropped.extract_if(.., |(of, _)| *of == server).map(|(_, call)| call).collect();
        ANY_DROPPED.set(!dropped.is_empty());
        mine
    })
}

/// A reply handle of `server` is dropped. Returns whether a handler of it runs on this thread, and will settle `call`.
pub(crate) fn dropped(server: usize, call: SlotKey) -> bool {
    if SERVER.get() != server {
        return false;
    }
    // A thread that ends runs no handler.
    let noted = DROPPED.try_with(|dropped| dropped.borrow_mut().push((server, call))).is_ok();
    ANY_DROPPED.set(noted);
    noted
}
