//! The actors below a root, and the runtime's tasks, by kind.
//!
//! Take one before and one after: what a load leaves behind shows as a difference, by name.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;

use ractor::{ActorCell, Message};
use tokio::runtime::Handle;

/// Which message types are which kind of actor. An actor of no known kind is counted as `other actor`.
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
    names: BTreeMap<TypeId, &'static str>,
}

/// A count of actors by kind and of tasks that are no actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Actors by kind, the root included.
    pub actors: BTreeMap<&'static str, usize>,
    /// Tasks alive in the runtime beyond those that run the counted actors.
    pub tasks: usize,
}

/// What changed from one census to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(Vec<(&'static str, isize)>);

impl Kinds {
    /// Names the actors whose message type is `M`.
    #[must_use]
    pub fn kind<M: Message>(mut self, name: &'static str) -> Self {
        self.names.insert(TypeId::of::<M>(), name);
        self
    }

    /// Counts the actors from `root` down, and the tasks of the runtime that this is called in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn census(&self, root: &ActorCell) -> Census {
        let mut actors = BTreeMap::new();
        let mut left = vec![root.clone()];
        while let Some(actor) = left.pop() {
            *actors.entry(self.names.get(&actor.get_type_id()).copied().unwrap_or("other actor")).or_default() += 1;
            left.extend(actor.get_children());
        }
        let alive = Handle::current().metrics().num_alive_tasks();
        Census { tasks: alive.saturating_sub(actors.values().sum()), actors }
    }
}

impl Census {
    /// What there is more, or less, than at `earlier`.
    pub fn since(&self, earlier: &Self) -> Difference {
        let mut kinds: Vec<_> = self.actors.keys().chain(earlier.actors.keys()).copied().collect();
        kinds.sort_unstable();
        kinds.dedup();
        let count = |census: &Self, kind| census.actors.get(kind).copied().unwrap_or(0);
        let mut rows: Vec<_> =
            kinds.into_iter().map(|kind| (kind, more(count(self, kind), count(earlier, kind)))).collect();
        rows.retain(|(_, difference)| *difference != 0);
        rows.push(("task", more(self.tasks, earlier.tasks)));
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
