//! Stops of a dynamic supervisor: all children at once, under one grace.

use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{Backoff, ChildError, DynamicSupervisor, Restart, Shutdown, StartError, StopFailureKind};
use ractor::Actor;
use tokio::time::Instant;

use super::{child, puppets, states};
use crate::support::{Begin, Do, Puppet, Stage, quiet, tell};

#[tokio::test(start_paused = true)]
async fn a_dynamic_supervisor_stops_its_children_at_once_under_one_timer() {
    let stage = Stage::default();
    let slow = stage.clone();
    let dynamic = DynamicSupervisor::builder("slow", move |parent, seconds: u64| {
        let mut puppet = slow.puppet(&seconds.to_string());
        puppet.slow_stop = Duration::from_secs(seconds);
        Puppet::spawn_linked(None, puppet, (), parent)
    })
    .shutdown(Shutdown::After(Duration::from_secs(3)))
    .start()
    .await
    .unwrap();
    for seconds in [1, 2, 60, 61] {
        dynamic.start_child(seconds).await.unwrap();
    }
    let began = Instant::now();
    let report = dynamic.stop().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(report.stragglers().count(), 2, "{report}");
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_shutdown() {
    // All are told at once; the report names those who outlasted the common time.
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::After(Duration::from_secs(3))).start().await.unwrap();
    for id in ["slow 1", "slow 2", "slow 50", "quick"] {
        child(&dynamic, id).await;
    }
    stage.did();
    let began = Instant::now();
    let report = dynamic.stop().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(report.failures.len(), 1, "{report}");
    assert_eq!(report.failures[0].kind, StopFailureKind::Killed);
    assert_eq!(report.failures[0].waited, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_shutdown_infinity_waits() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::Infinity).start().await.unwrap();
    child(&dynamic, "slow 5000").await;
    child(&dynamic, "slow 4000").await;
    let began = Instant::now();
    assert!(dynamic.stop().await.unwrap().is_clean());
    assert_eq!(began.elapsed(), Duration::from_secs(5_000));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_shutdown_brutal() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::Brutal).start().await.unwrap();
    child(&dynamic, "slow 5000").await;
    let began = Instant::now();
    assert!(dynamic.stop().await.unwrap().is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(stage.diary.take(), ["start slow 5000", "drop slow 5000"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_shutdown_reports_a_permanent_child_that_ended_normally_meanwhile() {
    for (restart, failures) in [(Restart::Permanent, 1), (Restart::Transient, 0), (Restart::Temporary, 0)] {
        let stage = Stage::default();
        let dynamic = puppets(&stage).restart(restart).start().await.unwrap();
        let a = child(&dynamic, "a").await;
        child(&dynamic, "slow 2").await;
        // Its own stop is there first, and wins.
        tell(&a, Do::Busy(Duration::from_secs(1)));
        quiet().await;
        a.actor().stop(None);
        let report = dynamic.stop().await.unwrap();
        let told: Vec<_> = report.failures.iter().map(|failure| &failure.kind).collect();
        assert_eq!(told, vec![&StopFailureKind::Ended(ExitReason::Normal); failures], "{restart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_stop_while_a_start_hangs() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    let starting = tokio::spawn({
        let dynamic = dynamic.clone();
        async move { dynamic.start_child("a").await }
    });
    quiet().await;
    let began = Instant::now();
    assert!(dynamic.stop().await.unwrap().is_clean());
    assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(stage.diary.take(), ["drop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_stop_while_a_restart_hangs_or_waits() {
    let stage = Stage::default();
    for hangs in [true, false] {
        let backoff = if hangs { Backoff::NONE } else { Backoff::constant(Duration::from_secs(1_000)) };
        let dynamic = puppets(&stage).backoff(backoff).start().await.unwrap();
        let a = child(&dynamic, "a").await;
        stage.script.next("a", [Begin::Hang]);
        tell(&a, Do::Panic);
        quiet().await;
        assert_eq!(states(&dynamic), "~");
        let began = Instant::now();
        let report = dynamic.stop().await.unwrap();
        assert!(report.is_clean(), "{hangs} {report}");
        assert_eq!(began.elapsed(), Duration::ZERO);
        let last = stage.diary.take().pop();
        assert_eq!(last.as_deref(), Some("drop a"));
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_while_stopping_everything_is_refused_at_once() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "slow 3").await;
    let stopping = tokio::spawn({
        let dynamic = dynamic.clone();
        async move { dynamic.stop().await.unwrap() }
    });
    quiet().await;
    let began = Instant::now();
    assert_eq!(dynamic.start_child("b").await, Err(StartError::ShuttingDown));
    assert_eq!(dynamic.terminate_child(a.actor()).await, Err(ChildError::ShuttingDown));
    assert_eq!(dynamic.which_children(), Err(ChildError::ShuttingDown));
    assert_eq!(dynamic.child_spec(a.actor().get_id()), Err(ChildError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(stopping.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_simple_a_terminate_under_way_is_answered_at_once_when_the_supervisor_stops() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "slow 3").await;
    let terminating = tokio::spawn({
        let (dynamic, a) = (dynamic.clone(), a.clone());
        async move { dynamic.terminate_child(a.actor()).await }
    });
    quiet().await;
    let began = Instant::now();
    let stop = tokio::spawn({
        let dynamic = dynamic.clone();
        async move { dynamic.stop().await.unwrap() }
    });
    assert_eq!(terminating.await.unwrap(), Err(ChildError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    stop.await.unwrap();
}
