//! What becomes of a message: `docs/semantics.md`, rows, each for every policy.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::until;
use plimsoll::call::Overload;
use plimsoll::mailbox::{Bounded, BoundedRef, Delivery, MailboxBuilder, Overflow, PressureLevel, SendError, Sent};
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::{Mark, Probe, probe};
use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

const POLICIES: [Overflow; 4] = [Overflow::Reject, Overflow::Wait, Overflow::DropNewest, Overflow::DropOldest];

#[derive(Debug, Clone)]
enum Tell {
    Note(u32),
    Pass(Gate),
    Fail,
    Panic,
    /// Dropped with the message.
    Held(Arc<()>),
}

struct Notes(Mark<u32>);

impl Actor for Notes {
    type Msg = Bounded<Tell>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, bounded: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match bounded.take() {
            Some(Delivery::Message(Tell::Note(n))) => self.0.note(n),
            Some(Delivery::Message(Tell::Pass(gate))) => gate.pass().await,
            Some(Delivery::Message(Tell::Fail)) => return Err("told to".into()),
            Some(Delivery::Message(Tell::Panic)) => panic!("told to"),
            Some(Delivery::Message(Tell::Held(held))) => drop(held),
            Some(Delivery::Pressure(level)) => self.0.note(1_000 + level as u32),
            _ => {}
        }
        Ok(())
    }
}

type Started = (BoundedRef<Tell>, JoinHandle<()>, Probe<u32>);

async fn notes(builder: MailboxBuilder<Tell>) -> Started {
    let (mark, probe) = probe(64);
    let (sender, ended) = builder.spawn(None, Notes(mark), ()).await.unwrap();
    (sender, ended, probe)
}

fn counters(sender: &BoundedRef<Tell>) -> BTreeMap<String, u64> {
    let counters = sender.inspector().inspect().counters;
    let out: u64 =
        ["taken", "dropped_oldest", "dropped_unserved", "returned", "depth"].map(|name| counters[name]).iter().sum();
    assert_eq!(counters["sent"], out, "sent = taken + dropped + returned + queued: {counters:?}");
    counters.into()
}

