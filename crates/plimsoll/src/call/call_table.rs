//! The table of a server's open calls: their deadlines, their callers, and how many ended in which way.
//!
//! Pure rules: no clock, no task, no lock. Time comes in as ticks. `started = settled + open` holds after every
//! operation, because each changes both sides at once.

use plimsoll_sync::slots::{SlotKey, Slots};
use ractor::ActorId;

use super::caller_index::{CallerIndex, Entry, Link};
use crate::timer_wheel::TimerWheel;

/// How a call ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reply,
    AppError,
    Overloaded,
    Timeout,
    Died,
    ShuttingDown,
    Cancelled,
    Deadlock,
}

impl Outcome {
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Reply, "reply"),
        (Self::AppError, "app_error"),
        (Self::Overloaded, "overloaded"),
        (Self::Timeout, "timeout"),
        (Self::Died, "died"),
        (Self::ShuttingDown, "shutting_down"),
        (Self::Cancelled, "cancelled"),
        (Self::Deadlock, "deadlock"),
    ];
}

/// Calls that were opened and how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) started: u64,
    pub(crate) settled: [u64; Outcome::ALL.len()],
}

impl Tally {
    pub(crate) fn settled_in_all(&self) -> u64 {
        self.settled.iter().sum()
    }
}

/// Whether the server admits calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdmissionState {
    Open,
    /// It is stopping: what is open is served, nothing new is taken.
    Draining,
    /// It has ended.
    Closed,
}

/// Why a call was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    Draining,
    Closed,
    Full,
    CallerExited,
}

/// A call that has been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Its deadline is before all others: the deadline task must be woken.
    pub(crate) earliest: bool,
}

/// The open calls of one server; `C` is a handle to a call, `R` a request.
#[derive(Debug)]
pub(crate) struct CallTable<C, R> {
    open: Slots<Entry<C, R>>,
    deadlines: TimerWheel,
    callers: CallerIndex,
    /// Open calls whose request has been taken.
    begun: usize,
    tally: Tally,
    admission: AdmissionState,
    /// The tick until which the deadline task sleeps.
    wake_tick: u64,
}

