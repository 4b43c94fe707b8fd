//! Until when the keeper sleeps.

use std::time::Duration;

/// What the keeper does next.
pub(crate) enum Rest {
    Until(Option<Duration>),
    Over,
}

/// What the keeper was told last.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Sleep {
    until: Option<Duration>,
}

impl Sleep {
    /// What the keeper does next, with the next timer due at `deadline`.
    pub(in crate::supervisor) fn rest(&mut self, deadline: Option<Duration>, over: bool) -> Rest {
        self.until = deadline;
        if over { Rest::Over } else { Rest::Until(deadline) }
    }

    /// Whether the keeper sleeps longer than it may.
    pub(in crate::supervisor) fn is_too_long(&self, deadline: Option<Duration>, over: bool) -> bool {
        let earlier = match (deadline, self.until) {
            (Some(deadline), Some(until)) => deadline < until,
            (deadline, _) => deadline.is_some(),
        };
        earlier || over
    }
}
