//! The real dynamic supervisor, its rules and its table of slots, against a naive list of children: random starts, ends,
//! terminations and delays under paused time. The normal run tries the cases from seed 0 and some that nobody has seen
//! before, whose first seed it prints; `PLIMSOLL_FIRST_SEED` (`random`: somewhere new) looks further, `PLIMSOLL_SEED`
//! replays one case.

#[allow(dead_code, unreachable_pub, reason = "only the generator is used here")]
#[path = "model/plan.rs"]
mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plan::{Begin, End, Random};
use plimsoll::supervisor::{
    AutoShutdown, Backoff, BoxError, Child, ChildRef, DynamicSupervisor, DynamicSupervisorRef, Restart, Shutdown,
    StartError,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

const CASES: u64 = 3_000;
/// Further cases of the normal run, from a seed that is another each time.
const NEW_CASES: u64 = 600;
const MAX: u32 = 3;

/// How the `n`-th start of this child goes.
fn begin(seed: u64, serial: u32, n: u32) -> Begin {
    match (n, Random(seed ^ u64::from(serial) << 20 ^ u64::from(n) << 40).below(100)) {
        (_, 0..=9) => Begin::Fail,
        (_, 10..=14) => Begin::Ignore,
        (1.., 15..=24) => Begin::Hang,
        _ => Begin::Run,
    }
}

#[derive(Default)]
struct World {
    events: Vec<String>,
    told: Vec<(u32, String)>,
    starts: HashMap<u32, u32>,
    actors: HashMap<u32, ActorCell>,
}

type Shared = Arc<Mutex<World>>;

struct Puppet {
    serial: u32,
    stop_takes: u64,
    shared: Shared,
}

impl Actor for Puppet {
    type Msg = End;
    type State = bool;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<End>, (): ()) -> Result<bool, ActorProcessingErr> {
        let mut world = self.shared.lock().unwrap();
        world.events.push(format!("{} start", self.serial));
        world.actors.insert(self.serial, myself.get_cell());
        Ok(false)
    }

    async fn handle(&self, myself: ActorRef<End>, end: End, alone: &mut bool) -> Result<(), ActorProcessingErr> {
        *alone = true;
        match end {
            End::Normal => myself.stop(None),
            End::Shutdown => myself.stop(Some("shutdown".to_owned())),
            End::Upgrade => myself.stop(Some("upgrade".to_owned())),
            End::Fail => return Err("told to fail".into()),
            End::Kill => myself.kill(),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<End>, alone: &mut bool) -> Result<(), ActorProcessingErr> {
        if self.stop_takes > 0 && !*alone {
            tokio::time::sleep(Duration::from_millis(self.stop_takes)).await;
        }
        self.shared.lock().unwrap().events.push(format!("{} stop", self.serial));
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Up,
    Waiting(u64),
    Hanging,
    Stopping { ends: u64, overdue: bool },
}

#[derive(Debug)]
struct Kid {
    serial: u32,
    takes: u64,
    state: State,
    waiters: Vec<u32>,
}

struct Model {
    seed: u64,
    now: u64,
    restart: Restart,
    intensity: usize,
    period: u64,
    backoff: u64,
    auto_shutdown: AutoShutdown,
    kids: Vec<Kid>,
    charges: Vec<u64>,
    starts: HashMap<u32, u32>,
    closing: bool,
    events: Vec<String>,
    told: Vec<(u32, String)>,
    killed: usize,
}

const GRACE: u64 = 1_000;

impl Model {
    fn try_start(&mut self, serial: u32) -> Begin {
        let n = self.starts.entry(serial).or_default();
        *n += 1;
        let begins = begin(self.seed, serial, *n - 1);
        if begins == Begin::Run {
            self.events.push(format!("{serial} start"));
        }
        begins
    }

    fn start(&mut self, op: u32, serial: u32, takes: u64) {
        let answer = if self.closing {
            "shutting down"
        } else if self.kids.len() == MAX as usize {
            "full"
        } else {
            match self.try_start(serial) {
                Begin::Run => {
                    self.kids.push(Kid { serial, takes, state: State::Up, waiters: Vec::new() });
                    "started"
                }
                Begin::Ignore => "ignored",
                _ => "failed",
            }
        };
        self.told.push((op, answer.to_owned()));
    }

    fn position(&self, serial: u32) -> Option<usize> {
        self.kids.iter().position(|kid| kid.serial == serial)
    }

    fn gone(&mut self, index: usize) {
        let kid = self.kids.remove(index);
        self.told.extend(kid.waiters.into_iter().map(|op| (op, "ok".to_owned())));
    }

    fn begin_stop(&mut self, index: usize) {
        let kid = &mut self.kids[index];
        match kid.takes {
            0 => {
                self.events.push(format!("{} stop", kid.serial));
                self.gone(index);
            }
            takes if takes > GRACE => kid.state = State::Stopping { ends: self.now + GRACE, overdue: true },
            takes => kid.state = State::Stopping { ends: self.now + takes, overdue: false },
        }
    }

    fn terminate(&mut self, op: u32, serial: u32) {
        if self.closing {
            return self.told.push((op, "shutting down".to_owned()));
        }
        let Some(index) = self.position(serial) else { return self.told.push((op, "ok".to_owned())) };
        self.kids[index].waiters.push(op);
        match self.kids[index].state {
            State::Up => self.begin_stop(index),
            State::Waiting(_) | State::Hanging => self.gone(index),
            State::Stopping { .. } => {}
        }
    }

    fn end(&mut self, serial: u32, end: End) {
        let Some(index) = self.position(serial) else { return };
        if matches!(self.kids[index].state, State::Stopping { .. }) {
            return self.gone(index);
        }
        let failed = matches!(end, End::Fail | End::Kill);
        if !failed {
            self.events.push(format!("{serial} stop"));
        }
        let again = self.restart == Restart::Permanent || (self.restart == Restart::Transient && failed);
        if again {
            return self.again(index);
        }
        self.gone(index);
        let over = match self.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            // One that is being terminated does not count any more.
            AutoShutdown::AllSignificant => self.kids.iter().all(|kid| matches!(kid.state, State::Stopping { .. })),
        };
        if over {
            self.stop();
        }
    }

    fn again(&mut self, index: usize) {
        self.charges.push(self.now);
        let recent = self.charges.iter().filter(|then| **then + self.period >= self.now).count();
        if recent > self.intensity {
            self.kids.remove(index);
            return self.stop();
        }
        self.kids[index].state = State::Waiting(self.now + self.backoff);
    }

    fn stop(&mut self) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        let waiters = self.kids.iter_mut().flat_map(|kid| std::mem::take(&mut kid.waiters));
        self.told.extend(waiters.map(|op| (op, "shutting down".to_owned())));
        self.kids.retain(|kid| matches!(kid.state, State::Up | State::Stopping { .. }));
        for index in (0..self.kids.len()).rev() {
            if self.kids[index].state == State::Up {
                self.begin_stop(index);
            }
        }
    }

    fn settle(&mut self) {
        while let Some(index) = self.kids.iter().position(|kid| match kid.state {
            State::Waiting(due) | State::Stopping { ends: due, .. } => due <= self.now,
            _ => false,
        }) {
            let serial = self.kids[index].serial;
            match self.kids[index].state {
                State::Stopping { overdue, .. } => {
                    if overdue {
                        self.killed += usize::from(self.closing);
                    } else {
                        self.events.push(format!("{serial} stop"));
                    }
                    self.gone(index);
                }
                _ => match self.try_start(serial) {
                    Begin::Run => self.kids[index].state = State::Up,
                    Begin::Hang => self.kids[index].state = State::Hanging,
                    Begin::Ignore => self.gone(index),
                    Begin::Fail => self.again(index),
                },
            }
        }
    }

    fn pass(&mut self, until: u64) {
        let due = |model: &Self| {
            let dues = model.kids.iter().filter_map(|kid| match kid.state {
                State::Waiting(due) | State::Stopping { ends: due, .. } => Some(due),
                _ => None,
            });
            dues.min().filter(|due| *due <= until)
        };
        self.settle();
        while let Some(next) = due(self) {
            self.now = next;
            self.settle();
        }
        self.now = until;
    }
}

