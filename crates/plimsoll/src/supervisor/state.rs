//! The decisions of a supervisor, apart from what executes them.
//!
//! A state is a plain state machine without actors, tasks or a clock. Events go in with the time at which they happened
//! ([`Event`]: a child started, failed to start or exited; a timer is due), operations of callers are methods of each
//! state. [`Command`]s come out: start this child, request its stop, kill it, reply to a caller. Time is a [`Duration`]
//! since the supervisor's start.
//!
//! [`StaticState`] decides for named children in a fixed order, [`DynamicState`] for many children of one kind. What they
//! share is the intensity window, the classification of exits and stops, events and commands.

mod command;
mod dynamic_children;
mod event;
mod intensity;
mod jitter;
mod outcome;
mod static_children;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use rustc_hash::FxBuildHasher;

pub(crate) use command::{AfterExit, Command, Exit, Notice, Refusal, Reply, SpecCommand, StartFailure, StopProblem};
pub(crate) use dynamic_children::{DynamicPhase, DynamicState, Template};
pub(crate) use event::{Event, Remains};
pub(crate) use static_children::{ChildPhase, Flags, Key, Run, StaticState};

/// Names a caller that waits for the result of an operation.
pub(crate) type RequestId = u64;

/// A map by numbers that are counted up here or by ractor: they cannot be chosen so that they collide.
pub(crate) type Numbered<K, V> = HashMap<K, V, FxBuildHasher>;

/// A supervisor's decisions. See the [module](self).
pub(crate) trait SupervisorState: Sized + Send + 'static {
    /// Names a child spec, or a place of a dynamic supervisor.
    type Spec: Copy + Debug + Eq + Hash + Send + 'static;
    /// Names one incarnation of a child, from the moment its start begins until its task has ended.
    type Run: Copy + Debug + Eq + Hash + Send + Sync + 'static;

    /// Applies an event.
    fn apply(&mut self, event: Event<Self::Run>, now: Duration);
    /// The next thing to do.
    fn next_command(&mut self) -> Option<Command<Self>>;
    /// When [`Event::Tick`] has something to do.
    fn deadline(&self) -> Option<Duration>;
    /// Whether the supervisor stops, or has stopped.
    fn is_shutting_down(&self) -> bool;
    /// Ends every decision: commands are not executed any more.
    fn abandon(&mut self);
}
