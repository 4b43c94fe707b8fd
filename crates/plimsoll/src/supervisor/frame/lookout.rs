//! Sees to it that the anchor gets its turns.
//!
//! tokio runs a task that was just woken next on the thread that woke it, and no other thread may take it from there. A
//! child wakes the anchor in its first poll, by saying that it has started. If it goes on to block its thread in that same
//! poll, the anchor waits behind it, and nobody's end is heard of. So the anchor is asked for a sign of life a while after
//! something was started; without one another takes its place, and the children are linked to that.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Crew, actors};

/// The least time that an anchor is given for its turn.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// How far a check of the anchor is.
pub(super) enum Lookout {
    Idle,
    /// Something was started; it is asked then.
    Due(Instant),
    /// It was asked, and is stuck when it has not answered by then.
    Asked(oneshot::Receiver<()>, Instant),
}

impl Lookout {
    /// When to look again.
    pub(super) fn at(&self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Due(at) | Self::Asked(_, at) => Some(*at),
        }
    }

    /// Takes the check on; whether the anchor is stuck.
    pub(super) fn look<C: Crew>(&mut self, crew: &C, now: Instant) -> bool {
        let patience = crew.frame().kill_timeout.max(PATIENCE);
        match self {
            Self::Idle => {
                if crew.frame().take_unchecked() {
                    *self = Self::Due(now + patience);
                }
            }
            Self::Due(at) if *at <= now => {
                crew.frame().take_unchecked();
                *self = Self::Asked(actors::turn::<C>(crew.frame().anchor()), now + patience);
            }
            Self::Asked(answer, at) if *at <= now => {
                let stuck = answer.try_recv() == Err(oneshot::error::TryRecvError::Empty);
                // The next anchor is looked after as well.
                *self = if stuck { Self::Due(now + patience) } else { Self::Idle };
                return stuck || self.look(crew, now);
            }
            Self::Due(_) | Self::Asked(..) => {}
        }
        false
    }
}
