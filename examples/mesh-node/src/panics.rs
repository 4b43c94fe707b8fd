//! Panics in the log: one line each.
//!
//! A worker's panic is the outcome of one call. The standard hook prints two lines and, with `RUST_BACKTRACE` set, some hundred
//! more: resolving them takes the first panic a quarter of a second, while all others wait for it.

use std::collections::VecDeque;
use std::panic::{self, PanicHookInfo};
use std::time::Instant;

use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;
use tracing::error;

/// Places of panics whose lines are counted.
const MAX_PLACES: usize = 64;

/// When a line was last logged for a place. The oldest is forgotten for a new one.
static THROTTLES: Mutex<VecDeque<(String, LogThrottle)>> = Mutex::new(VecDeque::new());

/// Logs panics as one line each with their location: for each location the first one, then one in ten seconds with the number
/// between, since a client can cause them.
pub(crate) fn log() {
    panic::set_hook(Box::new(line));
}

fn line(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let Some(suppressed) = count(&place, Instant::now()) else { return };
    let message = panic.payload_as_str().unwrap_or("a panic whose payload is not text");
    let thread = std::thread::current();
    error!(target: "mesh_node", place, thread = thread.name(), suppressed, "panicked: {}", shortened(message));
}

/// Counts a panic at `place`. Returns how many before it were not logged if this one is to be.
fn count(place: &str, now: Instant) -> Option<u64> {
    let mut throttles = THROTTLES.lock();
    if let Some((_, throttle)) = throttles.iter_mut().find(|(known, _)| known == place) {
        return throttle.record(now);
    }
    if throttles.len() == MAX_PLACES {
        throttles.pop_front();
    }
    let mut throttle = LogThrottle::default();
    let first = throttle.record(now);
    throttles.push_back((place.to_owned(), throttle));
    first
}

/// The beginning of a message, which may be the body of a request, without control characters.
fn shortened(message: &str) -> String {
    const LONGEST: usize = 200;
    let line: String = message.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if message.chars().nth(LONGEST).is_some() { line + " ..." } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_of_one_place_are_logged_once_in_ten_seconds_with_their_number() {
        let now = Instant::now();
        assert_eq!(count("a.rs:1:1", now), Some(0));
        assert_eq!((1..=5).filter_map(|_| count("a.rs:1:1", now)).count(), 0);
        assert_eq!(count("b.rs:1:1", now), Some(0), "another place");
        assert_eq!(count("a.rs:1:1", now + LogThrottle::INTERVAL), Some(5));
        for nth in 0..MAX_PLACES {
            count(&format!("c.rs:{nth}:1"), now);
        }
        assert_eq!(THROTTLES.lock().len(), MAX_PLACES);
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(shortened("man overboard"), "man overboard");
        assert_eq!(shortened("two\nlines\x1b[31m"), "two lines [31m");
        let long = shortened(&"\u{e9}".repeat(1 << 20));
        assert!(long.ends_with(" ...") && long.chars().count() == 204);
    }
}
