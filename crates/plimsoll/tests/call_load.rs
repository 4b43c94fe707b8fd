//! Loads that once left something behind: nothing is left.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Do, Obedient, assert_nothing_left, counters, server, until};
use plimsoll::call::{CallClient, CallError, Worker};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// One caller: it makes one call in its handler.
struct Caller(CallClient<Obedient>);

impl Actor for Caller {
    type Msg = Arc<()>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Arc<()>>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Arc<()>>, held: Arc<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let _ = self.0.call(Do::Hold(held)).await;
        Ok(())
    }
}

/// M-24, M-15: a thousand calls a second, of whose callers one in a hundred dies: not one stale entry at any second. What
/// was lost before was five seconds of dying callers.
#[tokio::test(start_paused = true)]
async fn one_dying_caller_in_a_hundred_leaves_no_stale_entry() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = server().worker(worker).max_in_flight(64).start().await.unwrap();
        let (client, held) = (server.client(), Arc::new(()));
        let before = Handle::current().metrics().num_alive_tasks();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for n in 1..=5_000_u32 {
            tick.tick().await;
            if n % 100 == 0 {
                let (caller, ended) = Caller::spawn(None, Caller(client.clone()), ()).await.unwrap();
                caller.send_message(held.clone()).unwrap();
                until(|| counters(&server)["workers"] == 1).await;
                caller.kill();
                ended.await.unwrap();
                assert_eq!(counters(&server)["in_flight"], 0, "at once");
                until(|| counters(&server)["workers"] == 0).await;
            } else {
                assert_eq!(client.call(Do::Echo(n)).await, Ok(n));
            }
            if n % 1_000 == 0 {
                until(|| counters(&server)["workers"] == 0).await;
                assert_nothing_left(&counters(&server));
            }
        }
        assert_eq!((Arc::strong_count(&held), counters(&server)["settled_cancelled"]), (1, 50));
        until(|| Handle::current().metrics().num_alive_tasks() <= before).await;
    }
}

/// ten thousand calls, a hundred at a time, of which one in a hundred gives up: no task is left.
#[tokio::test(start_paused = true)]
async fn one_caller_in_a_hundred_giving_up_leaves_no_task() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = server().worker(worker).max_in_flight(200).start().await.unwrap();
        let before = Handle::current().metrics().num_alive_tasks();
        let callers: Vec<_> = (0..100_u32)
            .map(|caller| {
                let client = server.client();
                tokio::spawn(async move {
                    for n in 0..100 {
                        if n == caller {
                            let late =
                                client.call_by(Do::Hold(Arc::default()), Instant::now() + Duration::from_secs(1));
                            let gave_up = tokio::time::timeout(Duration::from_millis(20), late).await;
                            assert!(gave_up.is_err());
                        } else {
                            assert_eq!(client.call(Do::Echo(n)).await, Ok(n));
                        }
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!((counters(&server)["started"], counters(&server)["settled_cancelled"]), (10_000, 100));
        until(|| Handle::current().metrics().num_alive_tasks() <= before).await;
    }
}

/// a reply whose receiver has gone is dropped, and sending it never waits.
#[tokio::test(start_paused = true)]
async fn a_reply_without_a_receiver_never_waits() {
    let server = server().start().await.unwrap();
    let client = server.client();
    for _ in 0..1_000 {
        let mut call = Box::pin(client.call(Do::Echo(1)));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
    }
    until(|| counters(&server)["permits_used"] == 0).await;
    assert_nothing_left(&counters(&server));
    assert_eq!(client.call(Do::Hold(Arc::default())).await, Err(CallError::Timeout));
}

/// what keeps a server's deadlines and what watches its callers belongs to it and ends with it, in whatever way it ends.
#[tokio::test(start_paused = true)]
async fn the_clock_ends_with_its_server() {
    let before = Handle::current().metrics().num_alive_tasks();
    for n in 0..100 {
        let mut server = server().start().await.unwrap();
        assert_eq!(server.client().call(Do::Echo(n)).await, Ok(n));
        // Whoever watches its callers as well: an actor, started with the first client that is bound.
        drop(server.client().bind(&server.actor()));
        if n % 2 == 0 {
            server.actor().kill()
        } else {
            server.actor().stop(None)
        }
        server.ended().await;
    }
    until(|| Handle::current().metrics().num_alive_tasks() <= before).await;
}
