use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::model::{Act, Model, Verdict};
use crate::bounded::pool::{
    CloseOutcome, Closing, Creation, EntryKey, Lease, LruPool, PoolAction, PoolEvent, PoolRefusal, PoolSettings,
    Requested, Sharing, WaitKey, WhenFull,
};
use crate::bounded::{Cap, Compact, CompactPolicy};

#[derive(Debug, Clone)]
enum Op {
    Request { key: u8, wait: bool },
    Release(usize),
    Discard(usize),
    Created(usize),
    Failed(usize),
    Abandoned(usize),
    Closed(usize),
    Insert(u8),
    Replace(u8),
    Lease(usize),
    Retire(usize),
    Cancel(usize),
    Advance(u64),
    SetCap(usize),
    Compact,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let pick = || 0_usize..64;
    prop_oneof![
        10 => (0_u8..6, any::<bool>()).prop_map(|(key, wait)| Op::Request { key, wait }),
        6 => pick().prop_map(Op::Release),
        1 => pick().prop_map(Op::Discard),
        6 => pick().prop_map(Op::Created),
        2 => pick().prop_map(Op::Failed),
        2 => pick().prop_map(Op::Abandoned),
        4 => pick().prop_map(Op::Closed),
        2 => (0_u8..6).prop_map(Op::Insert),
        2 => (0_u8..6).prop_map(Op::Replace),
        2 => pick().prop_map(Op::Lease),
        2 => pick().prop_map(Op::Retire),
        2 => pick().prop_map(Op::Cancel),
        3 => (1_u64..400).prop_map(Op::Advance),
        1 => (1_usize..6).prop_map(Op::SetCap),
        1 => Just(Op::Compact),
        1 => Just(Op::Close),
    ]
}

/// The pool with everything outside of it: handles that are open, users, callers, work under way.
struct World {
    pool: LruPool<u8, u32, u32>,
    model: Model,
    now: Instant,
    next: u32,
    open: BTreeSet<u32>,
    leases: Vec<(Lease, u32)>,
    creations: Vec<(Creation, u8, Option<Closing>)>,
    closings: Vec<Closing>,
    waiting: BTreeMap<u32, WaitKey>,
    entries: Vec<(EntryKey, u32)>,
}

