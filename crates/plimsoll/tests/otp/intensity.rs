//! The restart intensity and the backoff: what is charged, and when the next start comes.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, ShutdownCause, Strategy, Supervisor};

use crate::support::{Begin, Do, Stage, quiet, slow, tell, tell_id};
use crate::trees::{named, shown, start, three};

#[tokio::test(start_paused = true)]
async fn otp_sup_flags() {
    // The defaults: one_for_one, one restart in five seconds.
    let stage = Stage::default();
    let builder = || Supervisor::builder("top").child(stage.child("a")).child(stage.child("b"));
    let tree = builder().start().await.unwrap();
    stage.did();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["start a"]);
    tokio::time::sleep(Duration::from_millis(4_990)).await;
    tell_id(&tree, "a", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
    let tree = builder().start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(5_010)).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert!(tree.child("a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn otp_multiple_restarts() {
    let stage = Stage::default();
    let builder = three(&stage, Strategy::OneForAll).intensity(1, Duration::from_secs(1));
    let tree = start(&stage, builder).await;
    // Far enough apart that the budget is never used up.
    for _ in 0..4 {
        tell_id(&tree, "a", Do::Panic);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(stage.did(), ["stop c", "stop b", "start a", "start b", "start c"]);
    }
    // A restart exactly a period ago still counts.
    let builder = three(&stage, Strategy::OneForOne).intensity(1, Duration::from_secs(1));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tokio::time::sleep(Duration::from_millis(999)).await;
    tell_id(&tree, "b", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
}

#[tokio::test(start_paused = true)]
async fn otp_restart_that_fails_is_charged_each_time() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").intensity(3, Duration::from_secs(60)).child(stage.child("a"));
    let tree = start(&stage, builder).await;
    stage.script.next("a", [Begin::Fail, Begin::Panic]);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    // One failure and two failed tries: three. The next is one too many.
    assert_eq!(shown(&tree), "a+");
    tell_id(&tree, "a", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
}

#[tokio::test(start_paused = true)]
async fn otp_window_is_the_supervisors_and_not_the_childs() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").intensity(2, Duration::from_secs(60));
    let tree = start(&stage, builder.children(named(&stage, &["a", "b", "c"]))).await;
    for id in ["a", "b"] {
        tell_id(&tree, id, Do::Panic);
        quiet().await;
    }
    tell_id(&tree, "c", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
    assert_eq!(stage.did(), ["start a", "start b", "stop b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_intensity_is_counted_at_the_failure_and_not_after_the_delay() {
    let stage = Stage::default();
    let late = stage.child("a").backoff(Backoff::constant(Duration::from_secs(8)));
    let builder = Supervisor::builder("top").intensity(1, Duration::from_secs(10)).child(late).child(stage.child("b"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(10_001)).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert!(tree.report().is_none());
    assert_eq!(shown(&tree), "a+ b+");
}

#[tokio::test(start_paused = true)]
async fn otp_terminate_during_a_delay_refunds_nothing() {
    let stage = Stage::default();
    let late = stage.child("a").backoff(Backoff::constant(Duration::from_secs(8)));
    let builder = Supervisor::builder("top").intensity(1, Duration::from_secs(60)).child(late);
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tree.terminate_child("a").await.unwrap();
    tree.restart_child("a").await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
}

#[tokio::test(start_paused = true)]
async fn otp_simultaneous_failures_of_a_group_charge_once() {
    // All fail at one moment: the first is the cause, the others were stopped with it.
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(1, Duration::from_secs(60));
    let builder =
        builder.child(stage.child("a")).child(stage.child_with("b", slow(1))).child(stage.child_with("c", slow(1)));
    let tree = start(&stage, builder).await;
    let (a, b) = (tree.child("a").unwrap(), tree.child("b").unwrap());
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    tell(&a, Do::Panic);
    drop(b);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shown(&tree), "a+ b+ c+");
    assert!(tree.report().is_none());
}

#[tokio::test(start_paused = true)]
async fn otp_backoff_in_a_group_lies_between_the_last_stop_and_the_first_start() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .strategy(Strategy::OneForAll)
        .child(stage.child("a").backoff(Backoff::constant(Duration::from_secs(2))))
        .child(stage.child_with("b", slow(1)));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(2_990)).await;
    assert_eq!(stage.did(), ["stopping b", "stop b"]);
    assert_eq!(shown(&tree), "a~ b-");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stage.did(), ["start a", "start b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_backoff_of_one_child_does_not_hold_up_another() {
    let stage = Stage::default();
    let slow = stage.child("a").backoff(Backoff::constant(Duration::from_secs(1_000)));
    let builder = Supervisor::builder("top").intensity(10, Duration::from_secs(60)).child(slow).child(stage.child("b"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a~ b+");
}

#[tokio::test(start_paused = true)]
async fn the_backoff_grows_and_is_reset_after_a_healthy_period() {
    let stage = Stage::default();
    let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1)).without_jitter();
    let builder =
        Supervisor::builder("top").intensity(100, Duration::from_secs(10)).child(stage.child("a").backoff(backoff));
    let tree = start(&stage, builder).await;
    for delay in [100, 200, 400, 800, 1_000, 1_000] {
        tell_id(&tree, "a", Do::Panic);
        tokio::time::sleep(Duration::from_millis(delay - 10)).await;
        assert_eq!(shown(&tree), "a~", "before {delay} ms");
        tokio::time::sleep(Duration::from_millis(11)).await;
        assert_eq!(shown(&tree), "a+", "after {delay} ms");
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert_eq!(shown(&tree), "a+");
}
