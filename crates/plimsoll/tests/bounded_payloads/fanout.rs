use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use plimsoll::bounded::{
    ByteCap, Cap, Compact, CompactPolicy, CutOff, Delivery, Fanout, FanoutCaps, FanoutEvent, SubscribeError,
    Subscription,
};
use proptest::prelude::*;

/// What every message weighs beyond its payload.
const OVERHEAD: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

fn fanout(subscribers: usize, backlog: usize) -> Fanout {
    let caps = FanoutCaps {
        subscribers: Cap::new(subscribers).unwrap(),
        backlog: ByteCap::new(backlog as u64).unwrap(),
        patience: PATIENCE,
    };
    Fanout::new("topic", caps)
}

/// One subscriber in the plainest form.
#[derive(Debug)]
struct Model {
    delivery: Delivery,
    waiting: VecDeque<Bytes>,
    over_since: Option<Duration>,
    end: Option<CutOff>,
}

impl Model {
    fn bytes(&self) -> usize {
        self.waiting.iter().map(|message| message.len() + OVERHEAD).sum()
    }

    fn cut_off(&mut self, reason: CutOff) {
        self.waiting.clear();
        self.end = Some(reason);
    }

    fn check(&mut self, limit: usize, now: Duration) {
        let held = self.over_since.map_or(Duration::ZERO, |since| now - since);
        if held > PATIENCE && self.end.is_none() {
            self.cut_off(CutOff::Soft { bytes: self.bytes(), limit: limit / 2, held });
        }
    }

    fn publish(&mut self, message: &Bytes, limit: usize, now: Duration) {
        if self.end.is_some() {
            return;
        }
        if self.delivery == Delivery::Latest {
            self.waiting.clear();
            self.waiting.push_back(message.clone());
            return;
        }
        let bytes = self.bytes() + message.len() + OVERHEAD;
        if bytes > limit {
            return self.cut_off(CutOff::Hard { bytes, limit });
        }
        self.check(limit, now);
        if self.end.is_none() {
            self.waiting.push_back(message.clone());
            if bytes > limit / 2 {
                self.over_since.get_or_insert(now);
            }
        }
    }

    fn take(&mut self, limit: usize) -> Option<Result<Bytes, CutOff>> {
        let message = self.waiting.pop_front();
        if self.bytes() <= limit / 2 {
            self.over_since = None;
        }
        message.map(Ok).or(self.end.map(Err))
    }
}

#[derive(Debug, Clone)]
enum Op {
    Subscribe(bool),
    Publish(usize),
    Take { who: prop::sample::Index, messages: usize },
    Leave(prop::sample::Index),
    Wait(u64),
    Sweep,
    Compact,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<bool>().prop_map(Op::Subscribe),
        12 => (0..260_usize).prop_map(Op::Publish),
        6 => (any::<prop::sample::Index>(), 1..4_usize).prop_map(|(who, messages)| Op::Take { who, messages }),
        1 => any::<prop::sample::Index>().prop_map(Op::Leave),
        4 => (0..4_000_u64).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
        1 => Just(Op::Compact),
    ]
}

const LIMIT: usize = 700;
const SUBSCRIBERS: usize = 4;

