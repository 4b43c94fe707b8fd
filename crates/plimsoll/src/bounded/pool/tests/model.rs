//! The naive model of a pool: plain lists that are searched from end to end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bounded::pool::{PoolSettings, Sharing, WhenFull};

/// An action in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    Create { key: u8, evicted: Option<u32> },
    Abandon { key: u8 },
    Close { handle: u32 },
    Grant { waiter: u32, handle: u32 },
    Refuse { waiter: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Leased(u32),
    Waits,
    AtCapacity,
    Busy,
    TooManyWaiting,
    BackingOff,
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Queued,
    Creating,
    Live { handle: u32, leases: u32, used_at: Instant, retired: bool, replaced: bool },
}

#[derive(Debug, Clone)]
struct Row {
    /// Counts up: the rows of a key are used in this order.
    number: u32,
    key: u8,
    kind: Kind,
}

impl Row {
    fn is_retired(&self) -> bool {
        matches!(self.kind, Kind::Live { retired: true, .. })
    }
}

/// Queued rows are in the order of their requests, live ones in the order of last use.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) cap: usize,
    settings: PoolSettings,
    rows: Vec<Row>,
    next: u32,
    waiters: BTreeMap<u8, Vec<u32>>,
    pub(super) closing_in_place: usize,
    failing: Vec<(u8, u32, Instant)>,
    open: bool,
    pub(super) acts: Vec<Act>,
}

impl Model {
    pub(super) fn new(settings: PoolSettings) -> Self {
        Self {
            cap: settings.cap.get(),
            settings,
            rows: Vec::new(),
            next: 0,
            waiters: BTreeMap::new(),
            closing_in_place: 0,
            failing: Vec::new(),
            open: true,
            acts: Vec::new(),
        }
    }

    fn exclusive(&self) -> bool {
        self.settings.sharing == Sharing::Exclusive
    }

    fn per_key(&self) -> usize {
        if self.exclusive() { self.settings.per_key.get() } else { 1 }
    }

    fn queue(&mut self, key: u8) -> &mut Vec<u32> {
        self.waiters.entry(key).or_default()
    }

    fn add(&mut self, key: u8, kind: Kind) -> usize {
        self.next += 1;
        self.rows.push(Row { number: self.next, key, kind });
        self.rows.len() - 1
    }

    /// The rows of a key that are not retired and of this kind, by number.
    fn of_key(&self, key: u8, kind: impl Fn(&Kind) -> bool) -> Vec<usize> {
        let found = |at: &usize| {
            let row = &self.rows[*at];
            row.key == key && !row.is_retired() && kind(&row.kind)
        };
        let mut rows: Vec<_> = (0..self.rows.len()).filter(found).collect();
        rows.sort_by_key(|at| self.rows[*at].number);
        rows
    }

    fn pending(&self, key: u8) -> usize {
        self.of_key(key, |kind| !matches!(kind, Kind::Live { .. })).len()
    }

    fn of_handle(&self, handle: u32) -> Option<usize> {
        self.rows.iter().position(|row| matches!(row.kind, Kind::Live { handle: h, .. } if h == handle))
    }

    fn creating(&self, key: u8, nth: usize) -> Option<usize> {
        self.of_key(key, |kind| *kind == Kind::Creating).get(nth).copied()
    }

    fn first_idle(&self) -> Option<usize> {
        self.rows.iter().position(|row| matches!(row.kind, Kind::Live { leases: 0, .. }))
    }

    pub(super) fn places(&self) -> usize {
        self.live() + self.closing_in_place
    }

    fn live(&self) -> usize {
        let has_place = |row: &&Row| !matches!(row.kind, Kind::Queued | Kind::Live { replaced: true, .. });
        self.rows.iter().filter(has_place).count()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.values().map(Vec::len).sum()
    }

