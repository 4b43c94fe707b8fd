//! `sent = taken + dropped + queued`, every credit back, nothing after close.

use loom::sync::Arc;
use loom::thread;
use plimsoll_sync::mailbox::{Leaves, Mailbox};
use plimsoll_sync::permits::Load;

type Box_ = Mailbox<u8, ()>;

fn mailbox(count: u32) -> Arc<Box_> {
    Arc::new(Mailbox::new(Load { count, bytes: 0 }, 0))
}

fn send(mailbox: &Box_, message: u8) -> bool {
    mailbox.offer(message, 0).is_ok()
}

fn balance(mailbox: &Box_) {
    let traffic = mailbox.traffic();
    let out = traffic.taken + traffic.dropped_oldest + traffic.dropped_unserved + traffic.returned;
    assert_eq!(traffic.sent, out + traffic.queued, "{traffic:?}");
    assert_eq!(u64::from(mailbox.gate.used().count), traffic.queued, "a credit for each message");
}

pub(crate) fn push_and_close() {
    let mailbox = mailbox(4);
    let senders = [1, 2].map(|message| {
        let mailbox = Arc::clone(&mailbox);
        thread::spawn(move || u64::from(send(&mailbox, message)))
    });
    let dropped = mailbox.close(|()| ()).len() as u64;
    let sent: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
    assert_eq!(sent, dropped, "what was taken in was dropped by the closing, and nothing came after");
    assert!(!send(&mailbox, 3));
    balance(&mailbox);
}

pub(crate) fn push_and_pop_at_full() {
    let mailbox = mailbox(1);
    assert!(send(&mailbox, 1));
    let sender = {
        let mailbox = Arc::clone(&mailbox);
        thread::spawn(move || send(&mailbox, 2))
    };
    let first = mailbox.pop(Leaves::Taken, |()| ());
    assert_eq!(first, Some(1));
    let sent = sender.join().unwrap();
    balance(&mailbox);
    assert_eq!(mailbox.pop(Leaves::Taken, |()| ()).is_some(), sent);
    balance(&mailbox);
}

/// Drop-oldest while the actor takes: each message goes one way, and the newest is in.
pub(crate) fn drop_oldest_and_pop() {
    let mailbox = mailbox(1);
    assert!(send(&mailbox, 1));
    let sender = {
        let mailbox = Arc::clone(&mailbox);
        thread::spawn(move || mailbox.offer_dropping(2, 0, |()| ()).map(|(_, dropped)| dropped.len()))
    };
    let taken = mailbox.pop(Leaves::Taken, |()| ());
    let dropped = sender.join().unwrap().unwrap() as u64;
    balance(&mailbox);
    let traffic = mailbox.traffic();
    assert_eq!((traffic.sent, traffic.dropped_oldest), (2, dropped));
    match taken {
        Some(2) => assert_eq!((traffic.dropped_oldest, traffic.queued), (1, 0)),
        Some(_) => assert_eq!((traffic.dropped_oldest, traffic.queued), (0, 1)),
        None => assert_eq!((traffic.dropped_oldest, traffic.queued), (1, 1)),
    }
}

pub(crate) fn high_water() {
    let mailbox = mailbox(2);
    let sender = {
        let mailbox = Arc::clone(&mailbox);
        thread::spawn(move || send(&mailbox, 1))
    };
    let mine = send(&mailbox, 2);
    let popped = mailbox.pop(Leaves::Taken, |()| ()).is_some();
    assert!(mine && popped && sender.join().unwrap());
    let traffic = mailbox.traffic();
    assert!((1..=2).contains(&traffic.high_water) && traffic.high_water >= traffic.queued, "{traffic:?}");
    balance(&mailbox);
}

/// A sender takes its message back while another makes room: every message goes one way.
pub(crate) fn retract_and_drop_oldest() {
    let mailbox = mailbox(1);
    let ticket = mailbox.offer(1, 0).unwrap().ticket;
    let other = {
        let mailbox = Arc::clone(&mailbox);
        thread::spawn(move || mailbox.offer_dropping(2, 0, |()| ()).is_ok())
    };
    let mine = mailbox.retract(ticket, |()| ());
    assert!(other.join().unwrap());
    balance(&mailbox);
    let traffic = mailbox.traffic();
    match mine {
        Some(1) => assert_eq!((traffic.returned, traffic.queued), (1, 1)),
        // Its credit was the other's by then: what nobody would have come for has gone in its place.
        _ => assert_eq!((traffic.dropped_oldest, traffic.dropped_unserved, traffic.queued), (1, 1, 0)),
    }
}

/// However often messages replace each other, the actor is told as often as there are messages for it, and not oftener.
pub(crate) fn announcements_are_those_of_messages() {
    let mailbox = mailbox(1);
    let senders = [1, 2].map(|message| {
        let mailbox = Arc::clone(&mailbox);
        thread::spawn(move || mailbox.offer_dropping(message, 0, |()| ()).map(|(put, _)| u64::from(put.announce)))
    });
    let mut announced: u64 = senders.into_iter().map(|sender| sender.join().unwrap().unwrap()).sum();
    announced += mailbox.offer_dropping(3, 0, |()| ()).map(|(put, _)| u64::from(put.announce)).unwrap();
    assert_eq!((announced, mailbox.traffic().queued), (1, 1));
    assert_eq!(mailbox.pop(Leaves::Taken, |()| ()), Some(3));
    assert!(mailbox.offer(4, 0).unwrap().announce);
}