proptest! {
    #![proptest_config(crate::config())]

    /// F-12, F-13: each subscriber gets what its model gets, is cut off when and why its model is, and no longer counts from
    /// that moment on; what one does changes nothing for another.
    #[test]
    fn fanout_serves_every_subscriber_like_its_model(ops in prop::collection::vec(op(), 1..70)) {
        let mut fanout = fanout(SUBSCRIBERS, LIMIT);
        let start = Instant::now();
        let mut now = Duration::ZERO;
        let mut subscribers: Vec<(Subscription, Model)> = Vec::new();
        let mut refused = 0;
        for op in ops {
            match op {
                Op::Subscribe(latest) => {
                    let delivery = if latest { Delivery::Latest } else { Delivery::Every };
                    let live = subscribers.iter().filter(|(_, model)| model.end.is_none()).count();
                    match fanout.subscribe(delivery) {
                        Ok(subscription) => {
                            prop_assert!(live < SUBSCRIBERS);
                            let model = Model { delivery, waiting: VecDeque::new(), over_since: None, end: None };
                            subscribers.push((subscription, model));
                        }
                        Err(error) => {
                            prop_assert_eq!(error, SubscribeError::Full { cap: SUBSCRIBERS });
                            prop_assert_eq!(live, SUBSCRIBERS);
                            refused += 1;
                        }
                    }
                }
                Op::Publish(length) => {
                    let message = Bytes::from(vec![7; length]);
                    let before = subscribers.iter().filter(|(_, model)| model.end.is_none()).count();
                    let published = fanout.publish_at(message.clone(), start + now).unwrap();
                    subscribers.iter_mut().for_each(|(_, model)| model.publish(&message, LIMIT, now));
                    let after = subscribers.iter().filter(|(_, model)| model.end.is_none()).count();
                    prop_assert_eq!((published.reached, published.cut_off), (after, before - after));
                }
                Op::Take { who, messages } if !subscribers.is_empty() => {
                    let (subscription, model) = who.get_mut(&mut subscribers);
                    let mut told = false;
                    for _ in 0..messages {
                        let expected = model.take(LIMIT).filter(|next| next.is_ok() || !told);
                        let next = subscription.try_next();
                        if let (Some(Ok(next)), Some(Ok(expected))) = (&next, &expected) {
                            prop_assert!(next.is_empty() || next.as_ptr() == expected.as_ptr(), "the same bytes");
                        }
                        told = matches!(next, Some(Err(_)));
                        prop_assert_eq!(next, expected);
                        if told {
                            break;
                        }
                    }
                    if told {
                        subscribers.retain(|(_, model)| model.end.is_none() || !model.waiting.is_empty());
                    }
                }
                Op::Leave(who) if !subscribers.is_empty() => drop(subscribers.swap_remove(who.index(subscribers.len()))),
                Op::Take { .. } | Op::Leave(_) => {}
                Op::Wait(ms) => now += Duration::from_millis(ms),
                Op::Sweep => {
                    let before = subscribers.iter().filter(|(_, model)| model.end.is_none()).count();
                    let cut_off = fanout.sweep_at(start + now);
                    subscribers.iter_mut().for_each(|(_, model)| model.check(LIMIT, now));
                    let after = subscribers.iter().filter(|(_, model)| model.end.is_none()).count();
                    prop_assert_eq!(cut_off, before - after);
                }
                Op::Compact => drop(fanout.compact(&CompactPolicy::new(1, 1))),
            }
            let live = subscribers.iter().filter(|(_, model)| model.end.is_none());
            prop_assert_eq!(fanout.len(), live.clone().count(), "whoever is cut off or gone has left the table");
            prop_assert_eq!(fanout.counters().entries().level().used, fanout.len() as u64);
            prop_assert_eq!(fanout.backlog(), live.map(|(_, model)| model.bytes()).sum::<usize>());
            for (_, model) in &subscribers {
                prop_assert!(model.bytes() <= LIMIT);
            }
        }
        prop_assert_eq!(fanout.counters().refused(), refused);
    }
}

/// F-11, R-6: a message is encoded once for a thousand subscribers, all of whom get the same bytes, and not at all for none.
#[test]
fn one_encoding_and_one_buffer_for_all() {
    let fanout = fanout(1_000, 1 << 20);
    let mut encoded = 0;
    let mut encode = || {
        encoded += 1;
        Bytes::from(vec![1; 100_000])
    };
    fanout.publish_with(&mut encode).unwrap();
    let mut subscribers: Vec<_> = (0..1_000).map(|_| fanout.subscribe(Delivery::Every).unwrap()).collect();
    fanout.publish_with(&mut encode).unwrap();
    let buffers: std::collections::HashSet<_> =
        subscribers.iter_mut().map(|subscriber| subscriber.try_next().unwrap().unwrap().as_ptr()).collect();
    assert_eq!((encoded, buffers.len()), (1, 1));
}

