//! The log lines of a child carry its path in the tree.

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};

use plimsoll::call::{CallContext, CallServer, Service, Worker};
use plimsoll::server::{self, BoxError, Context, Server};
use plimsoll::supervisor::{
    Backoff, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Supervisor, SupervisorRef, child_span,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::{Instrument, Span};

/// The log lines of the current thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn capture(level: tracing::Level) -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// The only line that contains this text, once there is one.
    async fn one(&self, text: &str) -> String {
        for _ in 0..1_000 {
            let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let found: Vec<_> = all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
            if let [line] = &found[..] {
                return line.clone();
            }
            assert!(found.is_empty(), "{found:?}");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("no line with {text}");
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How often the spans of a line name this path.
fn names(line: &str, path: &str) -> usize {
    line.matches(&format!("child{{path={path}}}")).count()
}

fn speaking_task(id: &str) -> ChildSpec {
    let name = id.to_owned();
    ChildSpec::task(id, move |_| {
        let name = name.clone();
        async move {
            tracing::warn!("task {name} speaks");
            std::future::pending().await
        }
    })
}

struct Counter;

impl Server for Counter {
    type Call = u32;
    type Reply = u32;

    async fn call(&mut self, n: u32, _: &mut Context<Self>) -> Result<u32, BoxError> {
        tracing::warn!("server speaks {n}");
        Ok(n)
    }
}

struct Echo;

impl Service for Echo {
    type Request = u32;
    type Reply = u32;
    type Error = Infallible;

    async fn call(&self, _: CallContext, n: u32) -> Result<u32, Infallible> {
        tokio::task::yield_now().await;
        tracing::warn!("call speaks {n}");
        Ok(n)
    }
}

#[tokio::test]
async fn tasks_of_nested_supervisors_carry_their_paths_through_restarts() {
    let (lines, _guard) = Lines::capture(tracing::Level::WARN);
    let sessions = || Supervisor::builder("any name").child(speaking_task("sweeper"));
    let gateway = move || {
        Supervisor::builder("other").child(ChildSpec::supervisor("sessions", sessions)).child(speaking_task("listener"))
    };
    let builder = Supervisor::builder("top").child(speaking_task("clock"));
    let tree = builder.child(ChildSpec::supervisor("gateway", gateway).backoff(Backoff::NONE)).start().await.unwrap();
    for (text, path) in [
        ("task clock speaks", "clock"),
        ("task listener speaks", "gateway/listener"),
        ("task sweeper speaks", "gateway/sessions/sweeper"),
    ] {
        let line = lines.one(text).await;
        assert_eq!(names(&line, path), 1, "{line}");
        assert_eq!(line.matches("child{").count(), 1, "{line}");
    }
    lines.0.lock().unwrap().clear();
    tree.child("gateway").unwrap().actor().kill();
    let line = lines.one("task sweeper speaks").await;
    assert_eq!(names(&line, "gateway/sessions/sweeper"), 1, "{line}");
    // The path is that of a handle.
    let handle = tree.child_handle::<()>("gateway/sessions/sweeper");
    assert!(handle.is_ok());
    tree.stop().await.unwrap();
}

#[tokio::test]
async fn handlers_of_servers_and_calls_carry_the_path_and_not_that_of_their_caller() {
    let (lines, _guard) = Lines::capture(tracing::Level::WARN);
    let counter =
        ChildSpec::new("counter", |parent| async move { server::builder(Counter).start_linked(parent).await });
    let actors = ChildSpec::new("actors", |parent| async move { CallServer::builder(Echo).start_linked(parent).await });
    let tasks = ChildSpec::new("tasks", |parent| async move {
        CallServer::builder(Echo).worker(Worker::Task).start_linked(parent).await
    });
    let nested = move || Supervisor::builder("nested");
    let tree = Supervisor::builder("top").child(ChildSpec::supervisor("api", nested)).start().await.unwrap();
    let api: Arc<SupervisorRef> = tree.child("api").unwrap().value().unwrap();
    for spec in [counter, actors, tasks] {
        api.start_child(spec).instrument(tracing::error_span!("request")).await.unwrap();
    }
    let counter = api.child("counter").unwrap().value::<server::ServerRef<Counter>>().unwrap();
    counter.call(1).instrument(tracing::error_span!("request")).await.unwrap();
    let line = lines.one("server speaks 1").await;
    assert_eq!((names(&line, "api/counter"), line.matches("request").count()), (1, 0), "{line}");
    for (id, n) in [("actors", 2), ("tasks", 3)] {
        let client = api.child(id).unwrap().value::<plimsoll::call::CallClient<Echo>>().unwrap();
        client.call(n).instrument(tracing::error_span!("request")).await.unwrap();
        let line = lines.one(&format!("call speaks {n}")).await;
        assert_eq!((names(&line, &format!("api/{id}")), line.matches("request").count()), (1, 0), "{line}");
    }
    tree.stop().await.unwrap();
}

/// An ordinary actor: its start is in the span, and its handlers are where it keeps the span.
struct Ordinary;

impl Actor for Ordinary {
    type Msg = &'static str;
    type State = Span;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<&'static str>, (): ()) -> Result<Span, ActorProcessingErr> {
        tracing::warn!("actor starts");
        Ok(child_span())
    }

    async fn handle(
        &self,
        _: ActorRef<&'static str>,
        text: &'static str,
        span: &mut Span,
    ) -> Result<(), ActorProcessingErr> {
        async { tracing::warn!("actor handles {text}") }.instrument(span.clone()).await;
        Ok(())
    }
}

#[tokio::test]
async fn ordinary_actor_starts_in_its_span_and_can_keep_it() {
    let (lines, _guard) = Lines::capture(tracing::Level::WARN);
    let spec = ChildSpec::new("db", |parent| Ordinary::spawn_linked(None, Ordinary, (), parent));
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let line = lines.one("actor starts").await;
    assert_eq!(names(&line, "db"), 1, "{line}");
    tree.child_handle::<&'static str>("db").unwrap().send("this").unwrap();
    let line = lines.one("actor handles this").await;
    assert_eq!(names(&line, "db"), 1, "{line}");
    assert!(child_span().is_disabled(), "there is none outside of a start");
    tree.stop().await.unwrap();
}

#[tokio::test]
async fn dynamic_children_carry_the_path_of_their_supervisor() {
    let (lines, _guard) = Lines::capture(tracing::Level::WARN);
    let workers = || DynamicSupervisor::temporary("w", |parent, ()| Ordinary::spawn_linked(None, Ordinary, (), parent));
    let tree = Supervisor::builder("top").child(ChildSpec::supervisor("workers", workers)).start().await.unwrap();
    let workers: Arc<DynamicSupervisorRef<()>> = tree.child("workers").unwrap().value().unwrap();
    workers.start_child(()).await.unwrap();
    let line = lines.one("actor starts").await;
    assert_eq!(names(&line, "workers/*"), 1, "{line}");
    tree.stop().await.unwrap();
}
