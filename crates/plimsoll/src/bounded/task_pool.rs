//! Background work with a cap.
//!
//! The permit comes first: a job that gets none within the waiting time is dropped where it is, together with whatever
//! it holds, and nothing was spawned for it. Every job has a time limit and belongs to its pool, which ends it when it
//! closes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};
use tokio_util::sync::CancellationToken;

use super::{Cap, Counters, events};
use crate::inspect::{Details, Inspect};

/// The limits of a [`TaskPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskPoolCaps {
    /// Jobs at once; default 10.
    pub jobs: Cap,
    /// How long [`TaskPool::spawn`] waits for a permit; default 100 ms.
    pub wait: Duration,
    /// How long a job may take; default 5 s.
    pub limit: Duration,
}

impl Default for TaskPoolCaps {
    fn default() -> Self {
        Self { jobs: Cap::of::<10>(), wait: Duration::from_millis(100), limit: Duration::from_secs(5) }
    }
}

events! {
    /// What a [`TaskPool`] counts. `offered = started + refused` and `started = done + failed + panicked + overdue +
    /// stopped + in use`, at all times.
    pub enum JobEvent {
        /// A job was brought to the pool.
        Offered = "offered",
        /// It got its permit and was spawned.
        Started = "started",
        /// It ended well.
        Done = "done",
        /// It ended with an error.
        Failed = "failed",
        /// It panicked.
        Panicked = "panicked",
        /// It was ended at its time limit.
        Overdue = "overdue",
        /// It was ended by the pool's closing, or with the runtime.
        Stopped = "stopped",
        /// It was skipped: no permit within the waiting time.
        RefusedFull = "refused_full",
        /// It was skipped: the pool is closed.
        RefusedClosed = "refused_closed",
        /// Whoever brought it left while it waited for its permit.
        RefusedAbandoned = "refused_abandoned",
    }
}

/// Why a job was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Skipped {
    /// All permits were taken for as long as it waited.
    #[error("all {cap} jobs of the pool are running")]
    Full {
        /// The cap.
        cap: usize,
    },
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
}

/// A pool for work that nobody waits for. Cloning shares it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use plimsoll::bounded::{JobEvent, TaskPool, TaskPoolCaps};
///
/// let pool = TaskPool::new("store", TaskPoolCaps::default());
/// pool.spawn(|| async { std::io::Result::Ok(()) }).await.unwrap();
/// pool.idle().await;
/// assert_eq!(pool.counters().counted(JobEvent::Done), 1);
/// # }
/// ```
///
/// Under a supervisor it is a child like any other: `ChildSpec::task("store", move |stop| pool.clone().run(stop))` ends
/// the jobs with the tree.
///
/// It keeps no table and no payload of its own: there are no bytes to cap and nothing to compact, and each job's owner is
/// its time limit.
#[derive(Debug, Clone)]
pub struct TaskPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    caps: TaskPoolCaps,
    permits: Arc<Semaphore>,
    running: watch::Sender<Running>,
    stop: CancellationToken,
    counters: Counters<JobEvent>,
}