async fn case(seed: u64) -> Result<(), String> {
    let mut random = Random(seed);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let epoch = Instant::now();
    let mut model = Model {
        seed,
        now: 0,
        restart: random.pick(&[Restart::Permanent, Restart::Transient, Restart::Temporary]),
        intensity: random.pick(&[0, 1, 3, 5]),
        period: random.pick(&[1_000, 5_000]),
        backoff: random.pick(&[0, 170, 430]),
        auto_shutdown: AutoShutdown::Never,
        kids: Vec::new(),
        charges: Vec::new(),
        starts: HashMap::new(),
        closing: false,
        events: Vec::new(),
        told: Vec::new(),
        killed: 0,
    };
    if model.restart != Restart::Permanent {
        model.auto_shutdown =
            random.pick(&[AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant]);
    }
    let shared = Shared::default();
    let dynamic = start(&model, &shared).await;
    let Model { restart, intensity, period, backoff, auto_shutdown, .. } = &model;
    let mut history = vec![format!("{restart:?} {intensity} in {period}, {backoff}, {auto_shutdown:?}")];
    for op in 0..30 {
        if model.closing {
            break;
        }
        let serial = random.below(u64::from(op) + 1) as u32;
        let known = shared.lock().unwrap().actors.get(&serial).cloned();
        let step = random.below(10);
        history.push(format!("{}: step {step}, op {op}, child {serial}", model.now));
        match (step, known) {
            (0..=2, _) => {
                let takes = random.pick(&[0, 0, 310, 1_330]);
                ask(&dynamic, &shared, op, move |dynamic| async move {
                    dynamic.start_child((op, takes)).await.into_words()
                });
                model.start(op, op, takes);
            }
            (3..=5, Some(actor)) => {
                let end = random.pick(&[End::Normal, End::Shutdown, End::Upgrade, End::Fail, End::Fail, End::Kill]);
                match model.position(serial).map(|index| model.kids[index].state.clone()) {
                    Some(State::Up) if end == End::Kill => actor.kill(),
                    Some(State::Up) => actor.send_message(end).expect("it lives"),
                    Some(State::Stopping { .. }) => actor.kill(),
                    _ => {}
                }
                if model
                    .position(serial)
                    .is_some_and(|index| matches!(model.kids[index].state, State::Up | State::Stopping { .. }))
                {
                    model.end(serial, end);
                }
            }
            (6, Some(actor)) => {
                ask(&dynamic, &shared, op, move |dynamic| async move {
                    dynamic.terminate_child(&actor).await.map_or("shutting down", |()| "ok")
                });
                model.terminate(op, serial);
            }
            _ => {
                let until = model.now + random.pick(&[50, 230, 700, 2_010, 6_530]);
                tokio::time::sleep_until(epoch + Duration::from_millis(until)).await;
                model.pass(until);
            }
        }
        compare(&mut model, &dynamic, &shared, epoch)
            .await
            .map_err(|differ| format!("{}\n{differ}", history.join("\n")))?;
    }
    model.stop();
    let report = dynamic.stop().await.unwrap();
    model.pass(model.now + 10_000);
    let killed = report.stragglers().count();
    if model.killed == killed {
        Ok(())
    } else {
        Err(format!("{}\n{} killed, but {report}", history.join("\n"), model.killed))
    }
}

