//! Panics in the log: one line each.
//!
//! A worker's panic is the outcome of one call. The standard hook prints two lines and, with `RUST_BACKTRACE` set, some hundred
//! more: resolving them takes the first panic a quarter of a second, while all others wait for it.

use std::panic::{self, PanicHookInfo};

use tracing::error;

/// Logs each panic as one line with its location, and records locations in exit reasons.
pub(crate) fn log() {
    panic::set_hook(Box::new(line));
    plimsoll::panics::record_locations();
}

fn line(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("a panic whose payload is not text");
    let thread = std::thread::current();
    error!(target: "mesh_node", place, thread = thread.name(), "panicked: {}", shortened(message));
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
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(shortened("man overboard"), "man overboard");
        assert_eq!(shortened("two\nlines\x1b[31m"), "two lines [31m");
        let long = shortened(&"\u{e9}".repeat(1 << 20));
        assert!(long.ends_with(" ...") && long.chars().count() == 204);
    }
}
