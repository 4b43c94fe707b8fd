//! References to a child that survive its restarts.
//!
//! A [`ChildSlot`] holds what is known of one child: its incarnation, or why there is none. The supervisor publishes each
//! change before it releases its lock. Senders load the slot, which takes no lock.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use ractor::{ActorId, ActorRef, Message, MessagingErr};
use thiserror::Error;
use tokio::time::Instant;

use super::child::{ChildRef, ChildSlot, Presence};

/// A reference to a child by its id, for as long as its supervisor has it: it finds the incarnation that runs.
///
/// The counterpart of a registered name in OTP (`gen_server:cast(name, ..)`), with these differences: the name is the path
/// below a supervisor and need not be unique in the program; a restart in progress and a child that is gone are different
/// results (OTP: `noproc` for both); a caller can wait for the restart; and messages have a type.
///
/// Sending takes no lock. A message is delivered once at most: one that the incarnation did not accept is returned or,
/// by [`send_within`](Self::send_within), sent to its successor; one that it accepted is not sent again, and is lost if
/// the child exits before it handles it.
///
/// ```
/// use std::time::Duration;
/// use plimsoll::supervisor::{BoxError, ChildSpec, Supervisor};
/// use ractor::{Actor, ActorProcessingErr, ActorRef};
///
/// struct Printer;
/// impl Actor for Printer {
///     type Msg = String;
///     type State = ();
///     type Arguments = ();
///     async fn pre_start(&self, _: ActorRef<String>, (): ()) -> Result<(), ActorProcessingErr> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main] async fn main() -> Result<(), BoxError> {
/// let printer = ChildSpec::new("printer", |parent| Printer::spawn_linked(None, Printer, (), parent));
/// let tree = Supervisor::builder("top").child(printer).start().await?;
/// let printer = tree.child_handle::<String>("printer")?;
/// printer.send("now".to_owned())?;
/// tree.child("printer")?.actor().kill();
/// printer.send_within("after its restart".to_owned(), Duration::from_secs(1)).await?;
/// tree.stop().await?;
/// # Ok(()) }
/// ```
pub struct ChildHandle<M> {
    place: Arc<ChildPlace>,
    message: PhantomData<fn(M)>,
}

/// Where the child is found.
#[derive(Debug)]
pub(crate) enum ChildPlace {
    Here(Arc<ChildSlot>),
    /// Below a child that is a supervisor, which may be restarted itself.
    Below {
        supervisor: Box<ChildPlace>,
        id: Arc<str>,
        found: ArcSwapOption<(ActorId, Arc<ChildSlot>)>,
    },
}

/// Why there is no incarnation.
enum Absent {
    /// There will be one: this slot says when.
    Restarting(Arc<ChildSlot>),
    NoProcess,
}

/// Why a child handle has no incarnation to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The child, or a supervisor above it, is being restarted.
    #[error("the child is restarting")]
    Restarting,
    /// The child is gone, or does not run until it is restarted by hand.
    #[error("there is no such process")]
    NoProcess,
    /// The child takes messages of another type, or has no value of this one.
    #[error("the child takes messages of another type")]
    WrongType,
}

/// A message that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct HandleSendError<M> {
    /// Why.
    pub error: HandleError,
    /// The message.
    pub message: M,
}

impl ChildPlace {
    fn resolve(&self) -> Result<Guard<Arc<Presence>>, Absent> {
        match self {
            Self::Here(slot) => presence(slot),
            Self::Below { supervisor, id, found } => {
                let guard = supervisor.resolve()?;
                let Presence::Running(parent, nested) = &**guard else { return Err(Absent::NoProcess) };
                let incarnation = parent.actor().get_id();
                let slot = match &*found.load() {
                    Some(found) if found.0 == incarnation => found.1.clone(),
                    _ => {
                        let nested = nested.as_ref().ok_or(Absent::NoProcess)?;
                        let slot = nested.slot(id).ok_or(Absent::NoProcess)?;
                        found.store(Some(Arc::new((incarnation, slot.clone()))));
                        slot
                    }
                };
                match presence(&slot) {
                    // The supervisor has ended and its parent has yet to notice: the parent decides what follows.
                    Err(Absent::NoProcess) if **slot.load() == Presence::SupervisorEnded => {
                        Err(supervisor.slot_of_supervisor().map_or(Absent::NoProcess, Absent::Restarting))
                    }
                    other => other,
                }
            }
        }
    }

    /// The slot in which this place is published now.
    fn slot_of_supervisor(&self) -> Option<Arc<ChildSlot>> {
        match self {
            Self::Here(slot) => Some(slot.clone()),
            Self::Below { found, .. } => found.load().as_ref().map(|found| found.1.clone()),
        }
    }

    /// Calls `f` with the incarnation that runs.
    pub(crate) fn with_running<T>(&self, f: impl FnOnce(&ChildRef) -> T) -> Result<T, HandleError> {
        let guard = self.resolve()?;
        let Presence::Running(child, _) = &**guard else { return Err(HandleError::NoProcess) };
        Ok(f(child))
    }

    /// Waits for anything but a restart or an incarnation that has refused already; `false` when the time is over.
    pub(crate) async fn wait(&self, has_refused: impl Fn(&ChildRef) -> bool, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        let slot = match self.resolve() {
            Err(Absent::Restarting(slot)) => slot,
            Err(Absent::NoProcess) => return true,
            Ok(_) => match self.slot_of_supervisor() {
                Some(slot) => slot,
                None => return true,
            },
        };
        let mut changed = pin!(slot.changed());
        // What changes after the next look wakes this.
        changed.as_mut().enable();
        let look_again = match self.resolve() {
            // The slot of the child, or of the same supervisor above it.
            Err(Absent::Restarting(now)) if Arc::ptr_eq(&now, &slot) => deadline,
            Err(Absent::Restarting(_)) => Instant::now() + LOOK_AGAIN,
            Err(Absent::NoProcess) => return true,
            Ok(guard) => match &**guard {
                Presence::Running(child, _) if has_refused(child) => Instant::now() + LOOK_AGAIN,
                _ => return true,
            },
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(deadline.min(look_again)) => {}
        }
        true
    }
}

