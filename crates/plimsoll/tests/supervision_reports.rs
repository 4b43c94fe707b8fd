//! Public bug reports of other supervision systems, each one's kind tried against ours.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, Child, ChildError, ChildSpec, ChildState, DynamicSupervisor, Restart, Shutdown, ShutdownCause, StartError,
    Strategy, Supervisor, SupervisorRef,
};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus};
use support::{Do, Puppet, Stage, quiet, slow, stop_meanwhile, tell, tell_id};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

fn states(tree: &SupervisorRef) -> Vec<(String, bool)> {
    let children = tree.which_children().unwrap().into_iter().rev();
    children.map(|child| (child.id.unwrap().to_string(), matches!(child.state, ChildState::Running(_)))).collect()
}

/// erlang/otp#5193: a child that stops itself normally while it is terminated ended as a `noproc` shutdown error.
async fn child_ends_by_itself_while_it_is_terminated() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    for round in 0..500 {
        let spec = stage.child("a").restart(Restart::Temporary);
        let child = tree.start_child(spec).await.unwrap();
        let terminating = tokio::spawn({
            let tree = tree.clone();
            async move { tree.terminate_child("a").await }
        });
        tell_if_alive(child.actor(), Do::Normal);
        let outcome = terminating.await.unwrap();
        // Gone already is the other order.
        assert!(matches!(outcome, Ok(()) | Err(ChildError::NotFound)), "round {round}: {outcome:?}");
        assert_eq!(child.actor().get_status(), ActorStatus::Stopped, "round {round}");
    }
    let report = tree.stop().await.unwrap();
    assert!(report.is_clean(), "{report}");
}

fn tell_if_alive(actor: &ActorCell, what: Do) {
    let _ = actor.send_message(what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otp_5193_child_that_ends_while_terminated_on_two_threads() {
    child_ends_by_itself_while_it_is_terminated().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_5193_child_that_ends_while_terminated_on_four_threads() {
    child_ends_by_itself_while_it_is_terminated().await;
}

/// erlang/otp#3670 (ERL-724): a nested supervisor that was killed in the middle of stopping its child left it running.
#[tokio::test(start_paused = true)]
async fn otp_3670_supervisor_killed_in_the_middle_of_its_stop_leaves_no_child() {
    let stage = Stage::default();
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        let slow_child = inner.child_with("slow", slow(3_600)).shutdown(Shutdown::Infinity);
        Supervisor::builder("nested").child(slow_child).child(inner.child("quick"))
    });
    let nested = nested.shutdown(Shutdown::After(Duration::from_secs(2)));
    let tree = Supervisor::builder("top").child(nested).start().await.unwrap();
    let inside: Arc<SupervisorRef> = tree.child("nested").unwrap().value().unwrap();
    let slow_child = inside.child("slow").unwrap();
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(slow_child.actor().get_status(), ActorStatus::Stopped, "the report came before the end");
    assert!(!report.is_clean(), "the kill is reported");
    assert_eq!(stage.diary.take().iter().filter(|event| event.starts_with("drop")).count(), 2);
}

/// elixir-lang/elixir#7655: `max_children` was miscounted after a restart, so that there could be more.
#[tokio::test(start_paused = true)]
async fn elixir_7655_max_children_holds_after_restarts() {
    let stage = Stage::default();
    let inner = stage.clone();
    let builder = DynamicSupervisor::builder("top", move |parent, ()| {
        let puppet = inner.puppet("a");
        async move { Puppet::spawn_linked(None, puppet, (), parent).await }
    });
    let tree = builder.max_children(2).backoff(Backoff::NONE).intensity(100, MINUTE).start().await.unwrap();
    for _ in 0..2 {
        tree.start_child(()).await.unwrap();
    }
    for round in 0..10 {
        let running = tree.which_children().unwrap().into_iter().find_map(|child| match child.state {
            ChildState::Running(actor) => Some(actor),
            _ => None,
        });
        running.unwrap().kill();
        let refused = tree.start_child(()).await;
        assert_eq!(refused, Err(StartError::MaxChildren { max: 2 }), "round {round}, at once");
        quiet().await;
        let refused = tree.start_child(()).await;
        assert_eq!(refused, Err(StartError::MaxChildren { max: 2 }), "round {round}, after the restart");
        assert_eq!(tree.count_children().unwrap().active, 2);
    }
    // A failed or given up start gives its place back, too.
    let running: Vec<_> = tree.which_children().unwrap();
    let ChildState::Running(actor) = &running[0].state else { panic!("it runs") };
    tree.terminate_child(actor).await.unwrap();
    assert!(tree.start_child(()).await.is_ok());
}

/// erlang/otp#6244: a caller that died between two starts left half a connection below its supervisor for ever.
#[tokio::test(start_paused = true)]
async fn otp_6244_caller_that_dies_between_two_starts_leaves_no_half() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let second = Gate::closed();
    let (inner, gate) = (stage.clone(), second.clone());
    let pair = ChildSpec::supervisor("connection", move || {
        let (stage, gate) = (inner.clone(), gate.clone());
        let receiver = ChildSpec::new("receiver", move |parent: ActorCell| {
            let (puppet, gate) = (stage.puppet("receiver"), gate.clone());
            async move {
                gate.pass().await;
                Puppet::spawn_linked(None, puppet, (), parent).await
            }
        });
        Supervisor::builder("connection").child(inner.child("sender")).child(receiver)
    });
    let spec = pair.restart(Restart::Temporary);
    let caller = tokio::spawn({
        let tree = tree.clone();
        async move { tree.start_child(spec).await }
    });
    second.until_waiting(1).await;
    caller.abort();
    assert!(caller.await.is_err());
    // The supervisor has both or none: here it goes on, and terminating it in the middle leaves none.
    tree.terminate_child("connection").await.unwrap();
    quiet().await;
    let mut diary = stage.diary.take();
    diary.sort();
    assert_eq!(diary, ["drop receiver", "drop sender", "start sender"]);
    assert!(tree.which_children().unwrap().iter().all(|child| child.state == ChildState::None));
}