impl<C: Clone, R> CallTable<C, R> {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            open: Slots::with_limit(limit),
            deadlines: TimerWheel::new(),
            callers: CallerIndex::new(),
            begun: 0,
            tally: Tally::default(),
            admission: AdmissionState::Open,
            wake_tick: u64::MAX,
        }
    }

    /// Opens a call that is due at tick `due`, perhaps of a bound caller; `make` makes its handle from its key.
    pub(crate) fn open(
        &mut self,
        due: u64,
        caller: Option<SlotKey>,
        request: R,
        make: impl FnOnce(SlotKey) -> C,
    ) -> Result<Opened, (NotAdmitted, R)> {
        let open = match self.admission {
            AdmissionState::Open if caller.is_none_or(|caller| self.callers.is_alive(caller)) => Ok(()),
            AdmissionState::Open => Err(NotAdmitted::CallerExited),
            AdmissionState::Draining => Err(NotAdmitted::Draining),
            AdmissionState::Closed => Err(NotAdmitted::Closed),
        };
        if let Err(why) = open {
            return Err((why, request));
        }
        let mut request = Some(request);
        let key = self.open.insert_with(|key| Entry { call: make(key), request: request.take(), link: Link::OFF }).ok();
        let key = match (key, request) {
            (Some(key), _) => key,
            (None, Some(request)) => return Err((NotAdmitted::Full, request)),
            (None, None) => unreachable!("a request goes into an entry or stays"),
        };
        if let Some(caller) = caller {
            self.callers.add(&mut self.open, caller, key);
        }
        self.deadlines.insert(key.index(), due);
        self.tally.started += 1;
        let earliest = due < self.wake_tick;
        if earliest {
            self.wake_tick = due;
        }
        Ok(Opened { earliest })
    }

    /// Takes the request of a call that begins; `None` if the call has settled.
    pub(crate) fn take_request(&mut self, key: SlotKey) -> Option<R> {
        let request = self.open.get_mut(key)?.request.take();
        self.begun += usize::from(request.is_some());
        request
    }

    /// Closes a call and frees everything that was kept for it.
    pub(crate) fn close(&mut self, key: SlotKey, outcome: Outcome) -> Option<Entry<C, R>> {
        self.callers.remove(&mut self.open, key);
        let entry = self.open.remove(key)?;
        self.deadlines.remove(key.index());
        self.begun -= usize::from(entry.request.is_none());
        self.tally.settled[outcome as usize] += 1;
        Some(entry)
    }

    /// Up to `slice` calls whose deadline has passed at `now`, for the caller to settle.
    pub(crate) fn expire(&mut self, now: u64, slice: usize) -> Vec<C> {
        let mut due = Vec::new();
        while due.len() < slice {
            let Some(index) = self.deadlines.pop(now) else { break };
            due.extend(self.open.at(index).map(|(_, entry)| entry.call.clone()));
        }
        due
    }

    /// Returns the tick until which the deadline task may sleep.
    pub(crate) fn next_wake(&mut self) -> Option<u64> {
        let next = self.deadlines.next();
        self.wake_tick = next.unwrap_or(u64::MAX);
        next
    }

    /// Admits no more calls; open calls stay open.
    pub(crate) fn drain(&mut self) {
        if self.admission == AdmissionState::Open {
            self.admission = AdmissionState::Draining;
        }
    }

    /// Admits no more calls and returns all open ones, for the caller to settle.
    pub(crate) fn close_admission(&mut self) -> Vec<C> {
        self.admission = AdmissionState::Closed;
        self.open_calls()
    }

    pub(crate) fn get(&self, key: SlotKey) -> Option<C> {
        self.open.get(key).map(|entry| entry.call.clone())
    }

    pub(crate) fn open_calls(&self) -> Vec<C> {
        self.open.iter().map(|(_, entry)| entry.call.clone()).collect()
    }

    /// Calls that have not begun.
    pub(crate) fn unbegun_calls(&self) -> Vec<C> {
        let queued = self.open.iter().filter(|(_, entry)| entry.request.is_some());
        queued.map(|(_, entry)| entry.call.clone()).collect()
    }

    /// How many calls have not begun.
    pub(crate) fn unbegun(&self) -> usize {
        self.open.len() - self.begun
    }

    /// Takes no more calls of a caller that has exited. Returns its key, if it was bound.
    pub(crate) fn caller_exited(&mut self, id: ActorId) -> Option<SlotKey> {
        self.callers.exited(id)
    }

    /// Up to `slice` open calls of a caller that has exited, for the caller to settle.
    pub(crate) fn calls_of(&mut self, caller: SlotKey, slice: usize) -> Vec<C> {
        let mut calls = Vec::new();
        while calls.len() < slice {
            let Some(key) = self.callers.first(&self.open, caller) else { break };
            self.callers.remove(&mut self.open, key);
            calls.extend(self.open.get(key).map(|entry| entry.call.clone()));
        }
        calls
    }

    pub(crate) fn callers(&mut self) -> &mut CallerIndex {
        &mut self.callers
    }

    pub(crate) fn admission(&self) -> AdmissionState {
        self.admission
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn timers(&self) -> usize {
        self.deadlines.len()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Releases slots and timer links beyond `factor` times what is needed. Returns the bytes released.
    pub(crate) fn compact(&mut self, factor: usize) -> usize {
        let slots = self.open.compact(factor);
        if slots == 0 { 0 } else { slots + self.deadlines.compact(self.open.capacity()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ractor::{Actor, ActorProcessingErr, ActorRef};

    use super::*;

    struct Idle;

    impl Actor for Idle {
        type Msg = ();
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    fn table() -> CallTable<SlotKey, ()> {
        CallTable::new(2)
    }

    #[test]
    fn a_closed_call_leaves_neither_slot_nor_timer() {
        let mut table = table();
        let mut key = None;
        table.open(10, None, (), |k| *key.insert(k)).unwrap();
        assert_eq!((table.in_flight(), table.timers()), (1, 1));
        assert!(table.close(key.unwrap(), Outcome::Reply).is_some());
        assert!(table.close(key.unwrap(), Outcome::Timeout).is_none());
        assert_eq!((table.in_flight(), table.timers(), table.tally().settled_in_all()), (0, 0, 1));
    }

    #[test]
    fn only_an_earlier_deadline_wakes_the_deadline_task() {
        let mut table = table();
        assert!(table.open(10, None, (), |k| k).unwrap().earliest);
        assert!(!table.open(20, None, (), |k| k).unwrap().earliest);
        assert_eq!(table.open(30, None, (), |k| k), Err((NotAdmitted::Full, ())));
        assert_eq!(table.expire(10, 8).len(), 1);
        assert_eq!(table.next_wake(), Some(20));
    }

    #[test]
    fn a_closed_table_says_why_it_admits_nothing() {
        let mut table = table();
        table.open(1, None, (), |k| k).unwrap();
        table.drain();
        assert_eq!(table.open(1, None, (), |k| k), Err((NotAdmitted::Draining, ())));
        assert_eq!(table.close_admission().len(), 1);
        table.drain();
        assert_eq!(table.open(1, None, (), |k| k), Err((NotAdmitted::Closed, ())));
    }

    /// M-16: from a caller to its calls and back, without a look at anybody else's.
    #[tokio::test]
    async fn an_exited_callers_calls_are_found_and_no_others() {
        let mut table: CallTable<SlotKey, ()> = CallTable::new(100);
        let mut callers = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (actor, _) = Actor::spawn(None, Idle, ()).await.unwrap();
            ids.push(actor.get_id());
            callers.push(table.callers().bind(&actor.get_cell()).0);
        }
        let mut of = [Vec::new(), Vec::new()];
        for n in 0..50 {
            table
                .open(n, Some(callers[n as usize % 2]), (), |k| {
                    of[n as usize % 2].push(k);
                    k
                })
                .unwrap();
        }
        // Every third call of the first settles on its own.
        for key in of[0].iter().step_by(3) {
            table.close(*key, Outcome::Reply);
        }
        let exited = table.caller_exited(ids[0]).unwrap();
        assert_eq!(table.open(1, Some(callers[0]), (), |k| k), Err((NotAdmitted::CallerExited, ())));
        let mut found = Vec::new();
        loop {
            let slice = table.calls_of(exited, 4);
            if slice.is_empty() {
                break;
            }
            found.extend(slice.iter().copied());
            slice.iter().for_each(|key| assert!(table.close(*key, Outcome::Cancelled).is_some()));
        }
        found.sort_unstable();
        let expected: Vec<_> = of[0].iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, key)| *key).collect();
        assert_eq!(found, expected);
        assert_eq!((table.in_flight(), table.timers()), (25, 25));
    }

    /// A call as the naive model keeps it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Known {
        key: SlotKey,
        due: u64,
        caller: Option<usize>,
        begun: bool,
        fired: bool,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Open { caller: Option<usize>, after: u64 },
        Begin(usize),
        Close(usize, usize),
        Advance(u64),
        Exit(usize),
        Drain,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (prop::option::of(0_usize..3), 0_u64..5_000).prop_map(|(caller, after)| Step::Open { caller, after }),
            2 => (0_usize..64).prop_map(Step::Begin),
            3 => (0_usize..64, 0..Outcome::ALL.len()).prop_map(|(nth, outcome)| Step::Close(nth, outcome)),
            2 => (0_u64..2_000).prop_map(Step::Advance),
            1 => (0_usize..3).prop_map(Step::Exit),
            1 => Just(Step::Drain),
        ];
        prop::collection::vec(step, 1..120)
    }

    fn runtime() -> (tokio::runtime::Runtime, Vec<ractor::ActorCell>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let actors = runtime.block_on(async {
            let mut actors = Vec::new();
            for _ in 0..3 {
                actors.push(Actor::spawn(None, Idle, ()).await.unwrap().0.get_cell());
            }
            actors
        });
        (runtime, actors)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The table is a list of calls, whatever is opened, begun, closed, expired or left.
        #[test]
        fn the_call_table_is_a_list_of_calls(steps in steps()) {
            const LIMIT: usize = 12;
            let (_runtime, actors) = runtime();
            let mut table: CallTable<SlotKey, u64> = CallTable::new(LIMIT as u32);
            let callers: Vec<_> = actors.iter().map(|actor| table.callers().bind(actor).0).collect();
            let mut model: Vec<Known> = Vec::new();
            let (mut exited, mut draining) = ([false; 3], false);
            let (mut now, mut started, mut wakes) = (0, 0_u64, u64::MAX);
            let mut settled = [0_u64; Outcome::ALL.len()];
            for step in steps {
                match step {
                    Step::Open { caller, after } => {
                        let due = now + after;
                        let mut made = None;
                        let opened = table.open(due, caller.map(|nth| callers[nth]), due, |key| *made.insert(key));
                        let expected = if draining {
                            Err((NotAdmitted::Draining, due))
                        } else if caller.is_some_and(|nth| exited[nth]) {
                            Err((NotAdmitted::CallerExited, due))
                        } else if model.len() == LIMIT {
                            Err((NotAdmitted::Full, due))
                        } else {
                            Ok(Opened { earliest: due < wakes })
                        };
                        prop_assert_eq!(opened, expected);
                        if opened.is_ok() {
                            wakes = wakes.min(due);
                            started += 1;
                            model.push(Known { key: made.unwrap(), due, caller, begun: false, fired: false });
                        }
                    }
                    Step::Begin(nth) if !model.is_empty() => {
                        let at = nth % model.len();
                        let call = &mut model[at];
                        prop_assert_eq!(table.take_request(call.key), (!call.begun).then_some(call.due));
                        call.begun = true;
                    }
                    Step::Close(nth, outcome) if !model.is_empty() => {
                        let call = model.remove(nth % model.len());
                        prop_assert!(table.close(call.key, Outcome::ALL[outcome].0).is_some());
                        prop_assert!(table.close(call.key, Outcome::Reply).is_none(), "closed once");
                        prop_assert!(table.get(call.key).is_none() && table.take_request(call.key).is_none());
                        settled[outcome] += 1;
                    }
                    Step::Begin(_) | Step::Close(..) => {}
                    Step::Advance(by) => {
                        now += by;
                        let mut due = table.expire(now, 100);
                        due.sort_unstable();
                        let mut expected = Vec::new();
                        for call in model.iter_mut().filter(|call| call.due <= now && !call.fired) {
                            call.fired = true;
                            expected.push(call.key);
                        }
                        expected.sort_unstable();
                        prop_assert_eq!(due, expected);
                        let next = model.iter().filter(|call| !call.fired).map(|call| call.due).min();
                        let wake = table.next_wake();
                        // A far deadline may be looked at early, never late.
                        prop_assert_eq!(wake.is_some(), next.is_some());
                        prop_assert!(wake.is_none_or(|wake| wake > now && next.is_some_and(|next| wake <= next)));
                        wakes = wake.unwrap_or(u64::MAX);
                    }
                    Step::Exit(nth) => {
                        prop_assert_eq!(table.caller_exited(actors[nth].get_id()), Some(callers[nth]));
                        exited[nth] = true;
                        let mut found = Vec::new();
                        loop {
                            let slice = table.calls_of(callers[nth], 2);
                            prop_assert!(slice.len() <= 2);
                            if slice.is_empty() {
                                break;
                            }
                            found.extend(slice);
                        }
                        found.sort_unstable();
                        let mut expected = Vec::new();
                        for call in model.iter_mut().filter(|call| call.caller == Some(nth)) {
                            call.caller = None;
                            expected.push(call.key);
                        }
                        expected.sort_unstable();
                        prop_assert_eq!(found, expected);
                    }
                    Step::Drain => {
                        table.drain();
                        draining = true;
                    }
                }
                let unbegun = model.iter().filter(|call| !call.begun).count();
                prop_assert_eq!((table.in_flight(), table.unbegun()), (model.len(), unbegun));
                prop_assert_eq!(table.timers(), model.iter().filter(|call| !call.fired).count());
                prop_assert_eq!(table.tally(), Tally { started, settled });
                prop_assert_eq!(table.tally().settled_in_all() + model.len() as u64, started);
                prop_assert_eq!(table.unbegun_calls().len(), unbegun);
                let admission = if draining { AdmissionState::Draining } else { AdmissionState::Open };
                prop_assert_eq!(table.admission(), admission);
            }
            let mut open = table.close_admission();
            open.sort_unstable();
            let mut expected: Vec<_> = model.iter().map(|call| call.key).collect();
            expected.sort_unstable();
            prop_assert_eq!(open, expected);
            prop_assert_eq!(table.open(now, None, 0, |key| key), Err((NotAdmitted::Closed, 0)));
            for caller in callers {
                prop_assert!(table.callers().unbind(caller), "the last client of this caller");
            }
            for call in model {
                table.close(call.key, Outcome::Died);
            }
            prop_assert_eq!((table.callers().len(), table.in_flight(), table.timers()), (0, 0, 0));
        }
    }
}
