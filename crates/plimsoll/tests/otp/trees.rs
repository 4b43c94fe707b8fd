//! Supervisors that many cases begin with, and what is seen of their children.

use std::time::Duration;

use plimsoll::supervisor::{
    ChildSpec, ChildState, ShutdownCause, Strategy, Supervisor, SupervisorBuilder, SupervisorRef,
};

use crate::support::Stage;

pub(crate) fn named(stage: &Stage, ids: &[&str]) -> Vec<ChildSpec> {
    ids.iter().map(|id| stage.child(id)).collect()
}

/// Starts it; what its children did meanwhile is not looked at.
pub(crate) async fn start(stage: &Stage, builder: SupervisorBuilder) -> SupervisorRef {
    let tree = builder.start().await.unwrap();
    stage.did();
    tree
}

/// The children a, b and c, and one restart a minute.
pub(crate) fn three(stage: &Stage, strategy: Strategy) -> SupervisorBuilder {
    let builder = Supervisor::builder("top").strategy(strategy).intensity(1, Duration::from_secs(60));
    builder.children(named(stage, &["a", "b", "c"]))
}

/// The same, with three restarts a minute.
pub(crate) async fn start_three(stage: &Stage, strategy: Strategy) -> SupervisorRef {
    start(stage, three(stage, strategy).intensity(3, Duration::from_secs(60))).await
}

/// Why it ended by itself; it has a minute for it.
pub(crate) async fn ended(tree: &SupervisorRef) -> ShutdownCause {
    tokio::time::timeout(Duration::from_secs(60), tree.wait()).await.expect("it ends").unwrap().cause.clone()
}

/// `+` it runs, `~` it restarts, `-` it has no child.
pub(crate) fn letter(state: &ChildState) -> char {
    match state {
        ChildState::Running(_) => '+',
        ChildState::Restarting => '~',
        _ => '-',
    }
}

/// The children oldest first, as `a+ b~ c-`.
pub(crate) fn shown(tree: &SupervisorRef) -> String {
    let children = tree.which_children().unwrap().into_iter().rev();
    children.map(|child| format!("{}{}", child.id.unwrap(), letter(&child.state))).collect::<Vec<_>>().join(" ")
}

/// The state of the child `id`; `None` when there is no such spec.
pub(crate) fn state(tree: &SupervisorRef, id: &str) -> Option<ChildState> {
    let children = tree.which_children().unwrap();
    children.into_iter().find(|child| child.id.as_deref() == Some(id)).map(|child| child.state)
}
