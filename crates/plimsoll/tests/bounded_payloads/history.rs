use std::collections::BTreeMap;

use plimsoll::bounded::{
    ByteCap, Cap, Compact, CompactPolicy, EventTooLarge, History, HistoryCaps, HistoryEvent, HistoryIndex,
};
use proptest::prelude::*;

/// Counts by key, as an owner would keep them beside the events.
#[derive(Debug, Default, PartialEq)]
struct Tally(BTreeMap<u8, Vec<u32>>);

impl HistoryIndex<u8, u32> for Tally {
    fn added(&mut self, key: &u8, event: &u32) {
        self.0.entry(*key).or_default().push(*event);
    }

    fn removed(&mut self, key: &u8, event: &u32) {
        let own = self.0.get_mut(key).expect("known key");
        own.retain(|known| known != event);
        if own.is_empty() {
            self.0.remove(key);
        }
    }
}

/// The rules in the plainest form: a list, searched from its beginning every time.
#[derive(Debug, Default)]
struct Model {
    next: u64,
    events: Vec<(u64, u8, u32, u64)>,
}

impl Model {
    fn push(&mut self, caps: &HistoryCaps, key: u8, event: u32, weight: u64) -> Result<u64, EventTooLarge> {
        if weight > caps.bytes.get() {
            return Err(EventTooLarge { weight, cap: caps.bytes.get() });
        }
        if self.events.len() == caps.events.get() {
            self.events.drain(..caps.batch.get().min(self.events.len()));
        }
        if self.events.iter().filter(|row| row.1 == key).count() == caps.per_key.get() {
            let oldest = self.events.iter().position(|row| row.1 == key).expect("at its cap");
            self.events.remove(oldest);
        }
        while self.events.iter().map(|row| row.3).sum::<u64>() + weight > caps.bytes.get() {
            self.events.remove(0);
        }
        self.events.push((self.next, key, event, weight));
        self.next += 1;
        Ok(self.next - 1)
    }
}

#[derive(Debug, Clone)]
enum Op {
    Push { key: u8, weight: u64 },
    Forget { key: u8 },
    Compact,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..6_u8, 0..30_u64).prop_map(|(key, weight)| Op::Push { key, weight }),
        1 => (0..6_u8).prop_map(|key| Op::Forget { key }),
        1 => Just(Op::Compact),
    ]
}

fn caps() -> impl Strategy<Value = HistoryCaps> {
    (1..14_usize, 1..5_usize, 1..6_usize, 20..120_u64).prop_map(|(events, batch, per_key, bytes)| HistoryCaps {
        events: Cap::new(events).unwrap(),
        batch: Cap::new(batch).unwrap(),
        per_key: Cap::new(per_key).unwrap(),
        bytes: ByteCap::new(bytes).unwrap(),
    })
}

fn check(history: &History<u8, u32, Tally>, model: &Model, caps: &HistoryCaps) {
    let rows: Vec<_> = history.iter().map(|(number, key, event)| (number, *key, *event)).collect();
    let expected: Vec<_> = model.events.iter().map(|&(number, key, event, _)| (number, key, event)).collect();
    assert_eq!(rows, expected);
    assert!(history.len() <= caps.events.get());
    assert_eq!(history.weight(), model.events.iter().map(|row| row.3).sum::<u64>());
    assert!(history.weight() <= caps.bytes.get());
    let mut tally = Tally::default();
    for key in 0..6 {
        let own: Vec<_> = history.events_of(&key).map(|(number, event)| (number, key, *event)).collect();
        assert!(own.len() <= caps.per_key.get());
        assert_eq!(own, expected.iter().filter(|row| row.1 == key).copied().collect::<Vec<_>>());
        own.iter().for_each(|row| tally.added(&row.1, &row.2));
    }
    assert_eq!(history.index(), &tally);
    assert_eq!(history.keys(), tally.0.len(), "a key without events is forgotten");
    let middle = model.next / 2;
    assert!(history.after(middle).map(|row| row.0).eq(expected.iter().map(|row| row.0).filter(|n| *n > middle)));
    let counters = history.counters();
    assert_eq!(counters.entries().read().used, history.len() as u64);
    assert_eq!(counters.bytes().unwrap().read().used, history.weight());
    assert_eq!(counters.counted(HistoryEvent::Pushed), model.next);
}

proptest! {
    #![proptest_config(crate::config())]

    /// F-4, F-5, F-9, F-10, M-13: caps in all, by key and by bytes; indexes equal rows after every step.
    #[test]
    fn history_keeps_what_the_model_keeps(caps in caps(), ops in prop::collection::vec(op(), 1..60)) {
        let mut history = History::with_index("events", caps, Tally::default());
        let mut model = Model::default();
        let (mut forgotten, mut refused) = (0, 0);
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                Op::Push { key, weight } => {
                    let pushed = history.push(key, step as u32, weight);
                    refused += u64::from(pushed.is_err());
                    prop_assert_eq!(pushed, model.push(&caps, key, step as u32, weight));
                }
                Op::Forget { key } => {
                    let before = model.events.len();
                    model.events.retain(|row| row.1 != key);
                    prop_assert_eq!(history.remove_key(&key), before - model.events.len());
                    forgotten += (before - model.events.len()) as u64;
                }
                Op::Compact => drop(history.compact(&CompactPolicy::new(1, 1))),
            }
            check(&history, &model, &caps);
        }
        let counters = history.counters();
        let trimmed = [HistoryEvent::TrimmedForEvents, HistoryEvent::TrimmedForKey, HistoryEvent::TrimmedForBytes];
        let trimmed: u64 = trimmed.into_iter().map(|event| counters.counted(event)).sum();
        prop_assert_eq!(counters.counted(HistoryEvent::Pushed), trimmed + forgotten + history.len() as u64);
        prop_assert_eq!(counters.counted(HistoryEvent::RefusedTooLarge), refused);
    }
}

/// F-4: with the defaults there are never more than 10,000 events, and at the cap the oldest 100 go together.
#[test]
fn at_ten_thousand_the_oldest_hundred_go_first() {
    let mut history = History::new("events", HistoryCaps::default());
    for event in 0..10_000 {
        history.push((), event, 1).unwrap();
    }
    assert_eq!(history.len(), 10_000);
    history.push((), 10_000, 1).unwrap();
    assert_eq!(history.len(), 9_901);
    assert_eq!(history.iter().next(), Some((100, &(), &100)));
    assert_eq!(history.counters().entries().read().high_water, 10_000, "the cap is the peak");
}

/// F-9: a talkative key takes from itself and not from the others.
#[test]
fn one_key_cannot_push_out_the_others() {
    let caps = HistoryCaps { events: Cap::of::<50_000>(), per_key: Cap::of::<100>(), ..HistoryCaps::default() };
    let mut history = History::new("events", caps);
    history.push("quiet", 0, 1).unwrap();
    for event in 1..100_000 {
        history.push("talkative", event, 1).unwrap();
    }
    assert_eq!((history.events_of(&"quiet").count(), history.events_of(&"talkative").count()), (1, 100));
    assert_eq!(history.len(), 101);
}