async fn start(model: &Model, shared: &Shared) -> DynamicSupervisorRef<(u32, u64)> {
    let (seed, world) = (model.seed, shared.clone());
    let builder = DynamicSupervisor::builder("model", move |parent: ActorCell, (serial, stop_takes): (u32, u64)| {
        let shared = world.clone();
        async move {
            let n = {
                let mut world = shared.lock().unwrap();
                let n = world.starts.entry(serial).or_default();
                *n += 1;
                *n - 1
            };
            match begin(seed, serial, n) {
                Begin::Run => {}
                Begin::Fail => return Err(BoxError::from("told to fail")),
                Begin::Ignore => return Err(StartError::Ignored.into()),
                Begin::Hang => std::future::pending().await,
            }
            let puppet = Puppet { serial, stop_takes, shared };
            Ok(Child::from(Puppet::spawn_linked(None, puppet, (), parent).await?))
        }
    });
    let backoff = match model.backoff {
        0 => Backoff::NONE,
        delay => Backoff::constant(Duration::from_millis(delay)),
    };
    builder
        .restart(model.restart)
        .significant(model.auto_shutdown != AutoShutdown::Never)
        .auto_shutdown(model.auto_shutdown)
        .intensity(model.intensity as u32, Duration::from_millis(model.period))
        .backoff(backoff)
        .shutdown(Shutdown::After(Duration::from_millis(GRACE)))
        .max_children(MAX)
        .start()
        .await
        .expect("it starts")
}

