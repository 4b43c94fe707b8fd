//! A writer that never waits for its reader.
//!
//! A pipe or terminal that nobody reads fills up, and the next write to it waits for ever: a program that logs into it stands
//! still with all its threads. Here lines go to a queue of bounded size, from which one thread writes. A line that does not fit
//! is dropped and counted, and the count is written after the last line that did.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Makes the line that stands for so many dropped ones.
type Notice = fn(u64) -> String;

/// A queue of lines in front of a sink. Cloning shares it.
///
/// ```
/// use std::io::Write;
/// use plimsoll_console::LossyWriter;
///
/// let mut log = LossyWriter::new("log", std::io::stderr(), 64 << 10, |lost| format!("{lost} lines dropped\n"))?;
/// writeln!(log, "this returns at once, whether anybody reads stderr or not")?;
/// assert!(log.flush_within(std::time::Duration::from_secs(1)));
/// assert_eq!(log.dropped(), 0);
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LossyWriter(Arc<Handle>);

/// The thread ends when the last handle is gone.
#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something waits, or the last handle is gone.
    filled: Condvar,
    /// Everything was written.
    emptied: Condvar,
    capacity: usize,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines, at most `capacity` bytes.
    waiting: Vec<u8>,
    /// Lines dropped since the last notice.
    unreported: u64,
    writing: bool,
    closed: bool,
}

impl LossyWriter {
    /// Starts the thread `name`, which writes to `sink`. At most `capacity` bytes wait, and as many again are being written.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn new(name: &str, sink: impl Write + Send + 'static, capacity: usize, notice: Notice) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            capacity,
            dropped: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name(name.into()).spawn(move || of_thread.write_all_lines(sink, notice))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Lines dropped so far, because the queue was full or the sink failed.
    pub fn dropped(&self) -> u64 {
        self.0.0.dropped.load(Ordering::Relaxed)
    }

    /// Blocks until everything was written, at most for `patience`; whether it was.
    pub fn flush_within(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut queue = self.0.0.queue.lock();
        while queue.writing || !queue.waiting.is_empty() || queue.unreported > 0 {
            if self.0.0.emptied.wait_until(&mut queue, end).timed_out() {
                return false;
            }
        }
        true
    }
}

impl Write for LossyWriter {
    /// Queues `line` or drops it, whole in either case.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shared = &self.0.0;
        let mut queue = shared.queue.lock();
        if queue.waiting.len() + line.len() > shared.capacity {
            queue.unreported += 1;
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            queue.waiting.extend_from_slice(line);
        }
        shared.filled.notify_one();
        Ok(line.len())
    }

    /// Does nothing: see [`flush_within`](Self::flush_within).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl Shared {
    fn write_all_lines(&self, mut sink: impl Write, notice: Notice) {
        let mut lines = Vec::new();
        loop {
            let mut queue = self.queue.lock();
            queue.writing = false;
            if queue.waiting.is_empty() && queue.unreported == 0 {
                self.emptied.notify_all();
                if queue.closed {
                    return;
                }
                self.filled.wait(&mut queue);
                continue;
            }
            std::mem::swap(&mut lines, &mut queue.waiting);
            let unreported = std::mem::take(&mut queue.unreported);
            queue.writing = true;
            drop(queue);
            let mut written = sink.write_all(&lines);
            if unreported > 0 {
                written = written.and_then(|()| sink.write_all(notice(unreported).as_bytes()));
            }
            if written.and_then(|()| sink.flush()).is_err() {
                let lost = lines.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
            }
            lines.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn notice(dropped: u64) -> String {
        format!("{dropped} dropped\n")
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time_and_reads_how_many() {
        let (reader, sink) = io::pipe().unwrap();
        let mut writer = LossyWriter::new("test", sink, 4096, notice).unwrap();
        let line = [b'x'; 99].iter().copied().chain([b'\n']).collect::<Vec<_>>();
        // Until the pipe is full and the thread waits in a write.
        let mut lines = 0;
        while writer.flush_within(Duration::from_millis(50)) {
            assert_eq!(writer.write(&line).unwrap(), 100);
            lines += 1;
            assert!(lines < 1 << 20, "the pipe never filled up");
        }
        let began = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(writer.write(&line).unwrap(), 100);
            lines += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(1), "a write waited: {:?}", began.elapsed());
        let dropped = writer.dropped();
        drop(writer);
        let read: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        let reported: u64 = read.iter().filter_map(|line| line.strip_suffix(" dropped")?.parse::<u64>().ok()).sum();
        let whole = read.iter().filter(|line| line.len() == 99).count() as u64;
        assert_eq!((reported, whole + reported), (dropped, lines));
    }

    #[test]
    fn what_was_queued_is_written_in_order_and_the_thread_ends_with_the_last_handle() {
        let (reader, sink) = io::pipe().unwrap();
        let mut writer = LossyWriter::new("test", sink, 4096, notice).unwrap();
        let mut other = writer.clone();
        writeln!(writer, "one").unwrap();
        writeln!(other, "two").unwrap();
        assert!(writer.flush_within(PATIENCE));
        drop((writer, other));
        // The pipe ends, because the thread has dropped the sink.
        let read: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        assert_eq!(read, ["one", "two"]);
    }

    /// A flush also waits for the notice, when every line was dropped and no other is queued.
    #[test]
    fn a_flush_waits_for_the_notice_of_dropped_lines() {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let mut writer = LossyWriter::new("test", sink.clone(), 4, notice).unwrap();
        // Often enough that a flush without that wait returns before the thread has written.
        for round in 1..=200 {
            writer.write_all(b"longer than the capacity\n").unwrap();
            assert!(writer.flush_within(PATIENCE));
            assert_eq!(*sink.0.lock(), "1 dropped\n".repeat(round).as_bytes());
        }
    }

    #[test]
    fn lines_that_a_sink_does_not_take_are_counted() {
        let (reader, sink) = io::pipe().unwrap();
        drop(reader);
        let mut writer = LossyWriter::new("test", sink, 4096, notice).unwrap();
        writer.write_all(b"lost\n").unwrap();
        assert!(writer.flush_within(PATIENCE));
        assert_eq!(writer.dropped(), 1);
    }
}
