//! The real supervisor against a reference model: random trees to depth 3, random operations and ends, starts that fail,
//! hang or answer nothing, under paused time.
//!
//! `PLIMSOLL_CASES` sets the number of cases, `PLIMSOLL_FIRST_SEED` where they begin (`random`: somewhere new),
//! `PLIMSOLL_SEED` replays one case. The normal run tries the cases from seed 0, those that once differed, and some that
//! nobody has seen before, whose first seed it prints; `just model` looks further.

mod model;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::plan::{self, End, Op, Random};
use model::reference::{Book, Reachable, Reference, Sup};
use model::world;
use plimsoll::supervisor::SupervisorRef;
use tokio::time::Instant;

const CASES: u64 = 10_000;
/// Cases in which rules and reference once differed.
const ONCE_DIFFERENT: [u64; 3] = [4_294_971_908, 82_931_523_569_459, 3_193_232_716_190];
/// Further cases of the normal run, from a seed that is another each time.
const NEW_CASES: u64 = 2_000;

/// Cases that ended before their twenty steps were done, because two things were due at once.
static CUT_SHORT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
enum Step {
    End(Vec<String>, String, End),
    Operate(Vec<String>, u32, Op),
    Pass(u64),
}

/// What happens next, chosen by where the model is.
fn step(random: &mut Random, model: &Reference, op: u32) -> Step {
    let places = model.reachable();
    let place = &places[random.below(places.len() as u64) as usize];
    match random.below(10) {
        0..=3 => end(random, place).unwrap_or(Step::Pass(230)),
        4..=6 => operation(random, place, op),
        _ => Step::Pass(pass(random, model)),
    }
}

fn end(random: &mut Random, place: &Reachable) -> Option<Step> {
    if !place.stopping.is_empty() && random.one_in(3) {
        let id = place.stopping[random.below(place.stopping.len() as u64) as usize].clone();
        return Some(Step::End(place.path.clone(), id, End::Kill));
    }
    if place.up.is_empty() {
        return None;
    }
    let (id, is_sup) = place.up[random.below(place.up.len() as u64) as usize].clone();
    let end = match is_sup {
        true => End::Kill,
        false => random.pick(&[End::Normal, End::Shutdown, End::Upgrade, End::Fail, End::Fail, End::Fail, End::Kill]),
    };
    Some(Step::End(place.path.clone(), id, end))
}

fn operation(random: &mut Random, place: &Reachable, op: u32) -> Step {
    let id = match random.one_in(8) || place.ids.is_empty() {
        true => "nobody".to_owned(),
        false => place.ids[random.below(place.ids.len() as u64) as usize].clone(),
    };
    let what = match random.below(7) {
        0..=1 => Op::Terminate(id),
        2..=3 => Op::Restart(id),
        4 => Op::Delete(id),
        5 => Op::Start(plan::kid(random, 3, place.auto_shutdown, id)),
        _ => Op::Start(plan::kid(random, place.depth, place.auto_shutdown, format!("n{op}"))),
    };
    Step::Operate(place.path.clone(), op, what)
}

/// Some time; or to the edge of the last window; or to the next thing that is due.
fn pass(random: &mut Random, model: &Reference) -> u64 {
    let now = model.book.now;
    if let (Some((charged, period)), true) = (model.book.last_charge, random.one_in(3)) {
        let edge = charged + period + random.below(2);
        if edge > now {
            return edge - now;
        }
    }
    if let (Some(due), true) = (model.next_due(), random.one_in(3)) {
        return due - now;
    }
    random.pick(&[1, 50, 230, 700, 2_010, 6_530])
}

struct Case {
    top: SupervisorRef,
    shared: world::Shared,
    model: Reference,
    epoch: Instant,
    history: Vec<String>,
}

impl Case {
    async fn run(seed: u64) -> Result<(), String> {
        let mut random = Random(seed);
        let plan = plan::sup(&mut random, 1);
        // The first timer takes away what the clock is off from the timers' ticks.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let epoch = Instant::now();
        let mut book = Book::new(seed);
        let model = Sup::boot(&plan, "top", &mut book).expect("no boot fails");
        let shared = world::Shared::new(seed);
        let top = world::build(&plan, "top", &shared).start().await.expect("no boot fails");
        let mut case = Self {
            top,
            shared,
            model: Reference { top: model, book, tie: false },
            epoch,
            history: vec![format!("{plan:?}")],
        };
        case.compare().await?;
        for op in 0..20 {
            if case.model.is_over() || case.model.tie {
                break;
            }
            let step = step(&mut random, &case.model, op);
            case.perform(step).await?;
        }
        case.stop().await
    }

    async fn perform(&mut self, step: Step) -> Result<(), String> {
        self.history.push(format!("{} ms: {step:?}", self.model.book.now));
        match step {
            Step::End(path, id, end) => {
                world::end(&self.top, &path, &id, end);
                self.model.end(&path, &id, end);
            }
            Step::Operate(path, op, what) => {
                world::operate(&self.top, &path, op, what.clone(), &self.shared);
                self.model.operate(&path, op, what);
            }
            Step::Pass(ms) => self.pass(ms).await,
        }
        self.compare().await
    }