/// An actor that is over when its start returns.
struct Brief(Arc<AtomicUsize>);

impl Actor for Brief {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        self.0.fetch_add(1, Ordering::SeqCst);
        myself.stop(Some("brief".to_owned()));
        Ok(())
    }
}

/// elle-lisp/elle#1210: a child that died before it was monitored was never restarted and listed for ever.
/// haskell-distributed/distributed-process-supervisor#6: a worker that exits very quickly was restarted only once.
async fn child_that_is_over_at_once() {
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = starts.clone();
    let brief = ChildSpec::new("brief", move |parent| Brief::spawn_linked(None, Brief(counted.clone()), (), parent));
    let builder = Supervisor::builder("top").intensity(20, MINUTE).child(brief.backoff(Backoff::NONE));
    let tree = match builder.start().await {
        Ok(tree) => tree,
        Err(error) => panic!("the start itself succeeds: {error}"),
    };
    let report = tokio::time::timeout(Duration::from_secs(20), tree.wait()).await.expect("it gives up").unwrap();
    assert!(matches!(report.cause, ShutdownCause::GaveUp { .. }), "{report}");
    assert_eq!(starts.load(Ordering::SeqCst), 21, "the first start and 20 restarts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elle_1210_child_that_dies_before_it_is_watched_on_two_threads() {
    for _ in 0..50 {
        child_that_is_over_at_once().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn elle_1210_child_that_dies_before_it_is_watched_on_four_threads() {
    for _ in 0..50 {
        child_that_is_over_at_once().await;
    }
}

#[tokio::test]
async fn elle_1210_child_that_dies_before_it_is_watched_on_one_thread() {
    child_that_is_over_at_once().await;
}

/// zoedsoupe/anubis-mcp#239: a burst of sessions that expired (`{shutdown, expired}`) used up the restart intensity.
#[tokio::test(start_paused = true)]
async fn anubis_239_orderly_exits_of_transient_children_use_no_restarts() {
    let stage = Stage::default();
    let inner = stage.clone();
    let builder = DynamicSupervisor::builder("sessions", move |parent, ()| {
        let puppet = inner.puppet("session");
        async move { Puppet::spawn_linked(None, puppet, (), parent).await }
    });
    let tree = builder.restart(Restart::Transient).intensity(3, MINUTE).backoff(Backoff::NONE).start().await.unwrap();
    for round in 0..50 {
        let child = tree.start_child(()).await.unwrap();
        tell(&child, if round % 2 == 0 { Do::Stop("expired") } else { Do::Normal });
    }
    quiet().await;
    assert_eq!(tree.count_children().unwrap().workers, 0, "they are gone, and the supervisor is not");
    assert_eq!(tree.inspect().details.counters["restarts"], 0);
    assert!(tree.stop().await.unwrap().is_clean());
}

/// akka/akka-core#19726: a supervisor with a restart delay ignored commands while its failed child was terminating.
#[tokio::test(start_paused = true)]
async fn akka_19726_operations_are_served_while_a_failed_childs_siblings_end() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(10, MINUTE);
    let lingering = stage.child_with("slow", slow(5)).shutdown(Shutdown::After(Duration::from_secs(10)));
    let delayed = stage.child("failing").backoff(Backoff::constant(Duration::from_secs(3)));
    let tree = builder.child(lingering).child(delayed).start().await.unwrap();
    tell_id(&tree, "failing", Do::Fail);
    quiet().await;
    assert_eq!(tree.child("failing").err(), Some(ChildError::Restarting));
    assert_eq!(tree.count_children().unwrap().specs, 2, "a read waits for nobody");
    let adding = tokio::spawn({
        let (tree, spec) = (tree.clone(), stage.child("new"));
        async move { tree.start_child(spec).await }
    });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(adding.await.unwrap().is_ok(), "it was not lost");
    assert_eq!(states(&tree), [("slow", true), ("failing", true), ("new", true)].map(|(id, up)| (id.to_owned(), up)));
}

/// pathosDev/actor-ts#926: a supervisor that was itself restarted started its child under the name of one that still lived.
#[tokio::test(start_paused = true)]
async fn actor_ts_926_restarted_supervisor_finds_the_names_of_its_children_free() {
    let stage = Stage::default();
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        let stage = inner.clone();
        let named = ChildSpec::new("named", move |parent| {
            let puppet = slow(2)(stage.puppet("named"));
            async move { Puppet::spawn_linked(Some("reports-926".to_owned()), puppet, (), parent).await }
        });
        Supervisor::builder("nested").intensity(0, MINUTE).child(named)
    });
    let builder = Supervisor::builder("top").intensity(100, MINUTE);
    let tree = builder.child(nested.backoff(Backoff::NONE)).start().await.unwrap();
    for round in 0..20 {
        let nested = tree.child("nested").unwrap();
        let inside: Arc<SupervisorRef> = nested.value().unwrap();
        match round % 4 {
            0 => nested.actor().kill(),
            1 => nested.actor().stop(None),
            2 => tell_id(&inside, "named", Do::Panic),
            _ => inside.child("named").unwrap().actor().kill(),
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let again: Arc<SupervisorRef> =
            tree.child("nested").unwrap_or_else(|e| panic!("round {round}: {e}")).value().unwrap();
        let named = again.child("named").unwrap_or_else(|error| panic!("round {round}: {error}"));
        let registered = ractor::registry::where_is("reports-926").map(|actor| actor.get_id());
        assert_eq!(registered, Some(named.actor().get_id()), "round {round}");
    }
    let restarts = tree.inspect().details.counters["restarts"];
    assert_eq!(restarts, 20, "no start failed meanwhile");
}

/// owntone/owntone-server#968, systemd/systemd#10529: starts by hand used up the limit of automatic restarts.
#[tokio::test(start_paused = true)]
async fn owntone_968_starts_by_hand_use_no_restarts() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").intensity(1, MINUTE).child(stage.child("a")).start().await.unwrap();
    for _ in 0..10 {
        tree.terminate_child("a").await.unwrap();
        tree.restart_child("a").await.unwrap();
    }
    // Failed starts by hand neither.
    tree.terminate_child("a").await.unwrap();
    stage.script.next("a", [support::Begin::Fail; 5]);
    for _ in 0..5 {
        assert!(matches!(tree.restart_child("a").await, Err(ChildError::Start(StartError::Failed(_)))));
    }
    tree.restart_child("a").await.unwrap();
    tell_id(&tree, "a", Do::Fail);
    quiet().await;
    assert!(tree.child("a").is_ok(), "the one restart that the intensity allows is left");
}

