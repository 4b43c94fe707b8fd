//! The other shapes of a call: streaming replies, requests to ordinary actors, tower layers.

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Do, assert_nothing_left, counters, until};
use futures::StreamExt;
use plimsoll::call::{CallContext, CallError, CallServer, Died, Part, ReplyStream, Service, Sink, Worker};
use plimsoll::exit::ExitReason;
use plimsoll_testkit::probe::{Mark, probe};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tower::{Service as _, ServiceBuilder, ServiceExt};

struct Counting {
    sent: Arc<AtomicU32>,
}

enum Count {
    /// Counts up, then replies with how far it came; panics at the given number.
    UpTo(u32, Option<u32>, Sink<u32>),
}

impl Service for Counting {
    type Request = Count;
    type Reply = u32;
    type Error = Infallible;

    async fn call(&self, _: CallContext, Count::UpTo(end, bad, sink): Count) -> Result<u32, Infallible> {
        for n in 1..=end {
            assert_ne!(Some(n), bad, "bad number");
            if sink.send(n).await.is_err() {
                break;
            }
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        Ok(end)
    }
}

async fn rest(mut stream: ReplyStream<u32, Counting>) -> (Vec<u32>, Vec<Result<u32, CallError<Infallible>>>) {
    let (mut items, mut ends) = (Vec::new(), Vec::new());
    while let Some(part) = stream.next().await {
        match part {
            Ok(Part::Item(item)) => items.push(item),
            Ok(Part::End(end)) => ends.push(Ok(end)),
            Err(error) => ends.push(Err(error)),
        }
    }
    (items, ends)
}

#[tokio::test(start_paused = true)]
async fn a_stream_brings_its_items_in_order_and_one_end() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = CallServer::builder(Counting { sent: Arc::default() }).worker(worker).start().await.unwrap();
        let stream = server.client().stream(4, |sink| Count::UpTo(100, None, sink));
        assert_eq!(rest(stream).await, ((1..=100).collect(), vec![Ok(100)]));
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
    }
}

/// The worker is never further ahead than the caller asked for.
#[tokio::test(start_paused = true)]
async fn a_stream_goes_no_faster_than_it_is_taken() {
    let sent = Arc::new(AtomicU32::new(0));
    let server = CallServer::builder(Counting { sent: sent.clone() }).start().await.unwrap();
    let mut stream = server.client().stream(3, |sink| Count::UpTo(1_000, None, sink));
    assert!(futures::poll!(stream.next()).is_pending());
    until(|| sent.load(Ordering::SeqCst) == 3).await;
    assert_eq!(stream.next().await, Some(Ok(Part::Item(1))));
    until(|| sent.load(Ordering::SeqCst) == 4).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sent.load(Ordering::SeqCst), 4);
}

/// the caller goes away in the middle: the worker ends, whatever it was waiting for.
#[tokio::test(start_paused = true)]
async fn dropping_a_stream_stops_its_worker() {
    let server = CallServer::builder(Counting { sent: Arc::default() }).start().await.unwrap();
    let mut stream = server.client().stream(1, |sink| Count::UpTo(1_000, None, sink));
    assert_eq!(stream.next().await, Some(Ok(Part::Item(1))));
    drop(stream);
    until(|| counters(&server)["workers"] == 0).await;
    assert_nothing_left(&counters(&server));
    assert_eq!(counters(&server)["settled_cancelled"], 1);
}

/// What was handed over before a worker died still arrives, then the reason.
#[tokio::test(start_paused = true)]
async fn a_stream_whose_worker_dies_ends_with_the_reason() {
    let server = CallServer::builder(Counting { sent: Arc::default() }).start().await.unwrap();
    let stream = server.client().stream(8, |sink| Count::UpTo(10, Some(5), sink));
    let (items, ends) = rest(stream).await;
    assert_eq!(items, [1, 2, 3, 4]);
    assert!(matches!(&ends[..], [Err(CallError::Died(Died::Exit(ExitReason::Failed(_))))]), "{ends:?}");
}