/// A busy actor with `n` messages behind what it is at.
async fn busy(overflow: Overflow, n: u32) -> (Started, Gate) {
    let started = notes(MailboxBuilder::messages(n).overflow(overflow)).await;
    let gate = Gate::closed();
    started.0.send(Tell::Pass(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    for number in 0..n {
        assert_eq!(started.0.send(Tell::Note(number)).unwrap(), Sent::Queued);
    }
    assert_eq!(counters(&started.0)["depth"], u64::from(n));
    (started, gate)
}

async fn dropped_unserved_at(end: impl Fn(&BoundedRef<Tell>, &Gate)) {
    for overflow in POLICIES {
        let ((sender, ended, mut probe), gate) = busy(overflow, 3).await;
        end(&sender, &gate);
        let _ = ended.await;
        let seen = counters(&sender);
        assert_eq!((seen["depth"], seen["credits_used"], seen["dropped_unserved"]), (0, 0, 3), "{overflow:?}");
        assert!(probe.waiting().is_empty());
        assert!(matches!(sender.send(Tell::Note(9)), Err(SendError::NoProcess(Tell::Note(9)))), "Q-13, {overflow:?}");
        assert_eq!(counters(&sender)["credits_used"], 0);
    }
}

/// queued at an ordinary stop: dropped, counted, every credit back.
#[tokio::test(start_paused = true)]
async fn q1_a_stop_drops_what_is_queued() {
    dropped_unserved_at(|sender, gate| {
        sender.actor().stop(None);
        gate.open();
    })
    .await;
}

/// queued at a drain: served; what comes after the drain began comes back.
#[tokio::test(start_paused = true)]
async fn q2_a_drain_serves_what_is_queued() {
    for overflow in POLICIES {
        let ((sender, ended, mut probe), gate) = busy(overflow, 3).await;
        sender.actor().drain().unwrap();
        gate.open();
        ended.await.unwrap();
        assert_eq!(probe.waiting(), [0, 1, 2], "{overflow:?}");
        assert!(matches!(sender.send(Tell::Note(9)), Err(SendError::NoProcess(_))));
        assert_eq!((counters(&sender)["taken"], counters(&sender)["credits_used"]), (4, 0));
    }
}

/// queued at a failure: dropped, counted, every credit back.
#[tokio::test(start_paused = true)]
async fn q3_a_failure_drops_what_is_queued() {
    for overflow in POLICIES {
        for fatal in [Tell::Fail, Tell::Panic] {
            let (sender, ended, mut probe) = notes(MailboxBuilder::messages(3).overflow(overflow)).await;
            let gate = Gate::closed();
            sender.send(Tell::Pass(gate.clone())).unwrap();
            gate.until_waiting(1).await;
            sender.send(fatal).unwrap();
            sender.send(Tell::Note(1)).unwrap();
            gate.open();
            let _ = ended.await;
            let seen = counters(&sender);
            assert_eq!((seen["depth"], seen["credits_used"], seen["dropped_unserved"]), (0, 0, 1), "{overflow:?}");
            assert!(probe.waiting().is_empty());
        }
    }
}

/// queued at a kill: dropped, counted, every credit back, also from a full mailbox.
#[tokio::test(start_paused = true)]
async fn q4_a_kill_drops_what_is_queued() {
    dropped_unserved_at(|sender, _| sender.actor().kill()).await;
}

/// at a restart nothing is carried over: the successor has a mailbox of its own, and the old address is dead.
#[tokio::test(start_paused = true)]
async fn q5_a_restart_carries_nothing_over() {
    for overflow in POLICIES {
        let ((old, ended, mut heard), _gate) = busy(overflow, 3).await;
        old.actor().kill();
        let _ = ended.await;
        let (new, _ended, mut probe) = notes(MailboxBuilder::messages(3).overflow(overflow)).await;
        new.send(Tell::Note(7)).unwrap();
        assert_eq!(probe.next().await, 7);
        assert!(matches!(old.send(Tell::Note(8)), Err(SendError::NoProcess(_))));
        assert!(heard.waiting().is_empty());
        assert_eq!(counters(&new)["sent"], 1);
    }
}

/// at the end of the runtime: dropped, every credit back.
#[test]
fn q6_the_end_of_the_runtime_drops_what_is_queued() {
    for overflow in POLICIES {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ((sender, ..), _gate) = runtime.block_on(busy(overflow, 3));
        drop(runtime);
        let seen = counters(&sender);
        assert_eq!((seen["depth"], seen["credits_used"], seen["dropped_unserved"]), (0, 0, 3), "{overflow:?}");
    }
}

/// being handled at a kill: it was taken, and goes where its handler awaits.
#[tokio::test(start_paused = true)]
async fn q7_a_kill_drops_what_is_being_handled() {
    for overflow in POLICIES {
        let ((sender, ended, _probe), gate) = busy(overflow, 1).await;
        sender.actor().kill();
        let _ = ended.await;
        assert_eq!((gate.waiting(), counters(&sender)["taken"]), (0, 1), "{overflow:?}");
    }
}

/// over the bound under `Reject` (and `send` under `Wait`): it comes back, with how full it was.
#[tokio::test(start_paused = true)]
async fn q8_reject_gives_the_message_back() {
    for overflow in [Overflow::Reject, Overflow::Wait] {
        let ((sender, _ended, mut probe), gate) = busy(overflow, 2).await;
        let refused = sender.send(Tell::Note(9)).unwrap_err();
        assert!(matches!(refused, SendError::Full(Overload::InFlight { in_flight: 2, limit: 2 }, Tell::Note(9))));
        gate.open();
        assert_eq!(probe.take(2).await, [0, 1]);
        assert_eq!(counters(&sender)["refused"], 1);
    }
}

/// over the bound under `Wait`: in order once there is room, or back at its deadline; nobody overtakes.
#[tokio::test(start_paused = true)]
async fn q9_wait_waits_in_order_until_its_deadline() {
    let ((sender, _ended, mut probe), gate) = busy(Overflow::Wait, 1).await;
    let wait = |n, ms| {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send_by(Tell::Note(n), Instant::now() + Duration::from_millis(ms)).await })
    };
    let (short, first, second) = (wait(10, 5), wait(11, 1_000), wait(12, 1_000));
    assert!(matches!(short.await.unwrap(), Err(SendError::TimedOut(Tell::Note(10)))));
    until(|| counters(&sender)["waiting"] == 2).await;
    assert!(matches!(sender.send(Tell::Note(13)), Err(SendError::Full(..))));
    gate.open();
    assert_eq!(probe.take(3).await, [0, 11, 12]);
    assert_eq!((first.await.unwrap().unwrap(), second.await.unwrap().unwrap()), (Sent::Queued, Sent::Queued));
    assert_eq!((counters(&sender)["waiting"], counters(&sender)["credits_used"]), (0, 0));
}

