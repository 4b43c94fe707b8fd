//! One typed, versioned snapshot of the whole runtime.
//!
//! A part with counters implements [`Inspect`], and its start function passes that to the supervisor with the
//! [`Child`](crate::supervisor::Child). Reading sends no message to any actor: it works while an actor is stuck.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Version of the snapshot's JSON; it rises when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Something that can describe itself at any time, without blocking.
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use plimsoll::inspect::{Details, Inspect};
///
/// #[derive(Default)]
/// struct Requests(AtomicU64);
///
/// impl Inspect for Requests {
///     fn inspect(&self) -> Details {
///         let requests = self.0.load(Ordering::Relaxed);
///         Details { counters: BTreeMap::from([("requests".to_owned(), requests)]), ..Details::default() }
///     }
/// }
///
/// assert_eq!(Requests::default().inspect().counters["requests"], 0);
/// ```
pub trait Inspect: Send + Sync + 'static {
    /// Its counters and, for whatever has children, the nodes below it.
    fn inspect(&self) -> Details;
}

/// What an [`Inspect`] adds to its place in the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Counters and gauges by name, for instance `in_flight`.
    pub counters: BTreeMap<String, u64>,
    /// Children, in start order.
    pub children: Vec<TreeNode>,
}

/// What a place in the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A supervisor.
    Supervisor,
    /// Any other actor, or a task child.
    Worker,
}

/// The state of a child as its supervisor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Starting for the first time.
    Starting,
    /// Running.
    Running,
    /// Waiting for its restart.
    Restarting,
    /// Being stopped.
    Stopping,
    /// No child: ended, ignored or terminated; the spec is kept.
    Stopped,
}

/// One place in the supervision tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// The child's id within its supervisor.
    pub id: String,
    /// Supervisor or worker.
    pub kind: Kind,
    /// How its supervisor sees it.
    pub status: Status,
    /// The actor's id, while there is one.
    pub actor: Option<String>,
    /// How often it was restarted.
    pub restarts: u64,
    /// Counters, gauges and children.
    #[serde(flatten)]
    pub details: Details,
}

/// The whole runtime at one moment.
/// ```
/// use plimsoll::inspect::Snapshot;
/// use plimsoll::supervisor::{BoxError, Supervisor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let tree = Supervisor::builder("app").start().await?;
/// assert_eq!(Snapshot::of(tree.inspect()).tree.id, "app");
/// # tree.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Milliseconds since the Unix epoch.
    pub taken_at_ms: u64,
    /// The supervision tree from its root.
    pub tree: TreeNode,
}

impl Snapshot {
    /// A snapshot of `tree`, taken now.
    pub fn of(tree: TreeNode) -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { schema: SCHEMA, taken_at_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX), tree }
    }
}