/// 2600hz/kazoo#5967: a child that was deleted while it restarted came back, or stayed as a stopped leftover.
#[tokio::test(start_paused = true)]
async fn kazoo_5967_child_deleted_while_it_restarts_is_gone() {
    let stage = Stage::default();
    for delay in [Duration::ZERO, Duration::from_secs(1)] {
        let tree = Supervisor::builder("top").intensity(100, MINUTE).start().await.unwrap();
        for hang in [false, true] {
            let spec = stage.child("a").backoff(Backoff::constant(delay));
            tree.start_child(spec).await.unwrap();
            if hang {
                stage.script.next("a", [support::Begin::Hang]);
            }
            tell_id(&tree, "a", Do::Fail);
            tokio::time::sleep(if hang { 2 * delay + Duration::from_millis(1) } else { Duration::ZERO }).await;
            tree.terminate_child("a").await.unwrap();
            tree.delete_child("a").await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(tree.which_children().unwrap().is_empty(), "delay {delay:?}, hanging restart {hang}");
            stage.script.no_longer("a");
        }
        assert!(tree.stop().await.unwrap().is_clean());
    }
}

/// tqwewe/kameo#387: the next incarnation started while the stop hook of the previous one was still running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kameo_387_incarnations_do_not_overlap() {
    #[derive(Default)]
    struct Overlap {
        running: AtomicBool,
        found: AtomicBool,
    }
    struct Exclusive(Arc<Overlap>);
    impl Actor for Exclusive {
        type Msg = ();
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            if self.0.running.swap(true, Ordering::SeqCst) {
                self.0.found.store(true, Ordering::SeqCst);
            }
            Ok(())
        }
        async fn handle(&self, myself: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
            myself.stop(None);
            Ok(())
        }
        async fn post_stop(&self, _: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    }
    impl Drop for Exclusive {
        fn drop(&mut self) {
            self.0.running.store(false, Ordering::SeqCst);
        }
    }
    let overlap = Arc::new(Overlap::default());
    let inner = overlap.clone();
    let spec = ChildSpec::new("a", move |parent| Exclusive::spawn_linked(None, Exclusive(inner.clone()), (), parent));
    let builder = Supervisor::builder("top").intensity(10_000, MINUTE).child(spec.backoff(Backoff::NONE));
    let tree = builder.start().await.unwrap();
    let handle = tree.child_handle::<()>("a").unwrap();
    for round in 0..200 {
        if round % 3 == 0 {
            if let Ok(child) = tree.child("a") {
                child.actor().kill();
            }
        } else {
            handle.send_within((), Duration::from_secs(5)).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
    tree.stop().await.unwrap();
    assert!(!overlap.found.load(Ordering::SeqCst), "two incarnations ran side by side");
}

/// kubernetes/kubernetes#133472: the first restart ignored the delay. kubernetes/kubernetes#142033: failures before the child
/// ran were retried without a growing delay.
#[tokio::test(start_paused = true)]
async fn kubernetes_133472_and_142033_first_restart_and_failed_starts_are_delayed() {
    let stage = Stage::default();
    let starts: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let (inner, noted) = (stage.clone(), starts.clone());
    let spec = ChildSpec::new("a", move |parent: ActorCell| {
        let (puppet, noted) = (inner.puppet("a"), noted.clone());
        async move {
            noted.lock().unwrap().push(Instant::now());
            Puppet::spawn_linked(None, puppet, (), parent).await
        }
    });
    let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(60)).without_jitter();
    let tree = Supervisor::builder("top")
        .intensity(100, Duration::from_secs(3_600))
        .child(spec.backoff(backoff))
        .start()
        .await
        .unwrap();
    stage.script.next("a", [support::Begin::Fail; 4]);
    tell_id(&tree, "a", Do::Fail);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let starts = starts.lock().unwrap().clone();
    let gaps: Vec<_> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(gaps, [1, 2, 4, 8, 16]);
}

