//! Background work with a cap.
//!
//! The permit comes first: a job that gets none within the waiting time is dropped without a task having been spawned for
//! it. Every job has a time limit and belongs to its pool, which ends it when the pool closes.

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
    /// What a [`TaskPool`] counts. `offered = started + refused` and `started = done + failed + panicked +
    /// timed_out + stopped + in use`, at all times.
    pub enum JobEvent {
        /// A job was offered to the pool.
        Offered = "offered",
        /// It got its permit and was spawned.
        Started = "started",
        /// It returned `Ok`.
        Done = "done",
        /// It returned an error.
        Failed = "failed",
        /// It panicked.
        Panicked = "panicked",
        /// It was ended at its time limit.
        TimedOut = "timed_out",
        /// It was ended because the pool closed or its runtime shut down.
        Stopped = "stopped",
        /// It was refused: no permit within the waiting time.
        RefusedFull = "refused_full",
        /// It was refused: the pool is closed.
        RefusedClosed = "refused_closed",
        /// Its offer was dropped while it waited for its permit.
        RefusedAbandoned = "refused_abandoned",
    }
}

/// Why a job was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobRefused {
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

/// A pool for background work whose result no caller waits for. Cloning shares it.
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
/// It has no table and no payload of its own, so there are no bytes to cap and nothing to compact.
#[derive(Debug, Clone)]
pub struct TaskPool {
    inner: Arc<TaskPoolInner>,
}

#[derive(Debug)]
struct TaskPoolInner {
    caps: TaskPoolCaps,
    permits: Arc<Semaphore>,
    running: watch::Sender<Running>,
    stop: CancellationToken,
    counters: Counters<JobEvent>,
}