    pub(super) fn handles(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.kind, Kind::Live { .. })).count()
    }

    pub(super) fn find(&self, key: u8) -> Option<u32> {
        let first = *self.of_key(key, |kind| matches!(kind, Kind::Live { .. })).first()?;
        match self.rows[first].kind {
            Kind::Live { handle, .. } => Some(handle),
            _ => None,
        }
    }

    fn has_room(&self) -> bool {
        self.places() < self.cap || (self.places() == self.cap && self.first_idle().is_some())
    }

    pub(super) fn request(&mut self, key: u8, when_full: WhenFull, waiter: u32, now: Instant) -> Verdict {
        let exclusive = self.exclusive();
        for at in self.of_key(key, |_| true) {
            if let Kind::Live { handle, leases, .. } = &mut self.rows[at].kind
                && (*leases == 0 || !exclusive)
            {
                *leases += 1;
                return Verdict::Leased(*handle);
            }
        }
        let refuse = when_full == WhenFull::Refuse;
        let backing_off = self.failing.iter().any(|(failing, _, until)| *failing == key && *until > now);
        if !self.open {
            return Verdict::Closed;
        }
        if self.waiting() >= self.settings.waiting.get() {
            return Verdict::TooManyWaiting;
        }
        let rows = self.of_key(key, |_| true).len();
        let room = !refuse || self.has_room();
        if rows == 0 && backing_off {
            return Verdict::BackingOff;
        }
        if rows == 0 && !room {
            return Verdict::AtCapacity;
        }
        // One handle for each caller that waits, as far as the key may have them.
        let grows = rows < self.per_key() && self.pending(key) <= self.queue(key).len() && !backing_off && room;
        if rows == 0 || grows {
            self.add(key, Kind::Queued);
        } else if refuse && self.creating(key, 0).is_none() {
            let queued = !self.of_key(key, |kind| *kind == Kind::Queued).is_empty();
            return if queued { Verdict::AtCapacity } else { Verdict::Busy };
        }
        self.queue(key).push(waiter);
        self.assign_places();
        Verdict::Waits
    }

    /// `false` where the handle has to be closed as surplus. `nth` of the creations for `key`.
    pub(super) fn created(&mut self, key: u8, nth: usize, handle: u32, now: Instant) -> bool {
        let Some(at) = self.creating(key, nth) else { return false };
        if !self.open {
            self.rows.remove(at);
            self.assign_places();
            return false;
        }
        self.fill(at, handle, now);
        true
    }

    fn fill(&mut self, at: usize, handle: u32, now: Instant) {
        let mut row = self.rows.remove(at);
        self.failing.retain(|(failing, ..)| *failing != row.key);
        let most = if self.exclusive() { 1 } else { usize::MAX };
        let queue = self.queue(row.key);
        let granted = queue.drain(..most.min(queue.len())).collect::<Vec<_>>();
        self.acts.extend(granted.iter().map(|waiter| Act::Grant { waiter: *waiter, handle }));
        let key = row.key;
        row.kind = Kind::Live { handle, leases: granted.len() as u32, used_at: now, retired: false, replaced: false };
        self.rows.push(row);
        self.remove_surplus(key);
        self.assign_places();
    }

    pub(super) fn failed(&mut self, key: u8, nth: usize, now: Instant) -> Vec<u32> {
        let Some(at) = self.creating(key, nth) else { return Vec::new() };
        let failures = self.failing.iter().find(|(failing, ..)| *failing == key).map_or(0, |(_, n, _)| *n) + 1;
        self.failing.retain(|(failing, ..)| *failing != key);
        let pause = self.settings.retry_first * 2_u32.pow(failures - 1);
        self.failing.push((key, failures, now + pause.min(self.settings.retry_longest)));
        if self.failing.len() > self.settings.cap.get() {
            self.failing.remove(0);
        }
        self.rows.remove(at);
        let alone = self.of_key(key, |_| true).is_empty();
        let queue = self.queue(key);
        let most = if alone { queue.len() } else { queue.len().min(1) };
        let failed = queue.drain(..most).collect();
        self.remove_surplus(key);
        self.assign_places();
        failed
    }

    pub(super) fn creation_abandoned(&mut self, key: u8, nth: usize) {
        let Some(at) = self.creating(key, nth) else { return };
        if self.pending(key) > self.queue(key).len() {
            self.rows.remove(at);
            self.remove_surplus(key);
            self.assign_places();
        } else {
            self.acts.push(Act::Create { key, evicted: None });
        }
    }

    /// The row that a handle was put into whose creation is abandoned for it, as the number of that creation.
    pub(super) fn insert(&mut self, key: u8, handle: u32, now: Instant) -> bool {
        if !self.open {
            return false;
        }
        let at = if let Some(at) = self.of_key(key, |kind| *kind == Kind::Creating).last().copied() {
            self.acts.push(Act::Abandon { key });
            at
        } else if self.pending(key) > 0 || self.of_key(key, |_| true).len() >= self.per_key() || !self.has_room() {
            return false;
        } else {
            if self.places() == self.cap
                && let Some(handle) = self.evict()
            {
                self.acts.push(Act::Close { handle });
            }
            self.add(key, Kind::Creating)
        };
        self.fill(at, handle, now);
        true
    }

    pub(super) fn replace(&mut self, key: u8, handle: u32, now: Instant) -> bool {
        let former = self.find(key).and_then(|former| self.of_handle(former)).filter(|_| self.open);
        let Some(at) = former else { return self.insert(key, handle, now) };
        let replaced = self.rows.iter().filter(|row| matches!(row.kind, Kind::Live { replaced: true, .. })).count();
        if replaced >= self.cap {
            return false;
        }
        let Kind::Live { leases, retired, replaced, .. } = &mut self.rows[at].kind else { unreachable!() };
        (*retired, *replaced) = (true, true);
        if *leases == 0 {
            self.close_row(at);
        }
        let at = self.add(key, Kind::Creating);
        self.fill(at, handle, now);
        true
    }

    pub(super) fn lease(&mut self, handle: u32) -> bool {
        let exclusive = self.exclusive();
        let Some(at) = self.of_handle(handle) else { return false };
        match &mut self.rows[at].kind {
            Kind::Live { leases, retired: false, .. } if *leases == 0 || !exclusive => *leases += 1,
            _ => return false,
        }
        true
    }

    pub(super) fn release(&mut self, handle: u32, now: Instant) {
        let at = self.of_handle(handle).unwrap();
        let key = self.rows[at].key;
        let idle = self.queue(key).is_empty();
        let Kind::Live { leases, used_at, retired, .. } = &mut self.rows[at].kind else { unreachable!() };
        *leases -= 1;
        if *leases > 0 {
            return;
        }
        *used_at = now;
        if *retired {
            self.close_row(at);
        } else if idle {
            let row = self.rows.remove(at);
            self.rows.push(row);
            self.assign_places();
        } else {
            *leases = 1;
            let waiter = self.queue(key).remove(0);
            self.acts.push(Act::Grant { waiter, handle });
            self.remove_surplus(key);
        }
    }

    pub(super) fn retire(&mut self, handle: u32) -> bool {
        let Some(at) = self.of_handle(handle) else { return false };
        let key = self.rows[at].key;
        let Kind::Live { leases, retired, .. } = &mut self.rows[at].kind else { unreachable!() };
        if *retired {
            return false;
        }
        *retired = true;
        if *leases == 0 {
            self.close_row(at);
        }
        while self.pending(key) < self.queue(key).len() && self.of_key(key, |_| true).len() < self.per_key() {
            self.add(key, Kind::Queued);
        }
        self.assign_places();
        true
    }

    pub(super) fn cancel(&mut self, waiter: u32) -> bool {
        let Some(key) = self.waiters.iter().find(|(_, queue)| queue.contains(&waiter)).map(|(key, _)| *key) else {
            return false;
        };
        self.queue(key).retain(|w| *w != waiter);
        if self.pending(key) > self.queue(key).len() {
            match self.of_key(key, |kind| *kind == Kind::Queued).last() {
                Some(at) => drop(self.rows.remove(*at)),
                None => self.acts.push(Act::Abandon { key }),
            }
        }
        true
    }

    pub(super) fn expire(&mut self, now: Instant, idle_time: Duration) {
        while let Some(at) = self
            .rows
            .iter()
            .position(|row| matches!(row.kind, Kind::Live { leases: 0, used_at, .. } if used_at + idle_time <= now))
        {
            self.close_row(at);
        }
    }

    pub(super) fn set_cap(&mut self, cap: usize) {
        self.cap = cap;
        self.assign_places();
    }

    pub(super) fn closed(&mut self, held: bool) {
        self.closing_in_place -= usize::from(held);
        self.assign_places();
    }

    pub(super) fn close(&mut self) {
        self.open = false;
        let refused = std::mem::take(&mut self.waiters).into_values().flatten();
        self.acts.extend(refused.map(|waiter| Act::Refuse { waiter }));
        self.rows.retain(|row| row.kind != Kind::Queued);
        self.acts
            .extend(self.rows.iter().filter(|row| row.kind == Kind::Creating).map(|row| Act::Abandon { key: row.key }));
        while let Some(at) = self.first_idle() {
            self.close_row(at);
        }
        for row in &mut self.rows {
            if let Kind::Live { retired, .. } = &mut row.kind {
                *retired = true;
            }
        }
    }

    /// Rows that wait for a place although fewer callers wait than handles are to be made.
    fn remove_surplus(&mut self, key: u8) {
        while self.pending(key) > self.queue(key).len()
            && let Some(at) = self.of_key(key, |kind| *kind == Kind::Queued).last()
        {
            self.rows.remove(*at);
        }
    }

    fn assign_places(&mut self) {
        while self.live() > self.cap
            && let Some(at) = self.first_idle()
        {
            self.close_row(at);
        }
        while self.rows.iter().any(|row| row.kind == Kind::Queued) {
            let evicted = if self.places() < self.cap {
                None
            } else if self.places() == self.cap && self.first_idle().is_some() {
                self.evict()
            } else {
                break;
            };
            let Some(at) = self.rows.iter().position(|row| row.kind == Kind::Queued) else { break };
            self.rows[at].kind = Kind::Creating;
            self.acts.push(Act::Create { key: self.rows[at].key, evicted });
        }
    }

    fn evict(&mut self) -> Option<u32> {
        let at = self.first_idle()?;
        match self.rows.remove(at).kind {
            Kind::Live { handle, .. } => Some(handle),
            _ => None,
        }
    }

    fn close_row(&mut self, at: usize) {
        if let Kind::Live { handle, replaced, .. } = self.rows.remove(at).kind {
            self.closing_in_place += usize::from(!replaced);
            self.acts.push(Act::Close { handle });
        }
    }
}