/// One deadline holds for the whole stream.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_taken_ends_at_its_deadline() {
    let server = CallServer::builder(Counting { sent: Arc::default() }).start().await.unwrap();
    let client = server.client().with_deadline(Instant::now() + Duration::from_millis(50));
    let mut stream = client.stream(2, |sink| Count::UpTo(10, None, sink));
    assert!(futures::poll!(stream.next()).is_pending());
    until(|| counters(&server)["workers"] == 1).await;
    tokio::time::advance(Duration::from_millis(50)).await;
    assert_eq!(rest(stream).await, (vec![1, 2], vec![Err(CallError::Timeout)]));
}

struct Hears(Mark<Result<u32, &'static str>>);

impl Actor for Hears {
    type Msg = Result<u32, &'static str>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, heard: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.0.note(heard);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_actor_hears_the_answer_to_its_request() {
    let server = common::server().max_in_flight(1).start().await.unwrap();
    let (mark, mut heard) = probe(4);
    let (actor, ended) = Hears::spawn(None, Hears(mark), ()).await.unwrap();
    let map = |settled: Result<u32, CallError<&'static str>>| settled.map_err(|_| "failed");
    let client = server.client();
    client.request(Do::Echo(4), &actor, map).unwrap();
    assert_eq!(heard.next().await, Ok(4));
    until(|| counters(&server)["workers"] == 0).await;
    client.request(Do::Panic("x"), &actor, map).unwrap();
    assert!(
        matches!(client.request(Do::Echo(1), &actor, map), Err(CallError::Overloaded(_))),
        "at once, and no message"
    );
    assert_eq!(heard.next().await, Err("failed"));
    until(|| counters(&server)["workers"] == 0).await;
    client.request(Do::Hold(Arc::default()), &actor, map).unwrap();
    until(|| counters(&server)["workers"] == 1).await;
    actor.stop(None);
    ended.await.unwrap();
    until(|| counters(&server)["workers"] == 0).await;
    assert_nothing_left(&counters(&server));
    assert_eq!(counters(&server)["settled_cancelled"], 1);
}

/// tower's layers apply: a limit of one at a time, a time-out, and a retry of what certainly never ran.
#[tokio::test(start_paused = true)]
async fn towers_layers_apply_to_a_client() {
    #[derive(Clone)]
    struct Again(u32);
    impl<Q: Clone, R> tower::retry::Policy<Q, R, tower::BoxError> for Again {
        type Future = std::future::Ready<()>;
        fn retry(&mut self, _: &mut Q, result: &mut Result<R, tower::BoxError>) -> Option<Self::Future> {
            let error = result.as_ref().err()?.downcast_ref::<CallError<Infallible>>()?;
            if self.0 == 0 || !error.never_ran() {
                return None;
            }
            self.0 -= 1;
            Some(std::future::ready(()))
        }
        fn clone_request(&mut self, request: &Q) -> Option<Q> {
            Some(request.clone())
        }
    }
    #[derive(Clone)]
    struct Slow;
    impl Service for Slow {
        type Request = u64;
        type Reply = u64;
        type Error = Infallible;
        async fn call(&self, _: CallContext, ms: u64) -> Result<u64, Infallible> {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(ms)
        }
    }
    let server = CallServer::builder(Slow).max_in_flight(1).start().await.unwrap();
    let mut stack = ServiceBuilder::new()
        .retry(Again(2))
        .concurrency_limit(4)
        .timeout(Duration::from_millis(100))
        .service(server.client());
    assert_eq!(stack.ready().await.unwrap().call(10).await.unwrap(), 10);
    let late = stack.ready().await.unwrap().call(1_000).await.unwrap_err();
    assert!(late.is::<tower::timeout::error::Elapsed>());
    until(|| counters(&server)["workers"] == 0).await;
    assert_eq!(counters(&server)["settled_cancelled"], 1, "tower's time-out drops the call, which ends it");
    let mut first = Box::pin(server.client().call(50));
    assert!(futures::poll!(&mut first).is_pending());
    let refused = stack.ready().await.unwrap().call(1).await.unwrap_err();
    assert!(refused.downcast_ref::<CallError<Infallible>>().is_some_and(CallError::never_ran));
    assert_eq!(counters(&server)["refused_in_flight"], 3, "once, and twice again");
}
