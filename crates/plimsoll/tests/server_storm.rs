//! Servers under random calls, stops, kills and failures on several threads: every call ends, and nothing is left.

mod common;

use std::time::Duration;

use common::{assert_nothing_left, counters};
use plimsoll::call::{CallError, Died, OnCallerExit};
use plimsoll::server::{self, BoxError, Context, Down, GenServer, Reply, Response};
use ractor::ActorCell;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

#[derive(Default)]
struct Target {
    owed: Vec<Reply<Self>>,
}

#[derive(Debug)]
enum Job {
    Echo,
    Sleep(u64),
    Owe,
    Elsewhere(u64),
    Forget,
    Monitor(ActorCell),
    Stop(Option<&'static str>),
    Fail,
    Panic,
}

impl GenServer for Target {
    type Call = Job;
    type Reply = ();
    type Error = String;
    type Cast = u64;
    type Message = ();

    async fn call(&mut self, job: Job, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        match job {
            Job::Echo => {}
            Job::Sleep(micros) => sleep(Duration::from_micros(micros)).await,
            Job::Owe => {
                self.owed.extend(ctx.take_reply());
                return Ok(Response::Later);
            }
            Job::Elsewhere(micros) => {
                let reply = ctx.take_reply();
                tokio::spawn(async move {
                    sleep(Duration::from_micros(micros)).await;
                    reply.map(|reply| reply.ok(()))
                });
                return Ok(Response::Later);
            }
            Job::Forget => return Ok(Response::Later),
            Job::Monitor(actor) => drop(ctx.monitor(&actor)?),
            Job::Stop(reason) => ctx.stop(reason),
            Job::Fail => return Err("told to fail".into()),
            Job::Panic => panic!("told to panic"),
        }
        Ok(Response::Reply(()))
    }

    async fn cast(&mut self, micros: u64, ctx: &mut Context<Self>) -> Result<(), BoxError> {
        self.owed.pop().map(|reply| reply.ok(()));
        ctx.send_after(Duration::from_micros(micros), ())?;
        Ok(())
    }

    async fn down(&mut self, _: Down, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.owed.clear();
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.owed.pop().map(|reply| reply.err("stopping".to_owned()));
        Ok(())
    }
}

fn job(random: &mut SmallRng, other: &ActorCell) -> Job {
    match random.random_range(0..200) {
        0..80 => Job::Echo,
        80..120 => Job::Sleep(random.random_range(0..300)),
        120..140 => Job::Owe,
        140..165 => Job::Elsewhere(random.random_range(0..300)),
        165..175 => Job::Forget,
        175..195 => Job::Monitor(other.clone()),
        195 => Job::Stop(None),
        196 => Job::Stop(Some("upgrade")),
        197..199 => Job::Fail,
        _ => Job::Panic,
    }
}

/// One server from its start to its end.
async fn life(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let on_exit = if random.random_bool(0.5) { OnCallerExit::Cancel } else { OnCallerExit::Finish };
    let builder =
        server::builder(Target::default()).mailbox(random.random_range(1..40)).queue(random.random_range(0..20));
    let mut server = builder
        .deadline(Duration::from_millis(500))
        .monitors(8)
        .on_caller_exit(on_exit)
        .serve_queued_on_stop(random.random_bool(0.7))
        .start()
        .await
        .unwrap();
    let other = server::builder(Target::default()).start().await.unwrap();
    let callers: Vec<_> = (0..random.random_range(1..12_u64))
        .map(|nth| {
            let (client, other) = (server.client(), other.actor());
            let client = if nth % 3 == 0 { client.bind(&other).unawaited() } else { client };
            let mut random = SmallRng::seed_from_u64(random.next_u64());
            tokio::spawn(async move {
                for _ in 0..random.random_range(1..40) {
                    let call = client.call(job(&mut random, &other));
                    let outcome = match random.random_range(0..10) {
                        0 => match timeout(Duration::from_micros(random.random_range(0..200)), call).await {
                            Ok(outcome) => outcome,
                            Err(_) => continue,
                        },
                        1 => {
                            let _ = client.cast(random.random_range(0..500));
                            call.await
                        }
                        _ => call.await,
                    };
                    if let Err(CallError::ShuttingDown | CallError::Died(Died::NoProcess | Died::Exit(_))) = outcome {
                        return;
                    }
                }
            })
        })
        .collect();
    sleep(Duration::from_micros(random.random_range(0..3_000))).await;
    if random.random_bool(0.3) {
        other.actor().kill();
    }
    match random.random_range(0..4) {
        0 => server.actor().kill(),
        1 => server.actor().stop(Some("shutdown".to_owned())),
        2 => drop(server.actor().drain()),
        _ => {
            server.actor().stop(None);
            tokio::task::yield_now().await;
            server.actor().kill();
        }
    }
    timeout(Duration::from_secs(10), server.ended()).await.unwrap_or_else(|_| panic!("seed {seed}: it did not end"));
    for caller in callers {
        let ended = timeout(Duration::from_secs(10), caller).await;
        ended.unwrap_or_else(|_| panic!("seed {seed}: a call did not end")).unwrap();
    }
    // A reply handle that another task holds ends with that task.
    let deadline = Instant::now() + Duration::from_secs(5);
    while counters(&server)["permits_used"] > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(1)).await;
    }
    let counters = counters(&server);
    assert_nothing_left(&counters);
    for name in ["monitors", "bound_callers", "requests", "own_timers"] {
        assert_eq!(counters[name], 0, "seed {seed}: {name}: {counters:?}");
    }
    let casts = counters["casts_handled"] + counters["casts_dropped"];
    assert_eq!(counters["casts"], casts, "seed {seed}: {counters:?}");
}

async fn storm(seconds: f32) {
    let first: u64 =
        std::env::var("PLIMSOLL_STRESS_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    let seconds = std::env::var("PLIMSOLL_STRESS_SECONDS").map_or(seconds, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs_f32(seconds);
    let mut seed = first;
    while Instant::now() < end {
        let lives: Vec<_> = (0..8).map(|nth| tokio::spawn(life(seed.wrapping_add(nth)))).collect();
        for life in lives {
            life.await.unwrap_or_else(|error| panic!("PLIMSOLL_STRESS_SEED={first}: {error}"));
        }
        seed = seed.wrapping_add(8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stress_servers_end_in_every_way_on_two_threads() {
    storm(1.5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stress_servers_end_in_every_way_on_four_threads() {
    storm(1.5).await;
}
