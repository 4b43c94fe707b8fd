//! One child in the table.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use ractor::concurrency::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::inspect::Inspect;
use crate::supervisor::child::Nested;
use crate::supervisor::current_message::CurrentMessage;
use crate::supervisor::frame::Ending;
use crate::supervisor::stop_deadline::StopDeadline;

/// One child. Kept small: there may be a hundred thousand.
pub(super) struct Slot<A> {
    /// None while its first start is under way; the last one while it waits for its restart.
    pub(super) actor: Option<ActorCell>,
    /// The handle of its task, until somebody waits for it.
    pub(super) join: Option<JoinHandle<()>>,
    pub(super) since: Duration,
    pub(super) args: Option<A>,
    pub(super) more: Option<Box<More>>,
}

/// What few children have.
#[derive(Default)]
pub(super) struct More {
    pub(super) value: Option<Arc<dyn Any + Send + Sync>>,
    pub(super) inspect: Option<Arc<dyn Inspect>>,
    pub(super) token: Option<CancellationToken>,
    pub(super) nested: Option<Arc<dyn Nested>>,
    pub(super) current_message: Option<CurrentMessage>,
    pub(super) stop_deadline: Option<StopDeadline>,
    /// What it had in hand when it was killed.
    pub(super) killed_with: Option<Arc<str>>,
    pub(super) restarts: u64,
    pub(super) ending: Ending,
}

impl<A> Slot<A> {
    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    pub(super) fn is_nested(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.nested.is_some())
    }
}

impl More {
    pub(super) fn message_at_kill(&self) -> Option<Arc<str>> {
        self.killed_with.clone().or_else(|| self.current_message.as_ref()?.get())
    }
}
