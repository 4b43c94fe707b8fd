//! What the log, the report and an observer say of failures, restarts and the supervisor's end.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildSpec, DynamicSupervisor, Restart, ShutdownCause, Strategy, Supervisor,
    SupervisorEvent, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

/// Fails with what it receives; exits normally for an empty text.
struct Fails;

impl Actor for Fails {
    type Msg = String;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<String>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<String>, why: String, _: &mut ()) -> Result<(), ActorProcessingErr> {
        if why.is_empty() {
            myself.stop(None);
            return Ok(());
        }
        Err(why.into())
    }
}

async fn start(parent: ActorCell) -> Result<Child, ractor::SpawnErr> {
    Fails::spawn_linked(None, Fails, (), parent).await.map(Child::from)
}

fn child(id: &str) -> ChildSpec {
    ChildSpec::new(id, start).backoff(Backoff::constant(Duration::from_millis(20)))
}

async fn fail(tree: &SupervisorRef, id: &str, why: &str) {
    tree.child(id).unwrap().actor_ref::<String>().unwrap().cast(why.to_owned()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// The events of an observer, as text without the ids of actors.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, event: &SupervisorEvent) {
        let text = match event {
            SupervisorEvent::ChildStarted { child, .. } => format!("{child} started"),
            SupervisorEvent::ChildStartFailed { child, reason, retry } => {
                format!("{child} not started {reason} {retry:?}")
            }
            SupervisorEvent::ChildExited { child, reason, .. } => format!("{child} exited {reason}"),
            SupervisorEvent::ChildRestarting { child, delay } => format!("{child} restarting {delay:?}"),
            SupervisorEvent::GaveUp { child, reason } => format!("gave up {child} {reason}"),
            SupervisorEvent::Ended { cause, .. } => format!("ended {cause}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The log lines of the current thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// The lines that contain all of these.
    fn with(&self, texts: &[&str]) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn report_and_log_name_the_child_and_the_last_reason_of_giving_up() {
    let (lines, _guard) = Lines::capture();
    let tree =
        Supervisor::builder("top").intensity(3, Duration::from_secs(60)).child(child("db")).start().await.unwrap();
    for why in ["no disk", "no memory", "no network", "no hope"] {
        fail(&tree, "db", why).await;
    }
    let report = tree.wait().await.unwrap();
    let reason = ExitReason::failed("no hope");
    assert_eq!(report.cause, ShutdownCause::GaveUp { child: "db".into(), reason });
    assert_eq!(report.cause.to_string(), "gave up on child `db` (failed: no hope)");
    assert!(report.to_string().contains("db") && report.to_string().contains("no hope"), "{report}");
    for why in ["no disk", "no memory", "no network", "no hope"] {
        assert_eq!(lines.with(&["child failed", why]).len(), 1, "every other reason is logged: {why}");
    }
    assert_eq!(lines.with(&["restarting", "delay=20ms"]).len(), 3);
    assert_eq!(lines.with(&["giving up", "no hope", "db"]).len(), 1);
    assert_eq!(lines.with(&["supervisor ended", "no hope"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn equal_failures_are_counted_and_the_last_is_logged_on_giving_up() {
    let (lines, _guard) = Lines::capture();
    let builder = Supervisor::builder("top").intensity(5, Duration::from_secs(60));
    let tree = builder.child(child("db")).start().await.unwrap();
    for _ in 0..6 {
        fail(&tree, "db", "no disk").await;
    }
    tree.wait().await.unwrap();
    assert_eq!(lines.with(&["child failed", "no disk"]).len(), 1);
    assert_eq!(lines.with(&["giving up", "no disk"]).len(), 1);
    assert_eq!(lines.with(&["supervisor ended", "suppressed=5"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_of_restart_attempts_are_logged_beside_the_crash() {
    let (lines, _guard) = Lines::capture();
    let first = Arc::new(Mutex::new(true));
    let spec = ChildSpec::new("db", move |parent| {
        let first = std::mem::replace(&mut *first.lock().unwrap(), false);
        async move { if first { start(parent).await.map_err(BoxError::from) } else { Err("port is taken".into()) } }
    });
    let builder = Supervisor::builder("top").intensity(3, Duration::from_secs(60));
    let tree = builder.child(spec.backoff(Backoff::constant(Duration::from_millis(20)))).start().await.unwrap();
    fail(&tree, "db", "crash").await;
    let report = tree.wait().await.unwrap();
    assert_eq!(lines.with(&["child failed: restarting", "crash"]).len(), 1);
    assert_eq!(lines.with(&["child failed to start: retrying", "port is taken"]).len(), 1);
    assert_eq!(lines.with(&["giving up", "port is taken"]).len(), 1);
    assert!(report.cause.to_string().contains("port is taken"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn normal_exits_failed_starts_and_failures_of_covered_siblings_are_logged() {
    let (lines, _guard) = Lines::capture();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(9, Duration::from_secs(60));
    let tree = builder.child(child("a")).child(child("fails at stop")).start().await.unwrap();
    fail(&tree, "a", "").await;
    assert_eq!(lines.with(&["child exited: restarting", "normal", "delay=20ms"]).len(), 1);
    let bad = ChildSpec::new("bad", |_| async { Err::<Child, _>(BoxError::from("no such table")) });
    assert!(tree.start_child(bad).await.is_err());
    assert_eq!(lines.with(&["child failed to start", "bad", "no such table"]).len(), 1);
    // The second fails while the first's failure is handled.
    let sibling = tree.child("fails at stop").unwrap().actor_ref::<String>().unwrap();
    tree.child("a").unwrap().actor_ref::<String>().unwrap().cast("first".to_owned()).unwrap();
    sibling.cast("second".to_owned()).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lines.with(&["second"]).len(), 1, "{:?}", lines.with(&[]));
}

#[tokio::test(start_paused = true)]
async fn observer_receives_every_start_exit_restart_and_the_end_in_order() {
    let seen = Seen::default();
    let inner = seen.clone();
    let builder = Supervisor::builder("top").intensity(1, Duration::from_secs(60));
    let builder = builder.on_event(move |name, event| {
        assert_eq!(name, "top");
        inner.note(event);
    });
    let tree = builder.child(child("a")).child(child("b")).start().await.unwrap();
    assert_eq!(seen.take(), ["a started", "b started"]);
    fail(&tree, "a", "bad").await;
    assert_eq!(seen.take(), ["a exited failed: bad", "a restarting 20ms", "a started"]);
    tree.terminate_child("b").await.unwrap();
    assert_eq!(seen.take(), ["b exited shutdown"]);
    tree.restart_child("b").await.unwrap();
    fail(&tree, "a", "worse").await;
    tree.wait().await.unwrap();
    let expected = [
        "b started",
        "a exited failed: worse",
        "gave up a failed: worse",
        "b exited shutdown",
        "ended gave up on child `a` (failed: worse)",
    ];
    assert_eq!(seen.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn observer_of_a_dynamic_supervisor_receives_the_same() {
    let seen = Seen::default();
    let inner = seen.clone();
    let builder = DynamicSupervisor::builder("many", |parent, ()| start(parent)).restart(Restart::Transient);
    let builder = builder.intensity(1, Duration::from_secs(60)).backoff(Backoff::constant(Duration::from_millis(20)));
    let tree = builder.on_event(move |_, event| inner.note(event)).start().await.unwrap();
    for why in ["bad", "worse"] {
        if why == "bad" {
            tree.start_child(()).await.unwrap();
        }
        let plimsoll::supervisor::ChildState::Running(actor) = tree.which_children().unwrap().remove(0).state else {
            panic!("it runs");
        };
        actor.send_message(why.to_owned()).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let report = tree.wait().await.unwrap();
    assert!(matches!(&report.cause, ShutdownCause::GaveUp { reason, .. } if *reason == ExitReason::failed("worse")));
    let events: Vec<String> = seen.take().iter().map(|event| event.split_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(events[..3], ["started", "exited failed: bad", "restarting 20ms"]);
    assert_eq!(events[3..5], ["started", "exited failed: worse"]);
    assert!(events[5].contains("worse") && events.len() == 7, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn observer_may_use_the_supervisor_and_a_panic_in_it_harms_nobody() {
    let tree = Arc::new(OnceLock::<SupervisorRef>::new());
    let (own, looked) = (tree.clone(), Arc::new(Mutex::new(0)));
    let count = looked.clone();
    let builder = Supervisor::builder("top").intensity(5, Duration::from_secs(60)).on_event(move |_, event| {
        if let (Some(tree), SupervisorEvent::ChildExited { .. }) = (own.get(), event) {
            assert!(tree.which_children().is_ok());
            tree.inspect();
            *count.lock().unwrap() += 1;
        }
        panic!("the observer panics");
    });
    let started = builder.child(child("a")).start().await.unwrap();
    assert!(tree.set(started.clone()).is_ok());
    fail(&started, "a", "bad").await;
    assert!(started.child("a").is_ok());
    assert_eq!(*looked.lock().unwrap(), 1);
    assert!(started.stop().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn reports_and_events_are_serialized() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = seen.clone();
    let builder = Supervisor::builder("top").intensity(0, Duration::from_secs(60));
    let builder = builder.on_event(move |_, event| inner.lock().unwrap().push(serde_json::to_value(event).unwrap()));
    let tree = builder.child(child("a")).start().await.unwrap();
    fail(&tree, "a", "bad").await;
    let report = serde_json::to_value(&*tree.wait().await.unwrap()).unwrap();
    assert_eq!(report["cause"]["cause"], "gave_up");
    assert_eq!(report["cause"]["child"], "a");
    assert_eq!(report["cause"]["reason"]["exit"], "failed");
    let kinds: Vec<String> =
        seen.lock().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["child_started", "child_exited", "gave_up", "ended"]);
}