fn presence(slot: &Arc<ChildSlot>) -> Result<Guard<Arc<Presence>>, Absent> {
    let guard = slot.load();
    match &**guard {
        Presence::Running(..) => Ok(guard),
        Presence::Restarting => Err(Absent::Restarting(slot.clone())),
        Presence::Stopped | Presence::Removed | Presence::SupervisorEnded => Err(Absent::NoProcess),
    }
}

impl From<Absent> for HandleError {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Restarting(_) => Self::Restarting,
            Absent::NoProcess => Self::NoProcess,
        }
    }
}

/// The longest time between two looks at an incarnation that refused a message and has not been replaced yet. Its
/// supervisor publishes a change; one that is killed at that moment may not.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl<M: Message> ChildHandle<M> {
    pub(crate) fn here(slot: Arc<ChildSlot>) -> Self {
        Self { place: Arc::new(ChildPlace::Here(slot)), message: PhantomData }
    }

    /// Below the child of this slot, by ids.
    pub(crate) fn below<'a>(slot: Arc<ChildSlot>, ids: impl Iterator<Item = &'a str>) -> Self {
        let place = ids.fold(ChildPlace::Here(slot), |supervisor, id| ChildPlace::Below {
            supervisor: Box::new(supervisor),
            id: id.into(),
            found: ArcSwapOption::empty(),
        });
        Self { place: Arc::new(place), message: PhantomData }
    }

    /// The incarnation that runs now.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn get(&self) -> Result<ActorRef<M>, HandleError> {
        let guard = self.place.resolve()?;
        let Presence::Running(child, _) = &**guard else { return Err(HandleError::NoProcess) };
        child.actor_ref().ok_or(HandleError::WrongType)
    }

    /// The value of the incarnation that runs now, such as the client of a server.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn value<T: Any + Send + Sync>(&self) -> Result<Arc<T>, HandleError> {
        let guard = self.place.resolve()?;
        let Presence::Running(child, _) = &**guard else { return Err(HandleError::NoProcess) };
        child.value().ok_or(HandleError::WrongType)
    }

    /// Sends a message to the incarnation that runs now.
    ///
    /// # Errors
    /// [`HandleSendError`], with the message: it was not delivered.
    ///
    /// Cost: one atomic load more than a send by the actor's own reference.
    pub fn send(&self, message: M) -> Result<(), HandleSendError<M>> {
        self.send_to_running(message).map_err(|(error, _)| error)
    }

    /// Sends a message; an incarnation that has exited is returned with the error.
    fn send_to_running(&self, message: M) -> Result<(), (HandleSendError<M>, Option<ActorId>)> {
        let guard = match self.place.resolve() {
            Ok(guard) => guard,
            Err(absent) => return Err((HandleSendError { error: absent.into(), message }, None)),
        };
        let Presence::Running(child, _) = &**guard else {
            return Err((HandleSendError { error: HandleError::NoProcess, message }, None));
        };
        if child.actor().is_message_type_of::<M>() != Some(true) {
            return Err((HandleSendError { error: HandleError::WrongType, message }, None));
        }
        match child.actor().send_message(message) {
            Ok(()) => Ok(()),
            // It has exited, and its supervisor has yet to notice.
            Err(MessagingErr::SendErr(message)) => {
                Err((HandleSendError { error: HandleError::Restarting, message }, Some(child.actor().get_id())))
            }
            Err(_) => unreachable!("the message's type was checked, and the channel has no other error"),
        }
    }

    /// Waits until an incarnation runs, for so long at most.
    ///
    /// # Errors
    /// [`HandleError::Restarting`] when the time is over, else as [`get`](Self::get).
    ///
    /// Cancel safe.
    pub async fn running(&self, limit: Duration) -> Result<ActorRef<M>, HandleError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.get() {
                Err(HandleError::Restarting) if self.place.wait(|_| false, deadline).await => {}
                other => return other,
            }
        }
    }

    /// Sends a message to the incarnation that runs, or to the next one when there is none within this time.
    ///
    /// # Errors
    /// [`HandleSendError`], with the message: it was not delivered.
    ///
    /// Cancel safe: a caller that gives up has sent nothing.
    pub async fn send_within(&self, message: M, limit: Duration) -> Result<(), HandleSendError<M>> {
        let (deadline, mut message) = (Instant::now() + limit, message);
        loop {
            let (undelivered, exited) = match self.send_to_running(message) {
                Err((error, exited)) if error.error == HandleError::Restarting => (error.message, exited),
                other => return other.map_err(|(error, _)| error),
            };
            message = undelivered;
            let has_exited = |child: &ChildRef| Some(child.actor().get_id()) == exited;
            if !self.place.wait(has_exited, deadline).await {
                return Err(HandleSendError { error: HandleError::Restarting, message });
            }
        }
    }

    pub(crate) fn place(&self) -> &Arc<ChildPlace> {
        &self.place
    }
}

impl<M> Clone for ChildHandle<M> {
    fn clone(&self) -> Self {
        Self { place: self.place.clone(), message: PhantomData }
    }
}

impl<M> fmt::Debug for ChildHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildHandle").field(&self.place).finish()
    }
}