    async fn pass(&mut self, ms: u64) {
        let until = self.model.book.now + ms;
        tokio::time::sleep_until(self.epoch + Duration::from_millis(until)).await;
        self.model.pass(until);
    }

    /// Lets everything happen that happens now: time passes when nothing else can. The second millisecond is for
    /// operations that a hanging start holds up for one.
    async fn compare(&mut self) -> Result<(), String> {
        self.pass(2).await;
        // Also where that something came of itself at the end of the two.
        while self.model.book.moved_at + 1 >= self.model.book.now {
            self.pass(1).await;
        }
        if self.model.tie {
            return Ok(());
        }
        // What is due at this very moment is done, too.
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
        self.history.push(format!("    {}", self.model.shown()));
        let mut told = self.shared.told();
        told.sort();
        self.model.book.told.sort();
        let expected = std::mem::take(&mut self.model.book.told);
        self.same("answers", &told, &expected)?;
        let (events, expected) = (self.shared.events(), std::mem::take(&mut self.model.book.events));
        self.same("events", &by_supervisor(&events), &by_supervisor(&expected))?;
        self.same("tree", &world::shown(&self.top), &self.model.shown())
    }

    async fn stop(mut self) -> Result<(), String> {
        self.history.push(format!("{} ms: stop", self.model.book.now));
        let top = self.top.clone();
        let stopping = tokio::spawn(async move {
            top.stop().await.unwrap();
        });
        self.model.stop();
        self.compare().await?;
        if self.model.tie {
            CUT_SHORT.fetch_add(1, Ordering::Relaxed);
            return stopping.await.map_err(|panic| panic.to_string());
        }
        while let Some(due) = self.model.next_due() {
            let now = self.model.book.now;
            self.pass(due - now).await;
            self.compare().await?;
        }
        if self.model.tie {
            CUT_SHORT.fetch_add(1, Ordering::Relaxed);
            return stopping.await.map_err(|panic| panic.to_string());
        }
        tokio::time::timeout(Duration::from_millis(1), stopping)
            .await
            .map_err(|_| self.differs("the stop", &"goes on", &"is over"))?
            .expect("no panic");
        self.same("failures", &world::failures(&self.top), &self.model.failures().to_vec())
    }

    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, real: &T, model: &T) -> Result<(), String> {
        if real == model { Ok(()) } else { Err(self.differs(what, real, model)) }
    }

    fn differs(&self, what: &str, real: &impl std::fmt::Debug, model: &impl std::fmt::Debug) -> String {
        let tree = world::shown(&self.top);
        format!("{}\n{what} differ\n  real:  {real:?}\n  model: {model:?}\n  tree:  {tree}", self.history.join("\n"))
    }
}

/// Events in order, supervisor by supervisor: between two of them no order is promised.
fn by_supervisor(events: &[String]) -> Vec<(String, Vec<String>)> {
    let mut sorted: Vec<(String, Vec<String>)> = Vec::new();
    for event in events {
        let parent =
            event.rsplit_once('/').map_or("", |(parent, _)| parent.split_once(' ').map_or("", |(_, path)| path));
        match sorted.iter_mut().find(|(known, _)| known == parent) {
            Some((_, events)) => events.push(event.clone()),
            None => sorted.push((parent.to_owned(), vec![event.clone()])),
        }
    }
    sorted.sort();
    sorted
}

fn run(seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let ran = std::panic::catch_unwind(|| runtime.block_on(Case::run(seed)));
    ran.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_supervisor_does_what_the_reference_says() {
    if let Some(seed) = number("PLIMSOLL_SEED") {
        println!("seed {seed}");
        if let Err(difference) = run(seed) {
            panic!("PLIMSOLL_SEED={seed}\n{difference}");
        }
        return;
    }
    let cases = number("PLIMSOLL_CASES").unwrap_or(CASES);
    let somewhere = std::env::var("PLIMSOLL_FIRST_SEED").is_ok_and(|seed| seed == "random");
    let anew = rand::random::<u64>() >> 16;
    match number("PLIMSOLL_FIRST_SEED") {
        Some(first) => explore(first, cases),
        None if somewhere => explore(anew, cases),
        None => {
            explore(0, cases);
            ONCE_DIFFERENT.iter().for_each(|seed| explore(*seed, 1));
            explore(anew, NEW_CASES.min(cases));
        }
    }
}

fn explore(first: u64, cases: u64) {
    println!("{cases} cases from PLIMSOLL_FIRST_SEED={first}");
    CUT_SHORT.store(0, Ordering::Relaxed);
    let halves = [first..first + cases / 2, first + cases / 2..first + cases];
    std::thread::scope(|scope| {
        let halves = halves.map(|half| {
            scope.spawn(move || half.into_iter().find_map(|seed| run(seed).err().map(|difference| (seed, difference))))
        });
        for half in halves {
            match half.join() {
                Ok(None) => {}
                Ok(Some((seed, difference))) => panic!("replay with PLIMSOLL_SEED={seed}\n{difference}"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let cut_short = CUT_SHORT.load(Ordering::Relaxed);
    println!("{cut_short} of them cut short: something was due in two supervisors at once");
    assert!(cut_short <= 5 + cases / 20, "too many to prove much");
}
