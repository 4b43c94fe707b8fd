//! Performing one start: the user's function, its panics, its time-out, and whether the child is linked.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use ractor::{ActorCell, ActorStatus, SpawnErr};

use super::child::{Child, Start};
use super::error::{BoxError, StartError};
use super::frame::discard;
use super::rules::StartFailure;
use crate::exit::Failure;
use crate::panics;

/// How long a child that came back unlinked is waited for after its kill.
const UNLINKED_GRACE: Duration = Duration::from_secs(1);

/// Why a start function did not answer.
pub(crate) enum NoAnswer {
    Error(BoxError),
    Panic(Failure),
}

/// Calls a function and awaits its future; a panic in either is a value.
pub(crate) async fn guarded<T, F, Fut>(function: F) -> Result<T, NoAnswer>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, BoxError>>,
{
    let caught = AssertUnwindSafe(async move { function().await }).catch_unwind().await;
    match caught {
        Ok(answer) => answer.map_err(NoAnswer::Error),
        Err(payload) => {
            let failure = panics::failure_here(payload.as_ref());
            discard(payload);
            Err(NoAnswer::Panic(failure))
        }
    }
}

pub(crate) fn describe(no_answer: NoAnswer) -> Failure {
    match no_answer {
        NoAnswer::Error(error) => panics::error_failure(&*error),
        NoAnswer::Panic(failure) => failure,
    }
}

/// Runs a start to its end. When this future is dropped, the half-started actor goes with it, unless it runs already:
/// `loose` is then set, as it is after a failure that may have left one.
pub(crate) async fn attempt<F, Fut>(
    start: F,
    parent: &ActorCell,
    limit: Option<Duration>,
    loose: &AtomicBool,
) -> Result<Option<Child>, StartFailure>
where
    F: FnOnce(ActorCell) -> Fut,
    Fut: Future<Output = Result<Start, BoxError>>,
{
    loose.store(true, Ordering::Relaxed);
    // What is rare is in a box of its own, so that the future of an ordinary start is small and moves cheaply.
    let answer = pin!(guarded(|| start(parent.clone())));
    let answer = match limit {
        Some(limit) => {
            let limited = Box::pin(tokio::time::timeout(limit, answer));
            limited.await.map_err(|_| StartFailure::Timeout(limit))?
        }
        None => answer.await,
    };
    // An error of ractor's or of ours says that nothing runs.
    let clean = match &answer {
        Ok(_) => true,
        Err(NoAnswer::Error(error)) => error.is::<SpawnErr>() || error.is::<StartError>(),
        Err(NoAnswer::Panic(_)) => false,
    };
    loose.store(!clean, Ordering::Relaxed);
    match answer {
        Ok(Start::Ignore) => Ok(None),
        Ok(Start::Child(child)) if is_linked(&child, parent) => Ok(Some(child)),
        Ok(Start::Child(child)) => Err(Box::pin(not_linked(child)).await),
        Err(NoAnswer::Error(error)) => Err(why(error)),
        Err(NoAnswer::Panic(failure)) => Err(StartFailure::Failed(failure)),
    }
}

/// Kills what a start linked before it failed, and waits until it has ended, for so long.
pub(crate) async fn end(orphans: Vec<ActorCell>, limit: Duration) {
    orphans.iter().for_each(ActorCell::kill);
    let ended = futures::future::join_all(orphans.iter().map(|orphan| orphan.wait(None)));
    let _ = tokio::time::timeout(limit, ended).await;
}

fn why(error: BoxError) -> StartFailure {
    let error = match error.downcast::<StartError>() {
        Ok(nested) => return StartFailure::Nested(nested),
        Err(error) => error,
    };
    match error.downcast_ref::<SpawnErr>() {
        Some(SpawnErr::ActorAlreadyRegistered(name)) => StartFailure::NameTaken(name.as_str().into()),
        // A panic in `pre_start` was in this very task.
        Some(SpawnErr::StartupFailed(inner)) => StartFailure::Failed(panics::error_failure(inner.as_ref())),
        _ => StartFailure::Failed(panics::error_failure(&*error)),
    }
}

/// Whether the child is the supervisor's to watch.
fn is_linked(child: &Child, parent: &ActorCell) -> bool {
    let ours = child.actor.try_get_supervisor().is_some_and(|supervisor| supervisor.get_id() == parent.get_id());
    // One that has ended already is linked no more; the reason is on its way.
    ours || child.actor.get_status() >= ActorStatus::Stopping
}

/// Ends a child that is nobody's.
async fn not_linked(child: Child) -> StartFailure {
    child.actor.kill();
    let _ = tokio::time::timeout(UNLINKED_GRACE, child.ended).await;
    StartFailure::NotLinked
}

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