trait IntoWords {
    fn into_words(self) -> &'static str;
}

impl IntoWords for Result<ChildRef, StartError> {
    fn into_words(self) -> &'static str {
        match self {
            Ok(_) => "started",
            Err(StartError::Ignored) => "ignored",
            Err(StartError::MaxChildren { .. }) => "full",
            Err(StartError::ShuttingDown) => "shutting down",
            Err(_) => "failed",
        }
    }
}

fn ask<F: Future<Output = &'static str> + Send + 'static>(
    dynamic: &DynamicSupervisorRef<(u32, u64)>,
    shared: &Shared,
    op: u32,
    what: impl FnOnce(DynamicSupervisorRef<(u32, u64)>) -> F,
) {
    let (asked, shared) = (what(dynamic.clone()), shared.clone());
    tokio::spawn(async move {
        let answer = asked.await;
        shared.lock().unwrap().told.push((op, answer.to_owned()));
    });
}

async fn compare(
    model: &mut Model,
    dynamic: &DynamicSupervisorRef<(u32, u64)>,
    shared: &Shared,
    epoch: Instant,
) -> Result<(), String> {
    let until = model.now + 1;
    tokio::time::sleep_until(epoch + Duration::from_millis(until)).await;
    model.pass(until);
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
    let mut world = shared.lock().unwrap();
    let sorted = |mut list: Vec<String>| {
        list.sort_by_key(|event| event.split(' ').next().map(str::to_owned));
        list
    };
    let (real, expected) = (sorted(std::mem::take(&mut world.events)), sorted(std::mem::take(&mut model.events)));
    if real != expected {
        return Err(format!("events\n  real:  {real:?}\n  model: {expected:?}"));
    }
    let (mut real, mut expected) = (std::mem::take(&mut world.told), std::mem::take(&mut model.told));
    real.sort();
    expected.sort();
    if real != expected {
        return Err(format!("answers\n  real:  {real:?}\n  model: {expected:?}"));
    }
    let count = |kid: &&Kid| matches!(kid.state, State::Up | State::Stopping { .. });
    let expected = (!model.closing).then(|| (model.kids.len(), model.kids.iter().filter(count).count()));
    let real = dynamic.count_children().ok().map(|count| (count.workers, count.active));
    if real == expected { Ok(()) } else { Err(format!("counts\n  real:  {real:?}\n  model: {expected:?}")) }
}

fn run(seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let ran = std::panic::catch_unwind(|| runtime.block_on(case(seed)));
    ran.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

#[test]
fn the_dynamic_supervisor_does_what_the_reference_says() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let cases = number("PLIMSOLL_CASES").unwrap_or(CASES);
    let somewhere = std::env::var("PLIMSOLL_FIRST_SEED").is_ok_and(|seed| seed == "random");
    let anew = rand::random::<u64>() >> 16;
    match (number("PLIMSOLL_SEED"), number("PLIMSOLL_FIRST_SEED")) {
        (Some(seed), _) => explore(seed, 1),
        (None, Some(first)) => explore(first, cases),
        (None, None) if somewhere => explore(anew, cases),
        (None, None) => {
            explore(0, cases);
            explore(anew, NEW_CASES.min(cases));
        }
    }
}

fn explore(first: u64, cases: u64) {
    println!("{cases} cases from PLIMSOLL_FIRST_SEED={first}");
    for seed in first..first + cases {
        if let Err(difference) = run(seed) {
            panic!("replay with PLIMSOLL_SEED={seed}\n{difference}");
        }
    }
}
