//! The limits of a server, and what happens to the calls of a caller that leaves.

use std::time::Duration;

use plimsoll_sync::permits::Load;

use super::Protocol;

/// How a server was set up.
pub(crate) struct Limits<P: Protocol> {
    pub(crate) load: Load,
    pub(crate) queue: u32,
    pub(crate) deadline: Duration,
    pub(crate) weigh: Option<Weigh<P>>,
    pub(crate) on_caller_exit: OnCallerExit,
}

/// Returns the bytes of a request.
pub(crate) type Weigh<P> = Box<dyn Fn(&<P as Protocol>::Request) -> u64 + Send + Sync>;

/// What happens to a call that has begun when its caller leaves: when the caller's future is dropped or the actor that the
/// client is bound to exits. A call that has not begun is cancelled in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnCallerExit {
    /// It is cancelled: its worker stops where it awaits.
    #[default]
    Cancel,
    /// It runs on to its end or its deadline and keeps its permit until then. Its reply is dropped.
    Finish,
}
