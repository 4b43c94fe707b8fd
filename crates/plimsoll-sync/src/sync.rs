//! `std` in every ordinary build, loom's model-checked replacements under `cfg(plimsoll_loom)`.

#[cfg(plimsoll_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(plimsoll_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

/// Locks, also after another holder panicked: every critical section here leaves its data valid when it unwinds.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
