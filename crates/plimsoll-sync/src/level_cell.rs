//! A level of which only the latest value counts.

use crate::sync::atomic::{AtomicU8, Ordering};

const CHANGED: u8 = 1 << 7;

/// The latest of a few levels, for instance of pressure, and whether its reader has taken it yet. However often it is set,
/// at most one notification of the reader is outstanding.
///
/// ```
/// use plimsoll_sync::level_cell::LevelCell;
///
/// let cell = LevelCell::new(0);
/// assert!(cell.set(1), "notify the reader");
/// assert!(!cell.set(2), "the reader is notified already");
/// assert_eq!(cell.take_change(), Some(2));
/// assert_eq!(cell.take_change(), None);
/// assert_eq!(cell.get(), 2);
/// ```
#[derive(Debug)]
pub struct LevelCell(AtomicU8);

impl LevelCell {
    /// A cell at `level`, without a change to take. Levels go up to 127.
    pub fn new(level: u8) -> Self {
        Self(AtomicU8::new(level & !CHANGED))
    }

    /// Sets the level. Returns whether the reader has to be notified.
    pub fn set(&self, level: u8) -> bool {
        self.0.swap(level | CHANGED, Ordering::AcqRel) & CHANGED == 0
    }

    /// The level, if it was set since the last call.
    pub fn take_change(&self) -> Option<u8> {
        let seen = self.0.fetch_and(!CHANGED, Ordering::AcqRel);
        (seen & CHANGED != 0).then_some(seen & !CHANGED)
    }

    /// The level, whether its change was taken or not.
    pub fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire) & !CHANGED
    }
}
