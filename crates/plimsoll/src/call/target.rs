//! What a client calls: one incarnation of a server, or a child through its restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::ActorCell;
use tokio::time::Instant;

use super::Protocol;
use super::caller_exit::Binding;
use super::shared::Shared;
use crate::supervisor::{ChildPlace, ChildRef, HandleError};

/// The default deadline as long as no incarnation is known.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) enum Target<P: Protocol> {
    Incarnation(Arc<Shared<P>>),
    Child(Arc<ChildTarget<P>>),
}

impl<P: Protocol> Target<P> {
    /// The incarnation that is called now.
    pub(crate) fn incarnation(&self) -> Result<Arc<Shared<P>>, HandleError> {
        match self {
            Self::Incarnation(shared) => Ok(Arc::clone(shared)),
            Self::Child(child) => child.incarnation(),
        }
    }

    pub(crate) fn default_deadline(&self) -> Duration {
        match self {
            Self::Incarnation(shared) => shared.limits.deadline,
            Self::Child(child) => Duration::from_nanos(child.default_deadline.load(Ordering::Relaxed)),
        }
    }
}

impl<P: Protocol> Clone for Target<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Incarnation(shared) => Self::Incarnation(Arc::clone(shared)),
            Self::Child(child) => Self::Child(Arc::clone(child)),
        }
    }
}

/// A child that is a server, whichever of its incarnations runs.
pub(crate) struct ChildTarget<P: Protocol> {
    place: Arc<ChildPlace>,
    /// Finds the server in what the child's start handed over.
    find: fn(&ChildRef) -> Option<&Arc<Shared<P>>>,
    /// That of the last incarnation which was found, in nanoseconds.
    default_deadline: AtomicU64,
}

impl<P: Protocol> ChildTarget<P> {
    pub(crate) fn new(place: Arc<ChildPlace>, find: fn(&ChildRef) -> Option<&Arc<Shared<P>>>) -> Self {
        Self { place, find, default_deadline: AtomicU64::new(nanos(DEFAULT_DEADLINE)) }
    }

    /// The incarnation that runs. Takes no lock.
    pub(crate) fn incarnation(&self) -> Result<Arc<Shared<P>>, HandleError> {
        let found = self.place.with_running(|child| (self.find)(child).cloned())?;
        let shared = found.ok_or(HandleError::WrongType)?;
        let deadline = nanos(shared.limits.deadline);
        if self.default_deadline.load(Ordering::Relaxed) != deadline {
            self.default_deadline.store(deadline, Ordering::Relaxed);
        }
        Ok(shared)
    }

    /// Waits until something is published other than the incarnation that refused, until the deadline, or until the caller
    /// exits.
    pub(crate) async fn wait(
        self: Arc<Self>,
        refused: Option<Arc<Shared<P>>>,
        deadline: Instant,
        caller: Option<ActorCell>,
    ) {
        let is_refused = |child: &ChildRef| {
            refused.as_ref().zip((self.find)(child)).is_some_and(|(refused, found)| Arc::ptr_eq(refused, found))
        };
        let changed = self.place.wait(is_refused, deadline);
        match caller {
            None => drop(changed.await),
            Some(caller) => tokio::select! {
                _ = changed => {}
                _ = caller.wait(None) => {}
            },
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The actor that a client is bound to.
pub(crate) enum BoundCaller<P: Protocol> {
    Incarnation(Arc<Binding<P>>),
    Child(Arc<ChildCaller<P>>),
}

/// A bound actor of a client of a child.
pub(crate) struct ChildCaller<P: Protocol> {
    actor: ActorCell,
    /// Its binding to the incarnation that was called last.
    current: ArcSwapOption<Binding<P>>,
}

impl<P: Protocol> BoundCaller<P> {
    pub(crate) fn new(target: &Target<P>, actor: &ActorCell) -> Self {
        match target {
            Target::Incarnation(shared) => Self::Incarnation(Arc::new(Binding::new(shared, actor))),
            Target::Child(_) => {
                Self::Child(Arc::new(ChildCaller { actor: actor.clone(), current: ArcSwapOption::empty() }))
            }
        }
    }

    pub(crate) fn actor(&self) -> ActorCell {
        match self {
            Self::Incarnation(binding) => binding.actor.clone(),
            Self::Child(caller) => caller.actor.clone(),
        }
    }

    /// The binding to this incarnation; made at the first call to it.
    pub(crate) fn binding(&self, shared: &Arc<Shared<P>>) -> Arc<Binding<P>> {
        match self {
            Self::Incarnation(binding) => Arc::clone(binding),
            Self::Child(caller) => match caller.current.load_full() {
                Some(binding) if Arc::ptr_eq(&binding.shared, shared) => binding,
                _ => {
                    let binding = Arc::new(Binding::new(shared, &caller.actor));
                    caller.current.store(Some(Arc::clone(&binding)));
                    binding
                }
            },
        }
    }
}

impl<P: Protocol> Clone for BoundCaller<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Incarnation(binding) => Self::Incarnation(Arc::clone(binding)),
            Self::Child(caller) => Self::Child(Arc::clone(caller)),
        }
    }
}
