//! Other processes: run within a time limit, seen from outside (Linux's /proc), and waiting for what only a real process can
//! show.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub u32);

impl Process {
    /// Open descriptors.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn descriptors(self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.0))?.count())
    }

    /// Resident memory in bytes (`VmRSS`).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident(self) -> io::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most resident memory in bytes since its start or the last [`reset_peak`](Self::reset_peak) (`VmHWM`).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn peak(self) -> io::Result<u64> {
        self.status("VmHWM:")
    }

    /// Lets [`peak`](Self::peak) begin anew from what is resident now.
    ///
    /// # Errors
    /// When the process is gone or belongs to somebody else.
    pub fn reset_peak(self) -> io::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5")
    }

    fn status(self, field: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let found = kibibytes(&status, field).map(|kib| kib * 1024);
        found.ok_or_else(|| io::Error::other(format!("no {field} in its status: a zombie")))
    }

    /// Whether it runs: it exists and is no zombie.
    pub fn is_alive(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // The state follows the command in brackets, which may hold anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}

fn kibibytes(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// A time limit for a process: kills it with SIGKILL after that time, unless this is dropped before.
///
/// A read of its output then ends, and so does the test.
#[derive(Debug)]
#[must_use]
pub struct TimeLimit {
    killed: Arc<AtomicBool>,
    _dropped: mpsc::Sender<()>,
}

impl TimeLimit {
    /// Limits the process `id` to `limit` from now on.
    pub fn new(id: u32, limit: Duration) -> Self {
        let (dropped, end) = mpsc::channel::<()>();
        let killed = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&killed);
        std::thread::spawn(move || {
            if end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                of_thread.store(true, Ordering::Relaxed);
                // It may have exited a moment ago.
                let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
            }
        });
        Self { killed, _dropped: dropped }
    }

    /// Whether the process was killed.
    pub fn exceeded(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

/// Runs a command to its end. Its streams are as the command says: pipes are read.
///
/// # Panics
/// When it cannot be started, or does not end within `limit`: then it is killed.
pub fn run_within(command: &mut Command, limit: Duration) -> Output {
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let time_limit = TimeLimit::new(child.id(), limit);
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(!time_limit.exceeded(), "{command:?} did not end within {limit:?}: {output:?}");
    output
}

/// A pipe that is full. A write to it blocks for as long as the reader is held and not read.
///
/// # Errors
/// As the system says.
pub fn stalled_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, mut writer) = io::pipe()?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok((reader, writer))
}

/// Calls `ask` every 10 ms until it returns a value, and returns that.
///
/// For state that only a socket or a process can show; inside one runtime use a [`probe`](crate::probe).
///
/// # Panics
/// When it has returned none after `limit`, with `what` was waited for.
///
/// Cancel safe if `ask` is.
pub async fn until<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_has_descriptors_and_memory() {
        let this = Process(std::process::id());
        assert!(this.is_alive());
        let before = this.descriptors().unwrap();
        let file = fs::File::open("/proc/self/stat").unwrap();
        assert_eq!(this.descriptors().unwrap(), before + 1);
        drop(file);
        assert!(this.resident().unwrap() > 100 * 1024);
        this.reset_peak().unwrap();
        let before = this.peak().unwrap();
        let held = vec![1_u8; 16 << 20];
        assert!(std::hint::black_box(&held).contains(&1));
        assert!(this.peak().unwrap() >= before + (15 << 20));
    }

    #[test]
    fn a_process_within_its_limit_is_left_alone_and_one_beyond_it_is_killed() {
        let output = run_within(Command::new("echo").arg("done").stdout(std::process::Stdio::piped()), LIMIT);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"done\n"[..]));
        let began = Instant::now();
        let slow = std::panic::catch_unwind(|| run_within(Command::new("sleep").arg("60"), Duration::from_millis(50)));
        assert!(slow.is_err() && began.elapsed() < LIMIT, "{:?}", began.elapsed());
        let mut child = Command::new("sleep").arg("0.2").spawn().unwrap();
        drop(TimeLimit::new(child.id(), Duration::from_millis(50)));
        assert!(child.wait().unwrap().success(), "the limit was dropped before");
    }

    #[test]
    fn a_write_to_a_stalled_pipe_blocks() {
        let (reader, writer) = stalled_pipe().unwrap();
        let mut command = Command::new("echo");
        command.arg("blocked").stdout(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        let limit = TimeLimit::new(child.id(), Duration::from_millis(200));
        child.wait().unwrap();
        assert!(limit.exceeded(), "it wrote to a full pipe");
        drop(reader);
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process(child.id());
        let end = Instant::now() + Duration::from_secs(10);
        while process.is_alive() {
            assert!(Instant::now() < end, "`true` still runs");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(process.descriptors().is_err());
    }
}
