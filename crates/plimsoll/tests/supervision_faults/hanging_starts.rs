//! Operations while a start hangs: one set of results, and no child older than what it depends on.

use std::time::Duration;

use plimsoll::supervisor::{Strategy, Supervisor, SupervisorRef};
use plimsoll_testkit::gate::Gate;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::stage::{Gates, Living, Starts, agent, fail, gated, is_starting, shown};
use crate::support::quiet;

const GROUPS: [Strategy; 2] = [Strategy::OneForAll, Strategy::RestForOne];
const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

/// A tree whose child `a` starts behind gates.
struct Hanging {
    tree: SupervisorRef,
    living: Living,
    gates: Gates,
    starts: Starts,
}

impl Hanging {
    async fn new(strategy: Strategy) -> Self {
        let (living, gates, starts) = (Living::default(), Gates::default(), Starts::default());
        let builder = Supervisor::builder("top").strategy(strategy).intensity(10, Duration::from_secs(60));
        let builder = builder.child(gated("a", &living, &gates, &starts));
        let builder = builder.children(["b", "c"].map(|id| gated(id, &living, &Gates::default(), &starts)));
        let tree = builder.start().await.unwrap();
        starts.lock().unwrap().clear();
        Self { tree, living, gates, starts }
    }

    /// The restart of `a` hangs until the gate opens.
    async fn a_hangs(&self) -> Gate {
        let gate = self.gates.next();
        fail(self.tree.child("a").unwrap().actor());
        gate.until_waiting(1).await;
        quiet().await;
        gate
    }

    fn started(&self) -> Vec<String> {
        self.starts.lock().unwrap().clone()
    }

    fn last_start(&self, id: &str) -> Option<usize> {
        self.started().iter().rposition(|started| started == id)
    }

    /// Starts a child in a task of its own.
    fn start_meanwhile(&self, id: &str) -> JoinHandle<bool> {
        let (tree, spec) = (self.tree.clone(), gated(id, &self.living, &Gates::default(), &self.starts));
        tokio::spawn(async move { tree.start_child(spec).await.is_ok() })
    }

    fn restart_meanwhile(&self, id: &'static str) -> JoinHandle<()> {
        let tree = self.tree.clone();
        tokio::spawn(async move {
            // That the strategy has started it meanwhile is as good an answer.
            let _ = tree.restart_child(id).await;
        })
    }
}

