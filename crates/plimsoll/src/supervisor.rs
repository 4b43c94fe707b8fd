//! Supervision.

mod child;

pub use child::Child;
