//! What each command does.

pub(crate) mod call;
pub(crate) mod identity;
pub(crate) mod read;
pub(crate) mod serve;