#[tokio::test(start_paused = true)]
async fn first_start_in_progress_has_one_set_of_results() {
    for strategy in STRATEGIES {
        let (living, gates, starts) = (Living::default(), Gates::default(), Starts::default());
        let tree = Supervisor::builder("top").strategy(strategy).child(agent("a", &living)).start().await.unwrap();
        let gate = gates.next();
        let spec = || gated("x", &living, &gates, &starts);
        let first = tokio::spawn({
            let (tree, spec) = (tree.clone(), spec());
            async move { tree.start_child(spec).await }
        });
        gate.until_waiting(1).await;
        quiet().await;
        let began = Instant::now();
        assert!(is_starting(tree.start_child(spec()).await), "{strategy:?}: start_child");
        assert!(is_starting(tree.restart_child("x").await), "{strategy:?}: restart_child");
        assert!(is_starting(tree.delete_child("x").await), "{strategy:?}: delete_child");
        assert!(is_starting(tree.child("x")), "{strategy:?}: child");
        let entry = tree.which_children().unwrap().into_iter().find(|child| child.id.as_deref() == Some("x"));
        assert_eq!(format!("{:?}", entry.unwrap().state), "Starting", "{strategy:?}: which_children");
        assert_eq!(began.elapsed(), Duration::ZERO);
        gate.open();
        assert!(first.await.unwrap().is_ok());
        assert!(tree.child("x").is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn restart_by_hand_in_progress_reads_as_starting() {
    let hanging = Hanging::new(Strategy::OneForOne).await;
    hanging.tree.terminate_child("a").await.unwrap();
    let gate = hanging.gates.next();
    let restarting = hanging.restart_meanwhile("a");
    gate.until_waiting(1).await;
    quiet().await;
    assert!(is_starting(hanging.tree.restart_child("a").await), "restart_child");
    assert!(is_starting(hanging.tree.delete_child("a").await), "delete_child");
    assert!(is_starting(hanging.tree.child("a")), "child");
    gate.open();
    restarting.await.unwrap();
    assert!(hanging.tree.child("a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn restart_child_during_a_hanging_restart_of_an_earlier_sibling_starts_after_it() {
    for strategy in GROUPS {
        let hanging = Hanging::new(strategy).await;
        hanging.tree.terminate_child("c").await.unwrap();
        let gate = hanging.a_hangs().await;
        let restarted = hanging.restart_meanwhile("c");
        quiet().await;
        gate.open();
        restarted.await.unwrap();
        quiet().await;
        assert_eq!(shown(&hanging.tree), "a+ b+ c+", "{strategy:?}");
        assert!(hanging.last_start("a") < hanging.last_start("b"), "{strategy:?}: {:?}", hanging.started());
        assert!(hanging.last_start("a") < hanging.last_start("c"), "{strategy:?}: {:?}", hanging.started());
    }
}

#[tokio::test(start_paused = true)]
async fn start_child_during_a_hanging_restart_of_an_earlier_sibling_starts_after_it() {
    for strategy in GROUPS {
        let hanging = Hanging::new(strategy).await;
        let gate = hanging.a_hangs().await;
        let started = hanging.start_meanwhile("new");
        quiet().await;
        gate.open();
        assert!(started.await.unwrap(), "{strategy:?}");
        quiet().await;
        assert_eq!(shown(&hanging.tree), "a+ b+ c+ new+", "{strategy:?}");
        assert!(hanging.last_start("a") < hanging.last_start("new"), "{strategy:?}: {:?}", hanging.started());
    }
}

#[tokio::test(start_paused = true)]
async fn start_child_that_waits_for_a_hanging_restart_ends_with_its_termination_and_with_the_stop() {
    for strategy in GROUPS {
        let hanging = Hanging::new(strategy).await;
        let _never = hanging.a_hangs().await;
        let started = hanging.start_meanwhile("new");
        quiet().await;
        hanging.tree.terminate_child("a").await.unwrap();
        assert!(started.await.unwrap(), "{strategy:?}");
        assert_eq!(shown(&hanging.tree), "a- b+ c+ new+", "{strategy:?}");

        let hanging = Hanging::new(strategy).await;
        let _never = hanging.a_hangs().await;
        let started = hanging.start_meanwhile("new");
        quiet().await;
        let began = Instant::now();
        hanging.tree.stop().await.unwrap();
        let _ = started.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO, "{strategy:?}");
        assert_eq!(hanging.living.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn terminating_a_hanging_restart_starts_the_siblings_that_follow() {
    for strategy in GROUPS {
        let hanging = Hanging::new(strategy).await;
        let _never = hanging.a_hangs().await;
        hanging.tree.terminate_child("a").await.unwrap();
        quiet().await;
        assert_eq!(shown(&hanging.tree), "a- b+ c+", "{strategy:?}: the failed child");
    }
}

#[tokio::test(start_paused = true)]
async fn terminating_a_hanging_start_of_a_covered_sibling_starts_those_that_follow() {
    for strategy in GROUPS {
        let (living, gates, starts) = (Living::default(), Gates::default(), Starts::default());
        let builder = Supervisor::builder("top").strategy(strategy).intensity(10, Duration::from_secs(60));
        let builder = builder.child(agent("first", &living)).child(gated("a", &living, &gates, &starts));
        let tree = builder.child(agent("b", &living)).start().await.unwrap();
        let gate = gates.next();
        fail(tree.child("first").unwrap().actor());
        gate.until_waiting(1).await;
        quiet().await;
        tree.terminate_child("a").await.unwrap();
        quiet().await;
        assert_eq!(shown(&tree), "first+ a- b+", "{strategy:?}: a covered sibling");
    }
}
