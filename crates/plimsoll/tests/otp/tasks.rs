//! Task children: their ends, their token and their grace.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, ChildSpec, Restart, Shutdown, ShutdownCause, StartError, StopFailureKind, Supervisor,
};
use tokio::time::Instant;

use crate::support::{Stage, quiet};
use crate::trees::shown;

fn task(id: &'static str, run: impl Fn() -> Result<(), BoxError> + Send + Sync + Clone + 'static) -> ChildSpec {
    ChildSpec::task(id, move |_stop| {
        let run = run.clone();
        async move { run() }
    })
    .backoff(Backoff::NONE)
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_returns_ends_normally() {
    let tree =
        Supervisor::builder("top").child(task("t", || Ok(())).restart(Restart::Transient)).start().await.unwrap();
    quiet().await;
    assert_eq!(shown(&tree), "t-");
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_fails_or_panics_is_restarted() {
    fn fails() -> Result<(), BoxError> {
        Err("told to fail".into())
    }
    fn panics() -> Result<(), BoxError> {
        panic!("told to panic")
    }
    for run in [fails, panics] {
        let spec = task("t", run).restart(Restart::Transient);
        let tree = Supervisor::builder("top").intensity(3, Duration::from_secs(60)).child(spec).start().await.unwrap();
        assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_ignores_its_token_is_aborted_after_its_grace() {
    let spec = ChildSpec::task("t", |_stop| std::future::pending::<Result<(), BoxError>>());
    let tree =
        Supervisor::builder("top").child(spec.shutdown(Shutdown::After(Duration::from_secs(2)))).start().await.unwrap();
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(report.failures[0].kind, StopFailureKind::Killed);
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_errs_when_asked_to_stop_is_reported() {
    let spec = ChildSpec::task("t", |stop| async move {
        stop.cancelled().await;
        Err::<(), BoxError>("not yet".into())
    });
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let report = tree.stop().await.unwrap();
    assert_eq!(report.failures[0].kind, StopFailureKind::Ended(ExitReason::failed("not yet")));
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_whose_function_panics_fails_like_its_future() {
    // The panic is in the function itself, before there is a future.
    let spec = ChildSpec::task("t", |_stop| {
        if true {
            panic!("no future")
        }
        async { Ok::<_, BoxError>(()) }
    });
    let error = Supervisor::builder("top").child(spec).start().await.unwrap_err();
    assert_eq!(error.to_string(), "child `t` failed to start: the start failed: no future");
}

#[tokio::test(start_paused = true)]
async fn otp_a_task_whose_closure_panics_has_not_started() {
    let stage = Stage::default();
    let spec = ChildSpec::task("task", |_| {
        if true {
            panic!("before there is a future");
        }
        std::future::ready(Ok::<_, BoxError>(()))
    });
    let boot = Supervisor::builder("top").child(stage.child("a")).child(spec.clone()).start().await;
    let Err(StartError::FailedToStart { id, reason }) = boot.map(|_| ()) else { panic!("it must not start") };
    assert_eq!(&*id, "task");
    assert!(matches!(&*reason, StartError::Failed(failure) if &*failure.message == "before there is a future"));
    assert_eq!(stage.did(), ["start a", "stop a"]);
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert!(matches!(tree.start_child(spec).await, Err(StartError::Failed(_))));
    assert_eq!(tree.count_children().unwrap().specs, 0, "the spec is not kept");
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_brutal_is_aborted_at_once() {
    let stopped = Arc::new(Mutex::new(false));
    let seen = stopped.clone();
    let spec = ChildSpec::task("t", move |stop| {
        let seen = seen.clone();
        async move {
            stop.cancelled().await;
            *seen.lock().unwrap() = true;
            Ok::<_, BoxError>(())
        }
    });
    let tree = Supervisor::builder("top").child(spec.shutdown(Shutdown::Brutal)).start().await.unwrap();
    quiet().await;
    assert!(tree.stop().await.unwrap().is_clean());
    assert!(!*stopped.lock().unwrap());
}
