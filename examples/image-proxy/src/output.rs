//! stdout and stderr of a proxy whose reader may stall: nothing that is written waits for it.

use std::fmt::Display;
use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;
use std::time::Duration;

use plimsoll_console::LossyWriter;

/// Bytes that wait for the reader of one stream; lines beyond it are dropped.
const CAPACITY: usize = 64 << 10;

/// How long the end of the program waits for its last lines to be read, for each stream.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

struct Output {
    out: LossyWriter,
    err: LossyWriter,
}

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Starts the writers of both streams, and sends the messages of panics to stderr through its writer: the standard hook waits
/// for the reader, and so would every worker that panics.
///
/// # Errors
/// When the system starts no thread.
pub(crate) fn start() -> io::Result<()> {
    let out = LossyWriter::new("stdout", io::stdout(), CAPACITY, |_| String::new())?;
    let err =
        LossyWriter::new("stderr", io::stderr(), CAPACITY, |lines| format!("image-proxy: {lines} lines dropped\n"))?;
    if OUTPUT.set(Output { out, err }).is_ok() {
        panic::set_hook(Box::new(|panic| warn(format_args!("{panic}"))));
    }
    Ok(())
}

/// Writes an event to stdout, as one line of JSON.
pub(crate) fn event(event: &serde_json::Value) {
    if let Some(output) = OUTPUT.get() {
        let _ = writeln!(output.out.clone(), "{event}");
    }
}

/// Writes a message to stderr.
pub(crate) fn warn(message: impl Display) {
    let line = format!("image-proxy: {message}\n");
    let _ = match OUTPUT.get() {
        Some(output) => output.err.clone().write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// Waits for the readers of the last lines, within a bound.
pub(crate) fn flush() {
    if let Some(output) = OUTPUT.get() {
        output.out.flush_within(FLUSH_WITHIN);
        output.err.flush_within(FLUSH_WITHIN);
    }
}
