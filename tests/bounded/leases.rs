//! Advertisements that nobody renews.

use std::time::{Duration, Instant};

use plimsoll_mesh::client::Client;
use tokio::task::JoinSet;

use crate::clients::{At, endpoint};
use crate::harness::{Node, Plan, counter, folder, full};
use crate::left::record;

const SESSIONS: [&str; 2] = ["gateway", "sessions"];
const OWNERS: usize = 10;

fn name(owner: usize, nth: usize) -> plimsoll_mesh::names::ServiceName {
    format!("owner-{owner}.name-{nth}").parse().unwrap()
}

/// All that `client` advertises, sixteen at a time.
async fn advertise(client: Client, owner: usize, names: usize, ttl: Duration) {
    let mut advertising = JoinSet::new();
    for nth in 0..names {
        let client = client.clone();
        advertising.spawn(async move { client.advertise(&name(owner, nth), Some(ttl)).await.unwrap().status });
        if advertising.len() == 16 {
            assert_eq!(advertising.join_next().await.unwrap().unwrap(), 201);
        }
    }
    while let Some(status) = advertising.join_next().await {
        assert_eq!(status.unwrap(), 201);
    }
}

/// What a run came to.
struct Run {
    /// Advertisements held when all had been sent.
    sent: u64,
    /// How long after the last was sent those not renewed were gone; `None`: they were not within the time.
    gone: Option<Duration>,
    /// Renewed ones held at the end.
    stayed: u64,
    /// Renewals that were answered within the lease before, those of them that found nothing to renew, and all that did.
    in_time: usize,
    wrongly_lapsed: usize,
    lapsed: usize,
}

/// One name of each owner, renewed again and again.
struct Renewals<'a> {
    owners: &'a [Client],
    nth: usize,
    ttl: Duration,
    /// When each was sent last.
    sent: Vec<Option<Instant>>,
    /// Those answered within the lease before, which must be renewals whatever the machine does.
    in_time: usize,
    /// Of these, those that found nothing to renew.
    wrongly_lapsed: usize,
    /// All that found nothing to renew.
    lapsed: usize,
}

impl<'a> Renewals<'a> {
    fn new(owners: &'a [Client], nth: usize, ttl: Duration) -> Self {
        Self { owners, nth, ttl, sent: vec![None; owners.len()], in_time: 0, wrongly_lapsed: 0, lapsed: 0 }
    }

    async fn renew(&mut self) {
        for (owner, client) in self.owners.iter().enumerate() {
            let now = Instant::now();
            let status = client.advertise(&name(owner, self.nth), Some(self.ttl)).await.unwrap().status;
            assert!(status.is_success(), "{status}");
            // The lease before began after that was sent.
            let Some(before) = self.sent[owner].replace(now) else { continue };
            let (in_time, lapsed) = (before.elapsed() < self.ttl, status == 201);
            self.in_time += usize::from(in_time);
            self.wrongly_lapsed += usize::from(in_time && lapsed);
            self.lapsed += usize::from(lapsed);
        }
    }
}

async fn run(node: &Node, names: usize, ttl: Duration, patience: Duration) -> Run {
    let sockets = endpoint(0);
    let mut owners = Vec::new();
    for _ in 0..OWNERS {
        owners.push(At::of(node).connect(&sockets).await.unwrap());
    }
    let sending: JoinSet<_> =
        owners.iter().cloned().enumerate().map(|(owner, client)| advertise(client, owner, names, ttl)).collect();
    sending.join_all().await;
    let mut renewals = Renewals::new(&owners, names, ttl);
    renewals.renew().await;
    let last = Instant::now();
    let held = async || counter(&node.snapshot().await, &SESSIONS, "advertised_used");
    let sent = held().await;
    while last.elapsed() < ttl * 3 / 4 {
        // First the wait: in the full form the owners have used up what they may send at once.
        tokio::time::sleep(ttl / 10).await;
        renewals.renew().await;
    }
    // Now nobody asks for anything: what goes goes by the clock.
    let mut gone = None;
    while gone.is_none() && last.elapsed() < patience {
        gone = (held().await <= OWNERS as u64).then(|| last.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The renewed ones outlive their first lease by far.
    while gone.is_some() && last.elapsed() < 2 * ttl {
        renewals.renew().await;
        tokio::time::sleep(ttl / 10).await;
    }
    let Renewals { in_time, wrongly_lapsed, lapsed, .. } = renewals;
    Run { sent, gone, stayed: held().await, in_time, wrongly_lapsed, lapsed }
}

/// M-9, M-11, M-12, M-23: advertisements of ten owners end within their time and one tick, all that were not renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_advertisements_end_with_their_leases_and_renewed_ones_stay() {
    let (names, ttl) = if full() { (999, Duration::from_secs(5)) } else { (99, Duration::from_secs(2)) };
    let tick = ttl / 5;
    // Beyond the tick: the time of a snapshot, and of a busy machine in short form.
    let limit = ttl + tick + if full() { Duration::from_millis(500) } else { Duration::from_secs(10) };
    let folder = folder();
    let node = Plan::new(&folder, "a").flag("services", "echo").start();
    let ours = run(&node, names, ttl, limit).await;
    let control = Plan::new(&folder, "b").flag("services", "echo").without("sweep").start();
    let without = run(&control, if full() { names } else { 9 }, ttl, limit.min(2 * ttl + tick)).await;
    let in_words = |gone: Option<Duration>| {
        gone.map_or("not gone at all".to_owned(), |gone| format!("gone after {:.1} s", gone.as_secs_f64()))
    };
    record(
        "3 advertisements that nobody renews",
        &[
            (
                format!("{} held, those not renewed {}", ours.sent, in_words(ours.gone)),
                format!("within {:.1} s, a lease of {} s and a tick", limit.as_secs_f64(), ttl.as_secs()),
                ours.gone.is_some() && without.gone.is_none(),
                Some(format!("without the sweep {}", in_words(without.gone))),
            ),
            (
                format!(
                    "{} renewed ones held in the end; of {} renewals in time {} found nothing, of all {}",
                    ours.stayed, ours.in_time, ours.wrongly_lapsed, ours.lapsed
                ),
                // A busy machine sends some too late.
                if full() { format!("{OWNERS}; some, 0, 0") } else { "no claim; some, 0, no claim".into() },
                ours.in_time > 0
                    && ours.wrongly_lapsed == 0
                    && (!full() || ours.stayed == OWNERS as u64 && ours.lapsed == 0),
                None,
            ),
        ],
    );
}