impl TaskPool {
    /// A pool called `name`.
    pub fn new(name: &str, caps: TaskPoolCaps) -> Self {
        let inner = TaskPoolInner {
            caps,
            permits: Arc::new(Semaphore::new(caps.jobs.get())),
            running: watch::Sender::default(),
            stop: CancellationToken::new(),
            counters: Counters::new(name, caps.jobs),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for a permit and spawns `job` on the current runtime.
    ///
    /// # Errors
    /// [`JobRefused`] when there was no permit within the waiting time, or the pool is closed; `job` is dropped.
    ///
    /// Cancel safe: a job that has no permit yet when this is dropped is dropped and counted.
    pub async fn spawn<J, F, E>(&self, job: J) -> Result<(), JobRefused>
    where
        J: FnOnce() -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let offer = OfferGuard::new(&self.inner.counters);
        let permit = match tokio::time::timeout(self.inner.caps.wait, self.inner.permits.clone().acquire_owned()).await
        {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(JobRefused::Closed),
            Err(_) => Err(self.full()),
        };
        offer.settle(permit).map(|permit| self.start(permit, job))
    }

    /// Spawns `job` if there is a permit right now.
    ///
    /// # Errors
    /// [`JobRefused`] when there is none, or the pool is closed; `job` is dropped.
    pub fn try_spawn<J, F, E>(&self, job: J) -> Result<(), JobRefused>
    where
        J: FnOnce() -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let offer = OfferGuard::new(&self.inner.counters);
        let permit = self.inner.permits.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => self.full(),
            TryAcquireError::Closed => JobRefused::Closed,
        });
        offer.settle(permit).map(|permit| self.start(permit, job))
    }

    /// Waits until no job runs. It takes no permit, so other jobs go on being started: where they overlap without a pause it
    /// waits for ever. Use [`idle_within`](Self::idle_within) for a limit.
    ///
    /// Cancel safe.
    pub async fn idle(&self) {
        let mut running = self.inner.running.subscribe();
        let times_idle = running.borrow().times_idle;
        // The sender lives as long as the pool does.
        let _ = running.wait_for(|running| running.jobs == 0 || running.times_idle != times_idle).await;
    }

    /// [`idle`](Self::idle) for at most `time`. Returns whether no job ran at some point.
    ///
    /// Cancel safe.
    pub async fn idle_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.idle()).await.is_ok()
    }

    /// Refuses further jobs, ends those that run, and waits until they have ended.
    ///
    /// Cancel safe: the jobs end all the same.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        // All permits are held until the pool is closed, so no job is about to start. Fails when the pool is closed already.
        let all = u32::try_from(self.inner.caps.jobs.get()).unwrap_or(u32::MAX);
        let _all = self.inner.permits.acquire_many(all).await;
        self.inner.permits.close();
    }

    /// Waits for `stop`, then [closes](Self::close): a task child of a supervisor.
    ///
    /// # Errors
    /// None: the result is that of a task child.
    ///
    /// Not cancel safe: dropped early, the pool stays open.
    pub async fn run(self, stop: CancellationToken) -> Result<(), crate::supervisor::BoxError> {
        stop.cancelled().await;
        self.close().await;
        Ok(())
    }

    /// The counters; entries are running jobs.
    pub fn counters(&self) -> &Counters<JobEvent> {
        &self.inner.counters
    }

    fn full(&self) -> JobRefused {
        JobRefused::Full { cap: self.inner.caps.jobs.get() }
    }

    fn start<J, F, E>(&self, permit: OwnedSemaphorePermit, job: J)
    where
        J: FnOnce() -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let running = JobGuard::new(self.clone(), permit);
        let (stop, limit) = (self.inner.stop.clone(), self.inner.caps.limit);
        let job = AssertUnwindSafe(job()).catch_unwind();
        tokio::spawn(async move {
            // The job's future is dropped with this statement, so the permit is released after all that the job held.
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => JobEvent::Stopped,
                ended = tokio::time::timeout(limit, job) => match ended {
                    Ok(Ok(Ok(()))) => JobEvent::Done,
                    Ok(Ok(Err(_))) => JobEvent::Failed,
                    Ok(Err(_)) => JobEvent::Panicked,
                    Err(_) => JobEvent::TimedOut,
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
struct OfferGuard<'a> {
    counters: &'a Counters<JobEvent>,
    settled: bool,
}

impl<'a> OfferGuard<'a> {
    fn new(counters: &'a Counters<JobEvent>) -> Self {
        counters.count(JobEvent::Offered);
        Self { counters, settled: false }
    }

    fn settle<P>(mut self, permit: Result<P, JobRefused>) -> Result<P, JobRefused> {
        self.settled = true;
        self.counters.count(match permit {
            Ok(_) => JobEvent::Started,
            Err(JobRefused::Full { .. }) => JobEvent::RefusedFull,
            Err(JobRefused::Closed) => JobEvent::RefusedClosed,
        });
        permit
    }
}

impl Drop for OfferGuard<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.counters.count(JobEvent::RefusedAbandoned);
        }
    }
}

/// The jobs that run, for [`TaskPool::idle`].
#[derive(Debug, Default)]
struct Running {
    jobs: usize,
    /// How often the last job ended.
    times_idle: u64,
}

/// A job that holds a permit. However its task ends, also unpolled, it is counted once, and then the permit is released.
struct JobGuard {
    pool: TaskPool,
    outcome: JobEvent,
    permit: Option<OwnedSemaphorePermit>,
}

impl JobGuard {
    fn new(pool: TaskPool, permit: OwnedSemaphorePermit) -> Self {
        pool.counters().entries().add(1);
        pool.inner.running.send_modify(|running| running.jobs += 1);
        Self { pool, outcome: JobEvent::Stopped, permit: Some(permit) }
    }

    fn end(mut self, outcome: JobEvent) {
        self.outcome = outcome;
    }
}

impl Drop for JobGuard {
    fn drop(&mut self) {
        self.pool.counters().count(self.outcome);
        self.pool.counters().entries().sub(1);
        drop(self.permit.take());
        self.pool.inner.running.send_modify(|running| {
            running.jobs -= 1;
            running.times_idle += u64::from(running.jobs == 0);
        });
    }
}
