//! A level that is told and heard, where only the latest counts.

use crate::sync::atomic::{AtomicU8, Ordering};

const TOLD: u8 = 1 << 7;

/// The latest of a few levels (pressure, as a rule), and whether its listener has heard it yet. However often it is told,
/// one announcement is outstanding at most.
///
/// ```
/// use plimsoll_sync::level::LevelCell;
///
/// let cell = LevelCell::new(0);
/// assert!(cell.tell(1), "announce it");
/// assert!(!cell.tell(2), "announced already");
/// assert_eq!(cell.hear(), Some(2));
/// assert_eq!(cell.hear(), None);
/// assert_eq!(cell.get(), 2);
/// ```
#[derive(Debug)]
pub struct LevelCell(AtomicU8);

impl LevelCell {
    /// A cell at `level`, heard. Levels go up to 127.
    pub fn new(level: u8) -> Self {
        Self(AtomicU8::new(level & !TOLD))
    }

    /// Sets the level; whether the listener must be told.
    pub fn tell(&self, level: u8) -> bool {
        self.0.swap(level | TOLD, Ordering::AcqRel) & TOLD == 0
    }

    /// The level, if it was told since it was last heard.
    pub fn hear(&self) -> Option<u8> {
        let seen = self.0.fetch_and(!TOLD, Ordering::AcqRel);
        (seen & TOLD != 0).then_some(seen & !TOLD)
    }

    /// The level, heard or not.
    pub fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire) & !TOLD
    }
}
