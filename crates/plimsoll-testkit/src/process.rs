//! Another process, seen from outside (Linux's /proc), and waiting for what only a real process can show.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

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

/// Asks again every 10 ms until there is an answer.
///
/// For state that only a socket or a process can show; inside one runtime use a [`probe`](crate::probe).
///
/// # Panics
/// When there is none after `patience`, with `what` was waited for.
///
/// Cancel safe if `ask` is.
pub async fn until<T>(what: &str, patience: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {patience:?} in vain: {what}");
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