/// slawlor/ractor#226: stop hooks of children ran when their supervisor was killed, as if they had been stopped in order.
#[tokio::test(start_paused = true)]
async fn ractor_226_stop_hooks_do_not_run_when_the_supervisor_is_killed() {
    let stage = Stage::default();
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(inner.child("below")));
    let tree = Supervisor::builder("top").child(stage.child("a")).child(nested).start().await.unwrap();
    stage.did();
    tree.actor().kill();
    let report = tree.wait().await.unwrap();
    assert_eq!(report.reason, ExitReason::Killed);
    assert!(stage.did().is_empty(), "no stop hook ran");
}

/// DataDog/saluki#1874: children could still be started while an automatic shutdown was stopping the others.
#[tokio::test(start_paused = true)]
async fn saluki_1874_no_child_starts_once_a_shutdown_has_begun() {
    let stage = Stage::default();
    let lingering = stage.child_with("slow", slow(3)).shutdown(Shutdown::After(Duration::from_secs(10)));
    let builder = Supervisor::builder("top").auto_shutdown(plimsoll::supervisor::AutoShutdown::AnySignificant);
    let last = stage.child("last").restart(Restart::Transient).significant(true);
    let tree = builder.child(lingering).child(last).start().await.unwrap();
    tell_id(&tree, "last", Do::Normal);
    quiet().await;
    stage.did();
    assert_eq!(tree.start_child(stage.child("late")).await, Err(StartError::ShuttingDown));
    assert_eq!(tree.start_or_get_child(stage.child("slow")).await, Err(StartError::ShuttingDown));
    assert_eq!(tree.restart_child("last").await, Err(ChildError::ShuttingDown));
    let report = tree.wait().await.unwrap();
    assert_eq!(report.cause, ShutdownCause::AutoShutdown);
    assert_eq!(stage.did(), ["stop slow"]);
}