impl TaskPool {
    /// A pool called `name`.
    pub fn new(name: &str, caps: TaskPoolCaps) -> Self {
        let shared = Shared {
            caps,
            permits: Arc::new(Semaphore::new(caps.jobs.get())),
            running: watch::Sender::default(),
            stop: CancellationToken::new(),
            counters: Counters::new(name, caps.jobs),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits for a permit and spawns `job`, which begins when it is polled and not before it has the permit.
    ///
    /// # Errors
    /// [`Skipped`] when there was no permit within the waiting time, or the pool is closed; `job` is dropped.
    ///
    /// Cancel safe: a job whose owner leaves before it got a permit is dropped and counted.
    pub async fn spawn<J, F, E>(&self, job: J) -> Result<(), Skipped>
    where
        J: FnOnce() -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let waiting = Waiting::new(&self.shared.counters);
        let permit =
            match tokio::time::timeout(self.shared.caps.wait, self.shared.permits.clone().acquire_owned()).await {
                Ok(Ok(permit)) => Ok(permit),
                Ok(Err(_)) => Err(Skipped::Closed),
                Err(_) => Err(self.full()),
            };
        waiting.settle(permit).map(|permit| self.start(permit, job))
    }

    /// Spawns `job` if there is a permit right now.
    ///
    /// # Errors
    /// [`Skipped`] when there is none, or the pool is closed; `job` is dropped.
    pub fn try_spawn<J, F, E>(&self, job: J) -> Result<(), Skipped>
    where
        J: FnOnce() -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let waiting = Waiting::new(&self.shared.counters);
        let permit = self.shared.permits.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => self.full(),
            TryAcquireError::Closed => Skipped::Closed,
        });
        waiting.settle(permit).map(|permit| self.start(permit, job))
    }

    /// Waits for a moment at which no job runs. Others get their permits meanwhile, as it takes none: where jobs never stop
    /// coming it may wait for ever.
    ///
    /// Cancel safe.
    pub async fn idle(&self) {
        let mut running = self.shared.running.subscribe();
        let lulls = running.borrow().lulls;
        // The sender lives as long as the pool does.
        let _ = running.wait_for(|running| running.jobs == 0 || running.lulls != lulls).await;
    }

    /// Takes no more jobs, ends those that run, and waits until they are gone.
    ///
    /// Cancel safe: the jobs end all the same.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        // Held until the pool is closed: nobody can be about to start a job. There are none any more when another has
        // closed it.
        let all = u32::try_from(self.shared.caps.jobs.get()).unwrap_or(u32::MAX);
        let _all = self.shared.permits.acquire_many(all).await;
        self.shared.permits.close();
    }

    /// Serves until `stop`, then [closes](Self::close): a task child of a supervisor.
    ///
    /// Not cancel safe: dropped early, the pool stays open.
    pub async fn run(self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        stop.cancelled().await;
        self.close().await;
        Ok(())
    }

    /// The counters; entries are running jobs.
    pub fn counters(&self) -> &Counters<JobEvent> {
        &self.shared.counters
    }

    fn full(&self) -> Skipped {
        Skipped::Full { cap: self.shared.caps.jobs.get() }
    }

    fn start<J, F, E>(&self, permit: OwnedSemaphorePermit, job: J)
    where
        J: FnOnce() -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let running = Job::new(self.clone(), permit);
        let (stop, limit) = (self.shared.stop.clone(), self.shared.caps.limit);
        let job = AssertUnwindSafe(job()).catch_unwind();
        tokio::spawn(async move {
            // The job's future ends with this statement, so that the permit comes back after whatever the job held.
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => JobEvent::Stopped,
                ended = tokio::time::timeout(limit, job) => match ended {
                    Ok(Ok(Ok(()))) => JobEvent::Done,
                    Ok(Ok(Err(_))) => JobEvent::Failed,
                    Ok(Err(_)) => JobEvent::Panicked,
                    Err(_) => JobEvent::Overdue,
                },
            };
            running.end(outcome);
        });
    }
}

impl Inspect for TaskPool {
    fn inspect(&self) -> Details {
        self.counters().inspect()
    }
}

/// A job that has been offered and is neither started nor refused.
struct Waiting<'a> {
    counters: &'a Counters<JobEvent>,
    settled: bool,
}

impl<'a> Waiting<'a> {
    fn new(counters: &'a Counters<JobEvent>) -> Self {
        counters.count(JobEvent::Offered);
        Self { counters, settled: false }
    }

    fn settle<P>(mut self, permit: Result<P, Skipped>) -> Result<P, Skipped> {
        self.settled = true;
        self.counters.count(match permit {
            Ok(_) => JobEvent::Started,
            Err(Skipped::Full { .. }) => JobEvent::RefusedFull,
            Err(Skipped::Closed) => JobEvent::RefusedClosed,
        });
        permit
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.counters.count(JobEvent::RefusedAbandoned);
        }
    }
}

/// The jobs that run, for those who wait until there is none.
#[derive(Debug, Default)]
struct Running {
    jobs: usize,
    /// How often the last one ended.
    lulls: u64,
}

/// A job that holds a permit. However its task ends, it is counted once, and then the permit goes back.
struct Job {
    pool: TaskPool,
    outcome: JobEvent,
    permit: Option<OwnedSemaphorePermit>,
}

impl Job {
    fn new(pool: TaskPool, permit: OwnedSemaphorePermit) -> Self {
        pool.counters().entries().add(1);
        pool.shared.running.send_modify(|running| running.jobs += 1);
        Self { pool, outcome: JobEvent::Stopped, permit: Some(permit) }
    }

    fn end(mut self, outcome: JobEvent) {
        self.outcome = outcome;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.pool.counters().count(self.outcome);
        self.pool.counters().entries().sub(1);
        drop(self.permit.take());
        self.pool.shared.running.send_modify(|running| {
            running.jobs -= 1;
            running.lulls += u64::from(running.jobs == 0);
        });
    }
}
