//! What each command does.

pub(crate) mod call;
mod happy_eyeballs;
pub(crate) mod identity;
pub(crate) mod read;
pub(crate) mod serve;