/// elixir-horde/horde#217: a supervisor and the process that implements it called each other and waited for ever.
#[tokio::test(start_paused = true)]
async fn horde_217_child_that_calls_its_supervisor_while_that_stops_it_is_answered() {
    let stage = Stage::default();
    let results: Arc<Mutex<Vec<String>>> = Arc::default();
    let tree_slot: Arc<Mutex<Option<SupervisorRef>>> = Arc::default();
    struct Calls {
        tree: Arc<Mutex<Option<SupervisorRef>>>,
        results: Arc<Mutex<Vec<String>>>,
        spec: Mutex<Option<ChildSpec>>,
    }
    impl Actor for Calls {
        type Msg = ();
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
        async fn post_stop(&self, _: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
            let tree = self.tree.lock().unwrap().clone().unwrap();
            let spec = self.spec.lock().unwrap().take().unwrap();
            let mut noted = vec![format!("{:?}", tree.start_child(spec).await.map(|_| ()))];
            noted.push(format!("{:?}", tree.terminate_child("calls").await));
            noted.push(format!("{:?}", tree.which_children().map(|_| ())));
            noted.push(format!("{:?}", tree.stop().await.map(|_| ())));
            *self.results.lock().unwrap() = noted;
            Ok(())
        }
    }
    let (slot, noted, inner) = (tree_slot.clone(), results.clone(), stage.clone());
    let spec = ChildSpec::new("calls", move |parent| {
        let spec = Mutex::new(Some(inner.child("other")));
        Calls::spawn_linked(None, Calls { tree: slot.clone(), results: noted.clone(), spec }, (), parent)
    });
    let tree = Supervisor::builder("top").child(spec.shutdown(Shutdown::Infinity)).start().await.unwrap();
    *tree_slot.lock().unwrap() = Some(tree.clone());
    let began = Instant::now();
    let report = tokio::time::timeout(MINUTE, tree.stop()).await.expect("nobody waits for ever").unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(began.elapsed() < Duration::from_secs(1));
    let expected = ["Err(ShuttingDown)", "Err(Deadlock(Deadlock))", "Err(ShuttingDown)", "Err(Deadlock)"];
    assert_eq!(*results.lock().unwrap(), expected);
}

