//! The path of a child in its tree, for its log lines.
//!
//! A start runs within the path of the child that it starts. What the library spawns for that child (the function of a
//! task, the event loop of a server, the workers of calls) continues in a span with that path. ractor spawns the task of
//! an ordinary actor itself, so its handlers are in no span of ours: such an actor asks for [`child_span`] in `pre_start`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ractor::ActorId;
use tracing::{Instrument, Span};

tokio::task_local! {
    static CURRENT: ChildPath;
}

/// Where a child is in its tree.
#[derive(Debug, Clone)]
pub(crate) struct ChildPath {
    /// The path of its supervisor.
    above: Arc<str>,
    /// None for a dynamic child, whose actor's id is known after its start.
    id: Option<Arc<str>>,
}

impl ChildPath {
    pub(crate) fn new(above: &Arc<str>, id: Option<Arc<str>>) -> Self {
        Self { above: above.clone(), id }
    }

    /// A span for a task of the child. Of the highest level, so that a filter keeps it for every line that it keeps.
    fn span(&self, actor: Option<ActorId>) -> Span {
        let path = Shown { path: self, actor };
        tracing::error_span!(target: "plimsoll::supervisor", parent: None, "child", %path)
    }
}

struct Shown<'a> {
    path: &'a ChildPath,
    actor: Option<ActorId>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChildPath { above, id } = self.path;
        if !above.is_empty() {
            write!(f, "{above}/")?;
        }
        match (id, self.actor) {
            (Some(id), _) => f.write_str(id),
            (None, Some(actor)) => write!(f, "{actor}"),
            (None, None) => f.write_str("*"),
        }
    }
}

/// Runs the start of the child with this path.
pub(crate) fn within<F: Future>(path: ChildPath, start: F) -> impl Future<Output = F::Output> {
    let span = tracing::error_span!(
        target: "plimsoll::supervisor", "child", path = %Shown { path: &path, actor: None }
    );
    CURRENT.scope(path, start.instrument(span))
}

/// The path of the child that the current task starts; empty outside of a start.
pub(crate) fn current() -> Arc<str> {
    CURRENT.try_with(|path| Shown { path, actor: None }.to_string().into()).unwrap_or_default()
}

/// The span of the child that the current task starts, for what continues in another task. Disabled outside of a start.
pub(crate) fn span_of(actor: ActorId) -> Span {
    CURRENT.try_with(|path| path.span(Some(actor))).unwrap_or_else(|_| Span::none())
}

/// The span of the child that is being started, with its path in the tree as the field `path` (`gateway/sessions`). In a
/// dynamic supervisor the last part is `*`. A disabled span outside of a start.
///
/// Task children, the handlers of a [`GenServer`](crate::server::GenServer) and the calls of a
/// [`CallServer`](crate::call::CallServer) run in such a span by themselves, and so does everything in a start function.
/// ractor runs the handlers of an ordinary actor in a task that it spawns itself: an actor that wants their log lines to
/// carry its path keeps this span in its state and enters it.
///
/// ```
/// use plimsoll::supervisor::child_span;
/// use ractor::{Actor, ActorProcessingErr, ActorRef};
/// use tracing::{Instrument, Span};
///
/// struct Printer;
/// impl Actor for Printer {
///     type Msg = String;
///     type State = Span;
///     type Arguments = ();
///     async fn pre_start(&self, _: ActorRef<String>, (): ()) -> Result<Span, ActorProcessingErr> {
///         Ok(child_span())
///     }
///     async fn handle(&self, _: ActorRef<String>, line: String, span: &mut Span) -> Result<(), ActorProcessingErr> {
///         async { tracing::info!(line, "printed") }.instrument(span.clone()).await;
///         Ok(())
///     }
/// }
/// ```
pub fn child_span() -> Span {
    CURRENT.try_with(|path| path.span(None)).unwrap_or_else(|_| Span::none())
}
