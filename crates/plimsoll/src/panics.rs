//! Where a panic happened, for programs that want to know.
//!
//! An exit reason carries a panic's message in any case. The place is known to the panic hook only, and a library has no
//! business installing one: a program that wants it calls [`record_locations`] once.

use std::any::Any;
use std::collections::VecDeque;
use std::error::Error;
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::exit::Failure;

/// Panics that are kept until their exit reason is made; beyond it the oldest is dropped.
const REMEMBERED: usize = 256;

static RECORDING: AtomicBool = AtomicBool::new(false);
static PLACES: Mutex<VecDeque<Place>> = Mutex::new(VecDeque::new());

struct Place {
    task: Option<tokio::task::Id>,
    message: Arc<str>,
    location: Arc<str>,
}

/// Lets exit reasons carry the place of a panic, as `file:line:column`.
///
/// Installs a panic hook that notes the place and then calls the hook that was there before, so that what the program
/// prints on a panic stays as it was. Calling it again does nothing. A hook installed later that does not call this one
/// ends the recording. Costs a lock and two small allocations a panic, and remembers the last 256.
///
/// ```
/// plimsoll::panics::record_locations();
/// ```
pub fn record_locations() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            note(panic);
            previous(panic);
        }));
        RECORDING.store(true, Ordering::Release);
    });
}

fn note(panic: &PanicHookInfo<'_>) {
    let Some(location) = panic.location() else { return };
    let place = Place {
        task: tokio::task::try_id(),
        message: message(panic.payload()).into(),
        location: location.to_string().into(),
    };
    let mut places = PLACES.lock();
    if places.len() == REMEMBERED {
        places.pop_front();
    }
    places.push_back(place);
}

/// A panic caught in the task that runs now.
pub(crate) fn failure_here(payload: &(dyn Any + Send)) -> Failure {
    located(message(payload), tokio::task::try_id())
}

/// An error that may stand for a panic caught in the task that runs now.
pub(crate) fn error_failure(error: &(dyn Error + 'static)) -> Failure {
    located(&text(error), tokio::task::try_id())
}

/// A failure with the place of the panic that had this message in this task, if one was recorded.
pub(crate) fn located(message: &str, task: Option<tokio::task::Id>) -> Failure {
    let failure = Failure::new(message);
    if !RECORDING.load(Ordering::Acquire) {
        return failure;
    }
    let mut places = PLACES.lock();
    let found = places.iter().rposition(|place| place.task == task && *place.message == *message);
    match found.and_then(|index| places.remove(index)) {
        Some(place) => failure.at(place.location),
        None => failure,
    }
}

/// Drops a value of a user's type. A panic of its `Drop` ends nothing else.
pub(crate) fn discard<T>(value: T) {
    drop_failure(value);
}

/// The same; returns the panic as a failure.
pub(crate) fn drop_failure<T>(value: T) -> Option<Failure> {
    let payload = panic::catch_unwind(panic::AssertUnwindSafe(move || drop(value))).err()?;
    let failure = failure_here(payload.as_ref());
    // A payload whose own drop panics is leaked.
    if let Err(worse) = panic::catch_unwind(panic::AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(worse);
    }
    Some(failure)
}

/// Runs what must not unwind into the caller; a panic is returned as a failure.
pub(crate) fn guarded<T>(act: impl FnOnce() -> T) -> Result<T, Failure> {
    panic::catch_unwind(panic::AssertUnwindSafe(act)).map_err(|payload| {
        let failure = failure_here(payload.as_ref());
        discard(payload);
        failure
    })
}

/// The message of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic whose payload is not text")
}

/// The text of an error, or a note that its `Display` panicked.
pub(crate) fn text(error: &(dyn Error + 'static)) -> String {
    let shown = panic::catch_unwind(panic::AssertUnwindSafe(|| error.to_string()));
    shown.unwrap_or_else(|_| "an error whose text could not be made".to_owned())
}