impl World {
    fn new(sharing: Sharing, per_key: usize, cap: usize) -> Self {
        let settings = PoolSettings {
            cap: Cap::new(cap).unwrap(),
            sharing,
            per_key: Cap::new(per_key).unwrap(),
            waiting: Cap::of::<5>(),
            idle_time: Duration::from_millis(700),
            retry_first: Duration::from_millis(100),
            retry_longest: Duration::from_millis(350),
            ..PoolSettings::default()
        };
        Self {
            model: Model::new(settings.clone()),
            pool: LruPool::new(settings),
            now: Instant::now(),
            next: 0,
            open: BTreeSet::new(),
            leases: Vec::new(),
            creations: Vec::new(),
            closings: Vec::new(),
            waiting: BTreeMap::new(),
            entries: Vec::new(),
        }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn lease(&mut self, lease: Lease) -> u32 {
        let handle = *self.pool.value(lease.entry()).expect("a leased handle is open");
        assert!(self.open.contains(&handle), "a lease of a closed handle");
        self.entries.push((lease.entry(), handle));
        self.leases.push((lease, handle));
        handle
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Request { key, wait } => self.request(key, if wait { WhenFull::Wait } else { WhenFull::Refuse }),
            Op::Release(n) => {
                if let Some((lease, handle)) = take(&mut self.leases, n) {
                    self.pool.release(lease, self.now);
                    self.model.release(handle, self.now);
                }
            }
            Op::Discard(n) => {
                if let Some((lease, handle)) = take(&mut self.leases, n) {
                    self.pool.discard(lease, self.now);
                    self.model.retire(handle);
                    self.model.release(handle, self.now);
                }
            }
            Op::Created(n) => self.created(n),
            Op::Failed(n) => {
                if let Some((creation, key, evicted)) = take(&mut self.creations, n) {
                    self.closings.extend(evicted);
                    let nth = self.rank(&creation, key);
                    let failed = self.pool.failed(creation, self.now);
                    let expected = nth.map_or(Vec::new(), |nth| self.model.failed(key, nth, self.now));
                    assert_eq!(failed, expected);
                    self.waiting.retain(|waiter, _| !failed.contains(waiter));
                }
            }
            Op::Abandoned(n) => {
                if let Some((creation, key, evicted)) = take(&mut self.creations, n) {
                    self.closings.extend(evicted);
                    if let Some(nth) = self.rank(&creation, key) {
                        self.model.creation_abandoned(key, nth);
                    }
                    self.pool.creation_abandoned(creation);
                }
            }
            Op::Closed(n) => {
                if let Some(closing) = take(&mut self.closings, n) {
                    let outcome = [CloseOutcome::Closed, CloseOutcome::Failed, CloseOutcome::TimedOut][n % 3];
                    self.model.closed(closing.holds_place);
                    self.pool.closed(closing, outcome);
                }
            }
            Op::Insert(key) => {
                let handle = self.number();
                let inserted = self.pool.insert(key, handle, self.now);
                assert_eq!(inserted.is_ok(), self.model.insert(key, handle, self.now));
                if let Ok(entry) = inserted {
                    self.open.insert(handle);
                    self.entries.push((entry, handle));
                }
            }
            Op::Replace(key) => {
                let handle = self.number();
                let replaced = self.pool.replace(key, handle, self.now);
                assert_eq!(replaced.is_ok(), self.model.replace(key, handle, self.now));
                if let Ok(entry) = replaced {
                    self.open.insert(handle);
                    self.entries.push((entry, handle));
                }
            }
            Op::Lease(n) => {
                if let Some((entry, handle)) = self.entries.get(n % self.entries.len().max(1)).copied() {
                    let lease = self.pool.lease(entry);
                    assert_eq!(lease.is_some(), self.model.lease(handle));
                    self.leases.extend(lease.map(|lease| (lease, handle)));
                }
            }
            Op::Retire(n) => {
                if let Some((entry, handle)) = self.entries.get(n % self.entries.len().max(1)).copied() {
                    assert_eq!(self.pool.retire(entry), self.model.retire(handle));
                }
            }
            Op::Cancel(n) => {
                let waiter = self.waiting.keys().nth(n % self.waiting.len().max(1)).copied();
                if let Some(waiter) = waiter {
                    let wait = self.waiting.remove(&waiter).unwrap();
                    assert!(self.pool.cancel(wait) && self.model.cancel(waiter));
                    assert!(!self.pool.cancel(wait), "a caller is taken back once");
                }
            }
            Op::Advance(millis) => {
                self.now += Duration::from_millis(millis);
                self.pool.expire(self.now);
                self.model.expire(self.now, Duration::from_millis(700));
            }
            Op::SetCap(cap) => {
                self.pool.set_cap(Cap::new(cap).unwrap());
                self.model.set_cap(cap);
            }
            Op::Compact => {
                self.pool.compact(&CompactPolicy::new(1, 0));
            }
            Op::Close => {
                self.pool.close();
                self.model.close();
            }
        }
        self.perform_actions();
        self.check();
    }

    fn request(&mut self, key: u8, when_full: WhenFull) {
        let waiter = self.number();
        let expected = self.model.request(key, when_full, waiter, self.now);
        let got = match self.pool.request(&key, when_full, waiter, self.now) {
            Requested::Leased(lease) => Verdict::Leased(self.lease(lease)),
            Requested::Waiting(wait) => {
                self.waiting.insert(waiter, wait);
                Verdict::Waits
            }
            Requested::Refused(refusal, back) => {
                assert_eq!(back, waiter);
                match refusal {
                    PoolRefusal::AtCapacity { .. } => Verdict::AtCapacity,
                    PoolRefusal::Busy => Verdict::Busy,
                    PoolRefusal::TooManyWaiting { .. } => Verdict::TooManyWaiting,
                    PoolRefusal::BackingOff { .. } => Verdict::BackingOff,
                    PoolRefusal::Closed => Verdict::Closed,
                    PoolRefusal::Occupied => unreachable!(),
                }
            }
        };
        assert_eq!(got, expected);
    }