/// one who gives up waiting leaves nothing behind, and the next one moves up.
#[tokio::test(start_paused = true)]
async fn q9_giving_up_leaves_the_queue() {
    let ((sender, _ended, mut probe), gate) = busy(Overflow::Wait, 1).await;
    let wait = |n| {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send_by(Tell::Note(n), Instant::now() + Duration::from_secs(1)).await })
    };
    let first = wait(1);
    until(|| counters(&sender)["waiting"] == 1).await;
    let second = wait(2);
    until(|| counters(&sender)["waiting"] == 2).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(counters(&sender)["waiting"], 1);
    gate.open();
    assert_eq!(second.await.unwrap().unwrap(), Sent::Queued);
    assert_eq!(probe.take(2).await, [0, 2]);
}

/// over the bound under `DropNewest`: it is dropped and counted.
#[tokio::test(start_paused = true)]
async fn q10_drop_newest_drops_what_does_not_fit() {
    let ((sender, _ended, mut probe), gate) = busy(Overflow::DropNewest, 2).await;
    let held = Arc::new(());
    assert_eq!(sender.send(Tell::Held(held.clone())).unwrap(), Sent::Dropped);
    assert_eq!((Arc::strong_count(&held), counters(&sender)["dropped_newest"]), (1, 1));
    gate.open();
    assert_eq!(probe.take(2).await, [0, 1]);
}

/// over the bound under `DropOldest`: the oldest make room, in order, by count and by bytes.
#[tokio::test(start_paused = true)]
async fn q11_drop_oldest_makes_room() {
    let ((sender, ended, mut probe), gate) = busy(Overflow::DropOldest, 3).await;
    assert_eq!(sender.send(Tell::Note(3)).unwrap(), Sent::InPlaceOf(1));
    assert_eq!(sender.send(Tell::Note(4)).unwrap(), Sent::InPlaceOf(1));
    gate.open();
    assert_eq!(probe.take(3).await, [2, 3, 4]);
    assert_eq!((counters(&sender)["dropped_oldest"], counters(&sender)["high_water"]), (2, 3));
    sender.actor().stop(None);
    ended.await.unwrap();

    let weigh = |tell: &Tell| if let Tell::Note(n) = tell { u64::from(*n) } else { 0 };
    let builder = MailboxBuilder::messages(100).bytes(10, weigh).overflow(Overflow::DropOldest);
    let (sender, _ended, mut probe) = notes(builder).await;
    let gate = Gate::closed();
    sender.send(Tell::Pass(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    for n in [3, 3, 4] {
        assert_eq!(sender.send(Tell::Note(n)).unwrap(), Sent::Queued);
    }
    assert_eq!(sender.send(Tell::Note(5)).unwrap(), Sent::InPlaceOf(2));
    assert!(matches!(sender.send(Tell::Note(11)), Err(SendError::Full(Overload::Bytes { .. }, _))), "too big for ever");
    gate.open();
    assert_eq!(sender.send(Tell::Note(1)).unwrap(), Sent::Queued);
    assert_eq!(probe.take(3).await, [4, 5, 1]);
    assert_eq!(counters(&sender)["bytes"], 0);
}

/// waiting for room when the actor ends: back at once.
#[tokio::test(start_paused = true)]
async fn q12_a_waiting_sender_gets_its_message_back_at_the_end() {
    let ((sender, ended, _probe), _gate) = busy(Overflow::Wait, 1).await;
    let before = Instant::now();
    let waits = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send_by(Tell::Note(5), before + Duration::from_secs(60)).await }
    });
    until(|| counters(&sender)["waiting"] == 1).await;
    sender.actor().kill();
    assert!(matches!(waits.await.unwrap(), Err(SendError::NoProcess(Tell::Note(5)))));
    assert_eq!(Instant::now(), before);
    ended.await.unwrap();
    assert_eq!(counters(&sender)["credits_used"], 0);
}

