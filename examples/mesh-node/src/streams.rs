//! stdout and stderr.
//!
//! A command that prints a result waits for its reader. A node does not wait for anybody: after [`detach`] both streams have a
//! bounded queue, and lines that do not fit are dropped and counted.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use plimsoll_console::LossyWriter;

/// Bytes that wait for the reader of one stream.
const CAPACITY: usize = 1 << 20;

/// How long the end of the program waits for its last lines to be read.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

struct Detached {
    out: LossyWriter,
    err: LossyWriter,
}

static DETACHED: OnceLock<Detached> = OnceLock::new();

/// From now on nothing that is written waits for its reader. Returns the writer of the log, which goes to stderr.
///
/// # Errors
/// When the system starts no thread.
pub(crate) fn detach(json_log: bool) -> io::Result<LossyWriter> {
    if let Some(detached) = DETACHED.get() {
        return Ok(detached.err.clone());
    }
    let notice = if json_log { dropped_as_json } else { dropped_as_text };
    let out = LossyWriter::new("stdout", io::stdout(), CAPACITY, |_| String::new())?;
    let err = LossyWriter::new("stderr", io::stderr(), CAPACITY, notice)?;
    let detached = DETACHED.get_or_init(|| Detached { out, err });
    Ok(detached.err.clone())
}

fn dropped_as_text(lines: u64) -> String {
    format!("{lines} lines dropped, because nobody read the log\n")
}

fn dropped_as_json(lines: u64) -> String {
    let now = jiff::Timestamp::now().to_string();
    let fields = serde_json::json!({ "message": "lines dropped, because nobody read the log", "dropped": lines });
    format!("{}\n", serde_json::json!({ "timestamp": now, "level": "WARN", "fields": fields, "target": "mesh_node" }))
}

/// Log lines and messages dropped so far.
pub(crate) fn dropped() -> u64 {
    DETACHED.get().map_or(0, |detached| detached.err.dropped())
}

/// Waits for the readers of detached streams, for half a second each at most. The program must not write afterwards.
pub(crate) fn flush() {
    if let Some(detached) = DETACHED.get() {
        detached.out.flush_within(FLUSH_WITHIN);
        detached.err.flush_within(FLUSH_WITHIN);
    }
}

/// Writes to stdout.
///
/// # Errors
/// As the system says; a detached stream has none.
pub(crate) fn write(data: &[u8]) -> io::Result<()> {
    match DETACHED.get() {
        Some(detached) => detached.out.clone().write_all(data),
        None => {
            let mut out = io::stdout().lock();
            out.write_all(data).and_then(|()| out.flush())
        }
    }
}

/// Writes a line to stderr. Unlike `eprintln!` it does not panic when nobody reads it or the disk of a log is full.
pub(crate) fn say(line: impl Display) {
    let line = format!("{line}\n");
    let _ = match DETACHED.get() {
        Some(detached) => detached.err.clone().write_all(line.as_bytes()),
        None => io::stderr().lock().write_all(line.as_bytes()),
    };
}
