//! The actors below a root, and the runtime's tasks, by kind.
//!
//! Take one before and one after: what a load leaves behind shows as a difference, by name.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ractor::{ActorCell, Message};
use tokio::runtime::Handle;

/// Which actors are of which kind: by message type, or by id. One of no known kind is counted by its nearest ancestor of
/// a known one, for instance as `under echo`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use plimsoll_testkit::census::Kinds;
/// use ractor::{Actor, ActorProcessingErr, ActorRef};
///
/// struct Sleeper;
/// struct Wake;
/// impl Actor for Sleeper {
///     type Msg = Wake;
///     type State = ();
///     type Arguments = ();
///     async fn pre_start(&self, _: ActorRef<Wake>, (): ()) -> Result<(), ActorProcessingErr> {
///         Ok(())
///     }
/// }
///
/// let kinds = Kinds::default().kind::<Wake>("sleeper");
/// let (root, ended) = Actor::spawn(None, Sleeper, ()).await.unwrap();
/// let before = kinds.census(&root.get_cell());
/// let (child, child_ended) = Actor::spawn_linked(None, Sleeper, (), root.get_cell()).await.unwrap();
/// let after = kinds.census(&root.get_cell());
/// assert_eq!(after.since(&before).to_string(), "sleeper +1, task +0");
/// # child.stop(None); root.stop(None); child_ended.await.unwrap(); ended.await.unwrap();
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    types: BTreeMap<TypeId, String>,
    ids: BTreeMap<String, String>,
}

/// A count of actors by kind and of tasks that are no actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Actors by kind, the root included.
    pub actors: BTreeMap<String, usize>,
    /// Tasks alive in the runtime beyond those that run the counted actors.
    pub tasks: usize,
}

/// What changed from one census to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(Vec<(String, isize)>);

impl Kinds {
    /// Names the actors whose message type is `M`.
    #[must_use]
    pub fn kind<M: Message>(mut self, name: impl Into<String>) -> Self {
        self.types.insert(TypeId::of::<M>(), name.into());
        self
    }

    /// Names the actor with this id, as a snapshot of the tree shows it.
    #[must_use]
    pub fn actor(mut self, id: impl Into<String>, name: impl Into<String>) -> Self {
        self.ids.insert(id.into(), name.into());
        self
    }

    /// Counts the actors from `root` down, and the tasks of the runtime that this is called in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn census(&self, root: &ActorCell) -> Census {
        let mut actors = BTreeMap::new();
        let mut left = vec![(root.clone(), "under nobody".to_owned())];
        while let Some((actor, otherwise)) = left.pop() {
            let known = self.types.get(&actor.get_type_id()).or_else(|| self.ids.get(&actor.get_id().to_string()));
            let below = known.map_or_else(|| otherwise.clone(), |name| format!("under {name}"));
            left.extend(actor.get_children().into_iter().map(|child| (child, below.clone())));
            *actors.entry(known.cloned().unwrap_or(otherwise)).or_default() += 1;
        }
        let alive = Handle::current().metrics().num_alive_tasks();
        Census { tasks: alive.saturating_sub(actors.values().sum()), actors }
    }
}

impl Census {
    /// What there is more, or less, than at `earlier`.
    pub fn since(&self, earlier: &Self) -> Difference {
        let kinds: BTreeSet<_> = self.actors.keys().chain(earlier.actors.keys()).collect();
        let count = |census: &Self, kind: &String| census.actors.get(kind).copied().unwrap_or(0);
        let more_of = |kind: &String| (kind.clone(), more(count(self, kind), count(earlier, kind)));
        let mut rows: Vec<_> = kinds.into_iter().map(more_of).filter(|(_, difference)| *difference != 0).collect();
        rows.push(("task".to_owned(), more(self.tasks, earlier.tasks)));
        Difference(rows)
    }
}

impl Difference {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, difference)| *difference == 0)
    }

    /// Whether nothing is there that was not there before.
    pub fn nothing_more(&self) -> bool {
        self.0.iter().all(|(_, difference)| *difference <= 0)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, difference)) in self.0.iter().enumerate() {
            write!(f, "{}{kind} {difference:+}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn more(now: usize, then: usize) -> isize {
    now.cast_signed() - then.cast_signed()
}