/// F-12: the hard limit is 1 MiB by default, half of it may wait for five seconds.
#[test]
fn the_default_limits_are_those_of_the_documentation() {
    let caps = FanoutCaps::default();
    assert_eq!((caps.backlog.get(), caps.patience), (1 << 20, Duration::from_secs(5)));
    let fanout = Fanout::new("topic", caps);
    let _stalled = fanout.subscribe(Delivery::Every).unwrap();
    let at = Instant::now();
    fanout.publish_at(vec![0; 512 << 10].into(), at).unwrap();
    assert_eq!(fanout.sweep_at(at + Duration::from_secs(5)), 0);
    assert_eq!(fanout.sweep_at(at + Duration::from_millis(5_001)), 1);
    assert!(fanout.publish_at(vec![0; 1 << 20].into(), at).is_err(), "no empty queue could take it");
    assert_eq!(fanout.counters().counted(FanoutEvent::RefusedTooLarge), 1);
}

/// F-11: a viewer sees the latest value and never holds more than one; what it missed is counted.
#[test]
fn a_viewer_sees_the_latest_and_is_never_cut_off() {
    let fanout = fanout(1, 1_000);
    let mut viewer = fanout.subscribe(Delivery::Latest).unwrap();
    for n in 0..100_u8 {
        fanout.publish(vec![n; 900].into()).unwrap();
        assert_eq!(fanout.backlog(), 964);
    }
    assert_eq!(viewer.try_next().unwrap().unwrap()[0], 99);
    assert_eq!(viewer.try_next(), None);
    assert_eq!(fanout.counters().counted(FanoutEvent::Replaced), 99);
}

/// F-12: whoever is stuck passing on an earlier message hears of its end at once, without reading.
#[tokio::test(start_paused = true)]
async fn a_stalled_reader_is_told_while_it_is_stuck() {
    let fanout = fanout(2, 1_000);
    let mut stalled = fanout.subscribe(Delivery::Every).unwrap();
    let mut quick = fanout.subscribe(Delivery::Every).unwrap();
    let stuck = tokio::spawn(async move {
        tokio::select! {
            () = std::future::pending() => unreachable!("the write never ends"),
            reason = stalled.cut_off() => (reason, stalled.next().await, stalled.next().await),
        }
    });
    tokio::task::yield_now().await;
    for _ in 0..3 {
        fanout.publish(vec![0; 300].into()).unwrap();
        assert!(matches!(quick.next().await, Some(Ok(_))), "the other one is not delayed");
    }
    let told = CutOff::Hard { bytes: 3 * 364, limit: 1_000 };
    assert_eq!(stuck.await.unwrap(), (told, Some(Err(told)), None));
    assert_eq!((fanout.len(), fanout.backlog()), (1, 0));
}

/// F-12: others are not delayed by one message: the reader that reads has every message before the next is published, in
/// the same turn of its task, whatever the stalled one holds.
#[tokio::test(start_paused = true)]
async fn a_stalled_subscriber_delays_nobody() {
    let fanout = fanout(2, 1 << 20);
    let _stalled = fanout.subscribe(Delivery::Every).unwrap();
    let mut quick = fanout.subscribe(Delivery::Every).unwrap();
    for n in 0..2_000_u32 {
        fanout.publish(Bytes::copy_from_slice(&n.to_be_bytes().repeat(256))).unwrap();
        let message = quick.try_next().expect("it is there already").unwrap();
        assert_eq!(message[..4], n.to_be_bytes());
    }
    assert_eq!(fanout.len(), 1, "2,000 messages of 1 KiB were too much for the stalled one");
    assert_eq!(fanout.counters().counted(FanoutEvent::CutOffHard), 1);
}

/// F-12: closing lets every subscriber read what it has and then tells it.
#[tokio::test(start_paused = true)]
async fn closing_tells_everybody_behind_their_messages() {
    let fanout = fanout(10, 1_000);
    let mut reader = fanout.subscribe(Delivery::Every).unwrap();
    let mut waiting = fanout.subscribe(Delivery::Latest).unwrap();
    let waiting = tokio::spawn(async move { waiting.next().await });
    tokio::task::yield_now().await;
    let clone = fanout.clone();
    drop(fanout);
    clone.publish("last".into()).unwrap();
    assert_eq!(waiting.await.unwrap(), Some(Ok("last".into())));
    drop(clone);
    assert_eq!(reader.next().await, Some(Ok("last".into())));
    assert_eq!(reader.next().await, Some(Err(CutOff::Closed)));
    assert_eq!(reader.next().await, None);
}
