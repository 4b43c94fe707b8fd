//! The naive model of a pool: plain lists that are searched from end to end.

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
    Wanted,
    Creating,
    Live { handle: u32, leases: u32, used_at: Instant, retired: bool, replaced: bool },
}

#[derive(Debug, Clone)]
struct Row {
    key: u8,
    kind: Kind,
    waiters: Vec<u32>,
}

/// Wanted rows stand in the order in which they were asked for, live ones in the order of last use.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) cap: usize,
    settings: PoolSettings,
    rows: Vec<Row>,
    pub(super) holding: usize,
    failing: Vec<(u8, u32, Instant)>,
    open: bool,
    pub(super) acts: Vec<Act>,
}

impl Model {
    pub(super) fn new(settings: PoolSettings) -> Self {
        let cap = settings.cap.get();
        Self { cap, settings, rows: Vec::new(), holding: 0, failing: Vec::new(), open: true, acts: Vec::new() }
    }

    fn found(&mut self, key: u8) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.key == key && !matches!(row.kind, Kind::Live { retired: true, .. }))
    }

    fn of_handle(&mut self, handle: u32) -> Option<usize> {
        self.rows.iter().position(|row| matches!(row.kind, Kind::Live { handle: h, .. } if h == handle))
    }

    fn creating(&self, key: u8) -> Option<usize> {
        self.rows.iter().position(|row| row.key == key && row.kind == Kind::Creating)
    }

    fn first_idle(&self) -> Option<usize> {
        self.rows.iter().position(|row| matches!(row.kind, Kind::Live { leases: 0, .. }))
    }

    pub(super) fn places(&self) -> usize {
        self.live() + self.holding
    }

    fn live(&self) -> usize {
        let has_place = |row: &&Row| !matches!(row.kind, Kind::Wanted | Kind::Live { replaced: true, .. });
        self.rows.iter().filter(has_place).count()
    }

    pub(super) fn waiting(&self) -> usize {
        self.rows.iter().map(|row| row.waiters.len()).sum()
    }

    pub(super) fn handles(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.kind, Kind::Live { .. })).count()
    }

    pub(super) fn find(&mut self, key: u8) -> Option<u32> {
        match self.found(key)?.kind {
            Kind::Live { handle, .. } => Some(handle),
            _ => None,
        }
    }

    fn has_room(&self) -> bool {
        self.places() < self.cap || (self.places() == self.cap && self.first_idle().is_some())
    }

    pub(super) fn request(&mut self, key: u8, when_full: WhenFull, waiter: u32, now: Instant) -> Verdict {
        let exclusive = self.settings.sharing == Sharing::Exclusive;
        if let Some(Row { kind: Kind::Live { handle, leases, .. }, .. }) = self.found(key)
            && (*leases == 0 || !exclusive)
        {
            *leases += 1;
            return Verdict::Leased(*handle);
        }
        let refuse = when_full == WhenFull::Refuse;
        let room = self.has_room();
        let backing_off = self.failing.iter().any(|(failing, _, until)| *failing == key && *until > now);
        if !self.open {
            return Verdict::Closed;
        }
        if self.waiting() >= self.settings.waiting.get() {
            return Verdict::TooManyWaiting;
        }
        match self.found(key) {
            Some(Row { kind: Kind::Live { .. }, .. }) if refuse => return Verdict::Busy,
            Some(Row { kind: Kind::Wanted, .. }) if refuse => return Verdict::AtCapacity,
            Some(row) => row.waiters.push(waiter),
            None if backing_off => return Verdict::BackingOff,
            None if refuse && !room => return Verdict::AtCapacity,
            None => self.rows.push(Row { key, kind: Kind::Wanted, waiters: vec![waiter] }),
        }
        self.serve();
        Verdict::Waits
    }

    /// `None` where the handle has to be closed as one too many.
    pub(super) fn created(&mut self, key: u8, handle: u32, now: Instant) -> bool {
        let Some(at) = self.creating(key) else { return false };
        if !self.open {
            self.rows.remove(at);
            self.serve();
            return false;
        }
        self.settle(at, handle, now);
        true
    }

    fn settle(&mut self, at: usize, handle: u32, now: Instant) {
        let mut row = self.rows.remove(at);
        self.failing.retain(|(failing, ..)| *failing != row.key);
        let granted = if self.settings.sharing == Sharing::Exclusive { 1 } else { row.waiters.len() };
        let granted = row.waiters.drain(..granted.min(row.waiters.len())).collect::<Vec<_>>();
        self.acts.extend(granted.iter().map(|waiter| Act::Grant { waiter: *waiter, handle }));
        row.kind = Kind::Live { handle, leases: granted.len() as u32, used_at: now, retired: false, replaced: false };
        self.rows.push(row);
        self.serve();
    }

    pub(super) fn failed(&mut self, key: u8, now: Instant) -> Vec<u32> {
        let Some(at) = self.creating(key) else { return Vec::new() };
        let failures = self.failing.iter().find(|(failing, ..)| *failing == key).map_or(0, |(_, n, _)| *n) + 1;
        self.failing.retain(|(failing, ..)| *failing != key);
        let pause = self.settings.retry_first * 2_u32.pow(failures - 1);
        self.failing.push((key, failures, now + pause.min(self.settings.retry_longest)));
        if self.failing.len() > self.settings.cap.get() {
            self.failing.remove(0);
        }
        let told = self.rows.remove(at).waiters;
        self.serve();
        told
    }

    pub(super) fn creation_abandoned(&mut self, key: u8) {
        let Some(at) = self.creating(key) else { return };
        if self.rows[at].waiters.is_empty() {
            self.rows.remove(at);
            self.serve();
        } else {
            self.acts.push(Act::Create { key, evicted: None });
        }
    }

    pub(super) fn insert(&mut self, key: u8, handle: u32, now: Instant) -> bool {
        if !self.open {
            return false;
        }
        match self.found(key).map(|row| row.kind.clone()) {
            Some(Kind::Creating) => self.acts.push(Act::Abandon { key }),
            Some(_) => return false,
            None if !self.has_room() => return false,
            None => {
                if self.places() == self.cap
                    && let Some(handle) = self.evict()
                {
                    self.acts.push(Act::Close { handle });
                }
                self.rows.push(Row { key, kind: Kind::Creating, waiters: Vec::new() });
            }
        }
        let at = self.creating(key).unwrap();
        self.settle(at, handle, now);
        true
    }

    pub(super) fn replace(&mut self, key: u8, handle: u32, now: Instant) -> bool {
        let former = self.find(key).and_then(|former| self.of_handle(former)).filter(|_| self.open);
        let Some(at) = former else { return self.insert(key, handle, now) };
        let replaced = self.rows.iter().filter(|row| matches!(row.kind, Kind::Live { replaced: true, .. })).count();
        if replaced >= self.cap {
            return false;
        }
        let waiters = std::mem::take(&mut self.rows[at].waiters);
        let Kind::Live { leases, retired, replaced, .. } = &mut self.rows[at].kind else { unreachable!() };
        (*retired, *replaced) = (true, true);
        if *leases == 0 {
            self.close_row(at);
        }
        self.rows.push(Row { key, kind: Kind::Creating, waiters });
        self.settle(self.rows.len() - 1, handle, now);
        true
    }

    pub(super) fn lease(&mut self, handle: u32) -> bool {
        let exclusive = self.settings.sharing == Sharing::Exclusive;
        let Some(at) = self.of_handle(handle) else { return false };
        match &mut self.rows[at].kind {
            Kind::Live { leases, retired: false, .. } if *leases == 0 || !exclusive => *leases += 1,
            _ => return false,
        }
        true
    }

    pub(super) fn release(&mut self, handle: u32, now: Instant) {
        let at = self.of_handle(handle).unwrap();
        let idle = self.rows[at].waiters.is_empty();
        let Kind::Live { leases, used_at, retired, .. } = &mut self.rows[at].kind else { unreachable!() };
        *leases -= 1;
        if *leases > 0 {
            return;
        }
        *used_at = now;
        *leases = u32::from(!idle);
        if *retired {
            self.close_row(at);
        } else if idle {
            let row = self.rows.remove(at);
            self.rows.push(row);
            self.serve();
        } else {
            let waiter = self.rows[at].waiters.remove(0);
            self.acts.push(Act::Grant { waiter, handle });
        }
    }

    pub(super) fn retire(&mut self, handle: u32) -> bool {
        let Some(at) = self.of_handle(handle) else { return false };
        let key = self.rows[at].key;
        let waiters = std::mem::take(&mut self.rows[at].waiters);
        let Kind::Live { leases, retired, .. } = &mut self.rows[at].kind else { unreachable!() };
        if *retired {
            return false;
        }
        *retired = true;
        if *leases == 0 {
            self.close_row(at);
        }
        if !waiters.is_empty() {
            self.rows.push(Row { key, kind: Kind::Wanted, waiters });
            self.serve();
        }
        true
    }

    pub(super) fn cancel(&mut self, waiter: u32) -> bool {
        let Some(at) = self.rows.iter().position(|row| row.waiters.contains(&waiter)) else { return false };
        self.rows[at].waiters.retain(|w| *w != waiter);
        if self.rows[at].waiters.is_empty() {
            match self.rows[at].kind {
                Kind::Wanted => drop(self.rows.remove(at)),
                Kind::Creating => self.acts.push(Act::Abandon { key: self.rows[at].key }),
                Kind::Live { .. } => {}
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
        self.serve();
    }

    pub(super) fn closed(&mut self, held: bool) {
        self.holding -= usize::from(held);
        self.serve();
    }

    pub(super) fn close(&mut self) {
        self.open = false;
        for row in &mut self.rows {
            self.acts.extend(row.waiters.drain(..).map(|waiter| Act::Refuse { waiter }));
        }
        self.rows.retain(|row| row.kind != Kind::Wanted);
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

    fn serve(&mut self) {
        while self.live() > self.cap
            && let Some(at) = self.first_idle()
        {
            self.close_row(at);
        }
        while let Some(at) = self.rows.iter().position(|row| row.kind == Kind::Wanted) {
            let evicted = if self.places() < self.cap {
                None
            } else if self.places() == self.cap && self.first_idle().is_some() {
                self.evict()
            } else {
                break;
            };
            let at = self.rows.iter().position(|row| row.kind == Kind::Wanted).unwrap_or(at);
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
            self.holding += usize::from(!replaced);
            self.acts.push(Act::Close { handle });
        }
    }
}
