//! OTP's cases of start and stop.

mod support;

use std::time::Duration;

use plimsoll::supervisor::{BoxError, ChildSpec, Shutdown, StartError, Supervisor, TroubleKind};
use support::{Begin, Stage, quiet, tell_id};

#[tokio::test(start_paused = true)]
async fn otp_sup_start_normal() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .child(stage.child("a"))
        .child(stage.child("b"))
        .child(ChildSpec::task("t", |stop| async move {
            stop.cancelled().await;
            Ok::<_, BoxError>(())
        }))
        .start()
        .await
        .unwrap();
    assert_eq!(stage.did(), ["start a", "start b"]);
    let report = tree.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(stage.did(), ["stop b", "stop a"]);
    let _ = (Begin::Run, tell_id, quiet());
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail() {
    let stage = Stage::default();
    stage.script.next("c", [Begin::Fail]);
    let error = Supervisor::builder("top")
        .child(stage.child("a"))
        .child(stage.child("b"))
        .child(stage.child("c"))
        .child(stage.child("d"))
        .start()
        .await
        .unwrap_err();
    assert!(matches!(&error, StartError::FailedToStart { id, .. } if &**id == "c"), "{error}");
    assert_eq!(stage.did(), ["start a", "start b", "stop b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_timeout() {
    let stage = Stage::default();
    let slow = |mut puppet: support::Puppet| {
        puppet.slow_stop = Duration::from_secs(60);
        puppet
    };
    let tree = Supervisor::builder("top")
        .child(stage.child("obeys").shutdown(Shutdown::After(Duration::from_secs(1))))
        .child(stage.child_with("dawdles", slow).shutdown(Shutdown::After(Duration::from_secs(1))))
        .start()
        .await
        .unwrap();
    stage.did();
    let report = tree.stop().await;
    assert_eq!(stage.did(), ["stopping dawdles", "stop obeys"]);
    assert_eq!(report.troubles.len(), 1, "{report}");
    assert_eq!(&*report.troubles[0].path[0], "dawdles");
    assert_eq!(report.troubles[0].what, TroubleKind::Killed);
    assert_eq!(report.troubles[0].waited, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn otp_permanent_abnormal() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).child(stage.child("b")).start().await.unwrap();
    stage.did();
    tell_id(&tree, "a", support::Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["start a"]);
    tell_id(&tree, "a", support::Do::Fail);
    let report = tree.wait().await;
    assert_eq!(stage.did(), ["stop b"]);
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn otp_tree() {
    let stage = Stage::default();
    let inner = stage.clone();
    let tree = Supervisor::builder("top")
        .child(stage.child("a"))
        .child(ChildSpec::supervisor("s", move || {
            Supervisor::builder("inner").child(inner.child("x")).child(inner.child("y"))
        }))
        .start()
        .await
        .unwrap();
    assert_eq!(stage.did(), ["start a", "start x", "start y"]);
    let report = tree.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(stage.did(), ["stop y", "stop x", "stop a"]);
}