    fn created(&mut self, n: usize) {
        let Some((creation, key, evicted)) = take(&mut self.creations, n) else { return };
        self.closings.extend(evicted);
        let handle = self.number();
        self.open.insert(handle);
        let nth = self.rank(&creation, key);
        let result = self.pool.created(creation, handle, self.now);
        let kept = nth.is_some_and(|nth| self.model.created(key, nth, handle, self.now));
        assert_eq!(result.is_ok(), kept);
        if let Err((closing, value)) = result {
            assert!(value == handle && self.open.remove(&handle));
            self.closings.push(closing);
        }
    }

    /// Which of the key's creations in progress this is, in the order of their rows. `None` when an inserted handle has taken
    /// its row.
    fn rank(&self, creation: &Creation, key: u8) -> Option<usize> {
        let taken = |entry: EntryKey| self.entries.iter().any(|(other, _)| *other == entry);
        let others = self.creations.iter().filter(|(other, of, _)| *of == key && !taken(other.entry()));
        let before = others.filter(|(other, ..)| other.entry() < creation.entry()).count();
        (!taken(creation.entry())).then_some(before)
    }

    fn perform_actions(&mut self) {
        let mut acts = Vec::new();
        while let Some(action) = self.pool.next_action() {
            acts.push(match action {
                PoolAction::Create { creation, key, evicted } => {
                    let mut closing = None;
                    let evicted = evicted.map(|(duty, _, handle)| {
                        self.close_handle(handle);
                        closing = Some(duty);
                        handle
                    });
                    self.creations.push((creation, key, closing));
                    Act::Create { key, evicted }
                }
                PoolAction::Abandon { entry } => {
                    let creation = self.creations.iter().find(|(creation, ..)| creation.entry() == entry);
                    Act::Abandon { key: creation.expect("a creation under way").1 }
                }
                PoolAction::Close { closing, value, .. } => {
                    self.close_handle(value);
                    self.closings.push(closing);
                    Act::Close { handle: value }
                }
                PoolAction::Grant { waiter, lease } => {
                    self.waiting.remove(&waiter).expect("it waited");
                    Act::Grant { waiter, handle: self.lease(lease) }
                }
                PoolAction::Refuse { waiter, .. } => {
                    self.waiting.remove(&waiter).expect("it waited");
                    Act::Refuse { waiter }
                }
            });
        }
        let mut expected = std::mem::take(&mut self.model.acts);
        acts.sort();
        expected.sort();
        assert_eq!(acts, expected);
    }

    /// Closed once, and never under a user.
    fn close_handle(&mut self, handle: u32) {
        assert!(self.open.remove(&handle), "closed twice");
        assert!(self.leases.iter().all(|(_, leased)| *leased != handle), "closed under its user");
    }

    fn check(&mut self) {
        assert_eq!(self.pool.len(), self.model.places());
        assert_eq!(self.pool.waiting(), self.model.waiting());
        assert_eq!(self.pool.waiting(), self.waiting.len());
        assert_eq!(self.open.len(), self.model.handles(), "open handles = entries");
        for key in 0..6 {
            assert_eq!(self.pool.find(&key).map(|(_, handle)| *handle), self.model.find(key));
        }
        self.pool.check_invariants();
        self.pool.check_counters(self.leases.len());
    }
}

fn take<T>(list: &mut Vec<T>, n: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list.swap_remove(n % list.len())) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// M-2, M-5, M-13, M-16, M-19, R-1: after any sequence of operations the pool has done what lists searched from end to
    /// end would do: it evicts the least recently used idle handle, closes each handle exactly once and none under its user,
    /// makes one for all callers that share it and up to `per_key` where they do not, and its index, lists and counters
    /// agree with its rows after every step.
    #[test]
    fn a_pool_does_what_the_naive_model_does(
        exclusive in any::<bool>(),
        per_key in 1_usize..4,
        cap in 1_usize..5,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(if exclusive { Sharing::Exclusive } else { Sharing::Shared }, per_key, cap);
        for op in &ops {
            world.step(op);
        }
        // At the end everything comes back and nothing is left.
        world.step(&Op::Close);
        while !world.pool.is_drained() {
            for op in [Op::Release(0), Op::Created(0), Op::Closed(0)] {
                world.step(&op);
            }
        }
        prop_assert!(world.open.is_empty());
        let counters = world.pool.counters();
        prop_assert_eq!(counters.counted(PoolEvent::Opened), counters.counted(PoolEvent::Closed));
        prop_assert_eq!(counters.entries().read().used, 0);
    }
}
