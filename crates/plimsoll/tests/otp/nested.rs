//! Trees of supervisors, and what escalates in them.

use std::time::Duration;

use plimsoll::inspect::Kind;
use plimsoll::supervisor::{
    Backoff, ChildError, ChildSpec, Restart, ShutdownCause, Strategy, Supervisor, SupervisorRef,
};

use crate::support::{Do, Stage, quiet, tell_id};
use crate::trees::{shown, three};

#[tokio::test(start_paused = true)]
async fn otp_tree() {
    let stage = Stage::default();
    let inner = stage.clone();
    let leaf = move || {
        Supervisor::builder("leaf").strategy(Strategy::OneForAll).child(inner.child("x")).child(inner.child("y"))
    };
    let middle =
        move || Supervisor::builder("middle").child(ChildSpec::supervisor("leaf", leaf.clone()).backoff(Backoff::NONE));
    let tree = Supervisor::builder("top")
        .child(stage.child("a"))
        .child(ChildSpec::supervisor("middle", middle).backoff(Backoff::NONE))
        .start()
        .await
        .unwrap();
    assert_eq!(stage.did(), ["start a", "start x", "start y"]);
    let leaf = || {
        let middle = tree.child("middle").unwrap().value::<SupervisorRef>().unwrap();
        (*middle.child("leaf").unwrap().value::<SupervisorRef>().unwrap()).clone()
    };
    // A failure deep inside stays there.
    let first = leaf();
    tell_id(&first, "x", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop y", "start x", "start y"]);
    // One more within the period, and the leaf is replaced as a whole.
    tell_id(&first, "y", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop x", "start x", "start y"]);
    assert_ne!(leaf().actor().get_id(), first.actor().get_id());
    assert_eq!(first.which_children(), Err(ChildError::ShuttingDown));

    let shown = tree.inspect();
    assert_eq!((shown.id.as_str(), shown.kind), ("top", Kind::Supervisor));
    let middle = &shown.details.children[1];
    assert_eq!((middle.id.as_str(), middle.restarts), ("middle", 0));
    let leaf = &middle.details.children[0];
    assert_eq!((leaf.id.as_str(), leaf.restarts, leaf.details.children.len()), ("leaf", 1, 2));

    let report = tree.stop().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(stage.did(), ["stop y", "stop x", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_one_escalation() {
    escalation(Strategy::OneForOne, &["stop c", "stop b"]).await;
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_all_escalation() {
    escalation(Strategy::OneForAll, &["stop c", "stop b"]).await;
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_escalation() {
    escalation(Strategy::RestForOne, &["stop c", "stop b"]).await;
}

/// Over the budget the supervisor stops all and ends with `shutdown`; its parent does as its restart type says.
async fn escalation(strategy: Strategy, stopped: &[&str]) {
    for (restart, again) in [(Restart::Permanent, true), (Restart::Transient, false)] {
        let stage = Stage::default();
        let inner = stage.clone();
        let nested =
            ChildSpec::supervisor("nested", move || three(&inner, strategy).intensity(0, Duration::from_secs(1)));
        let tree =
            Supervisor::builder("top").child(nested.restart(restart).backoff(Backoff::NONE)).start().await.unwrap();
        stage.did();
        let nested = tree.child("nested").unwrap().value::<SupervisorRef>().unwrap();
        tell_id(&nested, "a", Do::Panic);
        quiet().await;
        assert!(matches!(nested.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
        let mut events: Vec<&str> = stopped.to_vec();
        if again {
            events.extend(["start a", "start b", "start c"]);
        }
        assert_eq!(stage.did(), events);
        assert_eq!(shown(&tree), if again { "nested+" } else { "nested-" });
    }
}