/// openclaw/openclaw#137191: restart timers fired too early or never after a jump of the clock (a machine that slept).
#[tokio::test(start_paused = true)]
async fn openclaw_137191_jump_of_the_clock_ends_windows_and_delays_once() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").intensity(2, MINUTE);
    let tree =
        builder.child(stage.child("a").backoff(Backoff::constant(Duration::from_secs(5)))).start().await.unwrap();
    let starts = |stage: &Stage| stage.did().iter().filter(|event| *event == "start a").count();
    assert_eq!(starts(&stage), 1);
    for round in 0..10 {
        tell_id(&tree, "a", Do::Fail);
        quiet().await;
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        quiet().await;
        assert_eq!(starts(&stage), 1, "round {round}: one restart for one failure");
    }
    // Without a jump the window counts as ever.
    let report = tokio::time::timeout(MINUTE, async {
        while tree.report().is_none() {
            if let Ok(child) = tree.child("a") {
                tell_if_alive(child.actor(), Do::Fail);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    report.await.expect("it gives up");
}

/// celluloid/celluloid#29, gleam-lang/otp#65: the end of a supervisor did not end what it supervised.
#[tokio::test(start_paused = true)]
async fn celluloid_29_a_supervisor_that_gives_up_during_its_parents_stop_leaves_nothing() {
    let stage = Stage::default();
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        let slow_child = inner.child_with("slow", slow(2)).shutdown(Shutdown::After(Duration::from_secs(5)));
        Supervisor::builder("nested").intensity(0, MINUTE).child(slow_child).child(inner.child("failing"))
    });
    let last = stage.child_with("last", slow(1)).shutdown(Shutdown::After(Duration::from_secs(5)));
    let tree = Supervisor::builder("top").intensity(5, MINUTE).child(nested).child(last).start().await.unwrap();
    let inside: Arc<SupervisorRef> = tree.child("nested").unwrap().value().unwrap();
    let stopping = stop_meanwhile(&tree);
    quiet().await;
    // The parent waits for `last`; meanwhile the nested supervisor gives up by itself.
    tell_id(&inside, "failing", Do::Fail);
    let report = stopping.await.unwrap();
    assert!(matches!(inside.report().unwrap().cause, ShutdownCause::GaveUp { .. }));
    assert_eq!(report.cause, ShutdownCause::Stopped);
    let diary = stage.diary.take();
    assert_eq!(
        diary.iter().filter(|event| event.starts_with("start")).count(),
        3,
        "nothing was started again: {diary:?}"
    );
    assert_eq!(diary.iter().filter(|event| event.starts_with("drop")).count(), 3, "{diary:?}");
}

/// nervosnetwork/fiber#1520: many children failing at once. svix/diom#730: a shutdown panicked over tasks that were aborted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn diom_730_thousand_children_that_panic_at_once_end_in_order() {
    let gate = Gate::closed();
    let inner = gate.clone();
    let builder = DynamicSupervisor::temporary("workers", move |parent: ActorCell, n: u32| {
        let gate = inner.clone();
        async move {
            struct Fails(Gate, u32);
            impl Actor for Fails {
                type Msg = ();
                type State = ();
                type Arguments = ();
                async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
                    myself.cast(())?;
                    Ok(())
                }
                async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
                    self.0.pass().await;
                    match self.1 % 3 {
                        0 => std::panic::panic_any(self.1),
                        1 => Err("told to fail".into()),
                        _ => std::future::pending().await,
                    }
                }
            }
            Fails::spawn_linked(None, Fails(gate, n), (), parent).await.map(Child::from)
        }
    });
    let tree = builder.start().await.unwrap();
    for n in 0..1_000 {
        tree.start_child(n).await.unwrap();
    }
    gate.open();
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop().await.unwrap() }
    });
    let report = tokio::time::timeout(Duration::from_secs(60), stopping).await.expect("it ends").unwrap();
    assert_eq!(report.kill_timed_out().count(), 0, "{report}");
    assert_eq!(tree.inspect().details.counters["children"], 0);
}

/// erlang/otp#8361: a child that stops slowly blocked every other operation of its supervisor.
#[tokio::test(start_paused = true)]
async fn otp_8361_slow_terminate_blocks_no_other_operation() {
    let stage = Stage::default();
    let lingering = stage.child_with("slow", slow(100)).shutdown(Shutdown::Infinity);
    let tree = Supervisor::builder("top").child(lingering).child(stage.child("a")).start().await.unwrap();
    let terminating = tokio::spawn({
        let tree = tree.clone();
        async move { tree.terminate_child("slow").await }
    });
    quiet().await;
    let began = Instant::now();
    tree.terminate_child("a").await.unwrap();
    tree.restart_child("a").await.unwrap();
    tree.start_child(stage.child("b")).await.unwrap();
    tell_id(&tree, "b", Do::Fail);
    quiet().await;
    assert!(tree.child("b").is_ok(), "it was restarted meanwhile");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    terminating.await.unwrap().unwrap();
}