/// pressure gets through a full mailbox, once, and the latest counts.
#[tokio::test(start_paused = true)]
async fn q14_pressure_gets_through_a_full_mailbox() {
    let ((sender, _ended, mut probe), gate) = busy(Overflow::Reject, 2).await;
    for level in [PressureLevel::Elevated, PressureLevel::Critical, PressureLevel::High] {
        sender.set_pressure(level);
    }
    gate.open();
    assert_eq!(probe.take(3).await, [0, 1, 1_000 + PressureLevel::High as u32]);
    assert!(probe.waiting().is_empty());
}

/// The wait of every message is counted, also of one that is not timed to the nanosecond, and room left by a spike is
/// given back.
#[tokio::test]
async fn waiting_time_and_room_are_accounted_for() {
    for overflow in [Overflow::Reject, Overflow::DropOldest] {
        let ((sender, _ended, mut probe), gate) = busy(overflow, 60).await;
        // A real pause, because the clock under test is the machine's.
        std::thread::sleep(Duration::from_millis(60));
        gate.open();
        probe.take(60).await;
        let seen = counters(&sender);
        assert!(seen["waited_ns"] > 0 && seen["waited_max_ns"] > 0);
        assert!(seen["waited_ms"] >= 60 * 50 && seen["waited_max_ms"] >= 50, "{overflow:?}: {seen:?}");
        assert_eq!(sender.compact(2) > 0, overflow == Overflow::DropOldest, "the others have no queue of their own");
    }
}

/// one that is larger than the whole mailbox makes room for itself in vain: it comes back, and nobody is dropped.
#[tokio::test(start_paused = true)]
async fn q15_what_can_never_fit_drops_nobody() {
    let weigh = |tell: &Tell| if let Tell::Note(n) = tell { u64::from(*n) } else { 0 };
    let builder = MailboxBuilder::messages(8).overflow(Overflow::DropOldest).bytes(10, weigh);
    let (sender, _ended, mut probe) = notes(builder).await;
    for _ in 0..3 {
        sender.send(Tell::Note(3)).unwrap();
    }
    let refused = sender.send(Tell::Note(11));
    assert!(matches!(
        refused,
        Err(SendError::Full(Overload::Bytes { held: 9, limit: 10, wanted: 11 }, Tell::Note(11)))
    ));
    let seen = counters(&sender);
    assert_eq!((seen["depth"], seen["dropped_oldest"], seen["refused"]), (3, 0, 1));
    until(|| counters(&sender)["depth"] == 0).await;
    assert_eq!(probe.waiting(), [3, 3, 3]);
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a drop that panics");
    }
}

/// Hands every delivery on, untaken; or never takes one.
struct HandsOn<M>(Option<ractor::ActorCell>, std::marker::PhantomData<fn(M)>);

impl<M: Send + 'static> Actor for HandsOn<M> {
    type Msg = Bounded<M>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, bounded: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if let Some(to) = &self.0 {
            to.send_message(bounded)?;
        }
        Ok(())
    }
}

/// A message whose own drop panics gives its credit back all the same.
#[tokio::test(start_paused = true)]
async fn a_message_whose_drop_panics_gives_its_credit_back() {
    for overflow in POLICIES {
        let actor = HandsOn::<Bomb>(None, std::marker::PhantomData);
        let (sender, ended) = MailboxBuilder::messages(4).overflow(overflow).spawn(None, actor, ()).await.unwrap();
        sender.send(Bomb).unwrap();
        assert!(ended.await.is_ok(), "the actor fails, and its task ends in order");
        let seen = sender.inspector().inspect().counters;
        assert_eq!((seen["depth"], seen["credits_used"], seen["dropped_unserved"]), (0, 0, 1), "{overflow:?}");
    }
}

/// what is handed on untaken keeps the credit of the mailbox that it was sent to until somebody takes it: its bound
/// is not got round by passing messages along.
#[tokio::test(start_paused = true)]
async fn q16_what_is_handed_on_untaken_keeps_its_credit() {
    let (last, _ended, mut probe) = notes(MailboxBuilder::messages(8)).await;
    let gate = Gate::closed();
    last.send(Tell::Pass(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    let hands_on = HandsOn::<Tell>(Some(last.actor()), std::marker::PhantomData);
    let (first, _ended) = MailboxBuilder::messages(2).spawn(None, hands_on, ()).await.unwrap();
    for n in 0..2 {
        first.send(Tell::Note(n)).unwrap();
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(first.send(Tell::Note(2)), Err(SendError::Full(..))), "both are still underway");
    gate.open();
    until(|| counters(&first)["depth"] == 0).await;
    assert_eq!(probe.waiting(), [0, 1]);
}
