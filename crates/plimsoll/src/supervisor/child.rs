//! A started child, as its start function hands it over.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId, ActorRef};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

use super::current_message::CurrentMessage;
use super::shutdown_report::ShutdownReport;
use super::stop_deadline::StopDeadline;
use crate::current_server;
use crate::inspect::Inspect;

/// A running, linked actor on its way to its supervisor.
///
/// What `ractor::Actor::spawn_linked` returns converts into it, so that an existing actor needs no change.
///
/// ```
/// use plimsoll::supervisor::{BoxError, Child, ChildSpec, Supervisor};
/// use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
///
/// struct Cache;
/// impl Actor for Cache {
///     type Msg = ();
///     type State = ();
///     type Arguments = ();
///     async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let spec = ChildSpec::new("cache", |parent: ActorCell| async move {
///     let cache = Cache::spawn_linked(None, Cache, (), parent).await?;
///     Ok::<_, BoxError>(Child::from(cache).value("a value for those who look the child up"))
/// });
/// let tree = Supervisor::builder("app").child(spec).start().await?;
/// assert!(tree.child("cache")?.value::<&str>().is_some());
/// # tree.stop().await?;
/// # Ok(())
/// # }
/// ```
pub struct Child {
    pub(crate) actor: ActorCell,
    pub(crate) ended: JoinHandle<()>,
    pub(crate) inspect: Option<Arc<dyn Inspect>>,
    pub(crate) value: Option<Arc<dyn Any + Send + Sync>>,
    /// Cancelled to ask the child to stop, where it has no mailbox that listens.
    pub(crate) token: Option<CancellationToken>,
    pub(crate) nested: Option<Arc<dyn Nested>>,
    pub(crate) current_message: Option<CurrentMessage>,
    pub(crate) stop_deadline: Option<StopDeadline>,
}

/// A caller that may wait for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) task: tokio::task::Id,
    /// The call server whose worker it is.
    pub(crate) server: Option<ActorId>,
}

impl Caller {
    /// The current task; `None` outside of any.
    pub(crate) fn current() -> Option<Self> {
        Some(Self { task: tokio::task::try_id()?, server: current_server::current() })
    }
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a supervisor knows of a child that is a supervisor of ours.
pub(crate) trait Nested: Send + Sync {
    /// Ready when the nested supervisor has ended and its report is complete. Children that it abandoned may live on.
    fn ended(&self) -> BoxFuture<'_, Arc<ShutdownReport>>;
    /// Gives its report to its own observer, because it is not part of its parent's.
    fn observe(&self);
    /// Whether the caller is a child below it, or a worker of one.
    fn contains(&self, caller: Caller) -> bool;
    /// Whether the caller is a start of it, or of a supervisor that it is starting.
    fn starts(&self, caller: Caller) -> bool;
    /// Where its child with this id is published; `None` when there is none, and for dynamic supervisors.
    fn slot(&self, id: &str) -> Option<Arc<ChildSlot>>;
}

impl Child {
    /// A child from its actor and the handle of the actor's task.
    pub fn new(actor: ActorCell, ended: JoinHandle<()>) -> Self {
        Self {
            actor,
            ended,
            inspect: None,
            value: None,
            token: None,
            nested: None,
            current_message: None,
            stop_deadline: None,
        }
    }

    /// Lets the child show its counters and children in the snapshot.
    #[must_use]
    pub fn inspect(mut self, inspect: Arc<dyn Inspect>) -> Self {
        self.inspect = Some(inspect);
        self
    }

    /// A value for those who look the child up (OTP's `{ok, Child, Info}`), such as its client. Each restart sets it again; a
    /// second value replaces the first.
    #[must_use]
    pub fn value<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.value = Some(Arc::new(value));
        self
    }

    /// Where the child writes down the message that it handles, for the report of a stop that it holds up.
    #[must_use]
    pub fn current_message(mut self, current_message: CurrentMessage) -> Self {
        self.current_message = Some(current_message);
        self
    }

    /// Where the supervisor writes, when it asks the child to stop, by when it will kill it.
    #[must_use]
    pub fn stop_deadline(mut self, stop_deadline: StopDeadline) -> Self {
        self.stop_deadline = Some(stop_deadline);
        self
    }

    pub(crate) fn reference(&self) -> ChildRef {
        ChildRef { actor: self.actor.clone(), value: self.value.clone() }
    }

    /// The value set before, for a start function that starts another's child; `None` when there is none of this type.
    pub fn value_ref<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone()?.downcast().ok()
    }
}

impl<M> From<(ActorRef<M>, JoinHandle<()>)> for Child {
    fn from((actor, ended): (ActorRef<M>, JoinHandle<()>)) -> Self {
        Self::new(actor.into(), ended)
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("actor", &self.actor.get_id()).finish_non_exhaustive()
    }
}

/// A child as the operations of a supervisor return it: one incarnation.
#[derive(Clone)]
pub struct ChildRef {
    pub(crate) actor: ActorCell,
    pub(crate) value: Option<Arc<dyn Any + Send + Sync>>,
}

impl ChildRef {
    /// The child's actor.
    pub fn actor(&self) -> &ActorCell {
        &self.actor
    }

    /// The child's actor as a typed reference; `None` when it takes messages of another type.
    pub fn actor_ref<M: ractor::Message>(&self) -> Option<ActorRef<M>> {
        (self.actor.is_message_type_of::<M>() == Some(true)).then(|| self.actor.clone().into())
    }

    /// The value that the start function set; `None` when there is none of this type.
    pub fn value<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone()?.downcast().ok()
    }
}

impl ChildRef {
    /// The value, without sharing it.
    pub(crate) fn value_as<T: Any>(&self) -> Option<&T> {
        self.value.as_deref()?.downcast_ref()
    }
}

impl PartialEq for ChildRef {
    fn eq(&self, other: &Self) -> bool {
        self.actor.get_id() == other.actor.get_id()
    }
}

impl Eq for ChildRef {}

impl fmt::Debug for ChildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildRef").field(&self.actor.get_id()).finish()
    }
}

/// What is known of a child, for those who hold a handle to it.
#[derive(Clone)]
pub(crate) enum Presence {
    /// With the nested supervisor that it is.
    Running(ChildRef, Option<Arc<dyn Nested>>),
    /// It starts, or waits for its restart.
    Restarting,
    /// It does not run, and is started by hand only.
    Stopped,
    /// Its spec is gone.
    Removed,
    /// Its supervisor has ended.
    SupervisorEnded,
}

/// The place where a supervisor publishes one child.
pub(crate) struct ChildSlot {
    presence: ArcSwap<Presence>,
    changed: Notify,
}

impl ChildSlot {
    pub(crate) fn new(presence: Presence) -> Self {
        Self { presence: ArcSwap::from_pointee(presence), changed: Notify::new() }
    }

    /// Whether this is news; those who wait are to be woken then.
    pub(crate) fn publish(&self, presence: Presence) -> bool {
        let changed = **self.presence.load() != presence;
        if changed {
            self.presence.store(Arc::new(presence));
        }
        changed
    }

    pub(crate) fn load(&self) -> Guard<Arc<Presence>> {
        self.presence.load()
    }

    /// Ready after the next change.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
    }
}

impl PartialEq for Presence {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Running(one, _), Self::Running(other, _)) => one == other,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Debug for ChildSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &**self.load() {
            Presence::Running(..) => "running",
            Presence::Restarting => "restarting",
            Presence::Stopped => "stopped",
            Presence::Removed => "removed",
            Presence::SupervisorEnded => "supervisor ended",
        })
    }
}
