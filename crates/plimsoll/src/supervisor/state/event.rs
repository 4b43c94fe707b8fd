//! What happens to a supervisor.

use std::time::Duration;

use super::StartFailure;
use crate::exit::ExitReason;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event<R> {
    /// The start succeeded. `nested`: the child is a supervisor of this library, whose own report says when it has ended
    /// after a kill.
    Started { run: R, nested: bool },
    /// The start returned that there is nothing to run.
    Ignored { run: R },
    /// The start failed, or was cancelled as commanded. Nothing of it is left.
    StartFailed { run: R, failure: StartFailure },
    /// The start takes long: other operations are served meanwhile.
    StartIsSlow { run: R },
    /// The child exited. It had run for `uptime`; the supervisor has `others` besides.
    Exited { run: R, reason: ExitReason, remains: Remains, uptime: Duration, others: usize },
    /// The task of a child whose exit is known already has ended.
    Ended { run: R },
    /// The children that run, as asked for by [`Command::ListRunning`](super::Command::ListRunning), each with whether it
    /// is a nested supervisor.
    Running(Vec<(R, bool)>),
    /// The supervisor is to stop.
    Stop,
    /// The supervisor was killed: its children are to be killed.
    Kill,
    /// Timers may be due.
    Tick,
}

/// What is left of a child that exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Nothing: its task has ended.
    Nothing,
    /// Its task, which should have ended long ago.
    Task,
    /// Children of its own that nothing could end, which it has reported.
    Subtree,
}
