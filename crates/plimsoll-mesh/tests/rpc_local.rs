//! The router over the services of its own node.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::call::{CallContext, CallServer, Service};
use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use plimsoll::supervisor::Supervisor;
use plimsoll_mesh::identity::Identity;
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::problem::Code;
use plimsoll_mesh::rpc::Router;
use plimsoll_mesh::service::{ApplicationError, Caller, Dispatch, Overview, Request, Response, ServePeer};
use plimsoll_mesh::services::{MAX_SERVICES, NotOffered, ServiceTable, provide};
use tokio::sync::Semaphore;

type TestResult = Result<(), Box<dyn Error>>;

/// Does what the body says.
struct Obey {
    hold: Arc<Semaphore>,
}

impl Service for Obey {
    type Request = Request;
    type Reply = Response;
    type Error = ApplicationError;

    async fn call(&self, _: CallContext, request: Request) -> Result<Response, ApplicationError> {
        let content_type: Arc<str> = "text/plain".into();
        match &*request.body {
            b"panic" => panic!("told to"),
            b"refuse" => Err(ApplicationError { content_type, body: "not today".into() }),
            b"hold" => {
                let _ = self.hold.acquire().await;
                Ok(Response { content_type, body: request.body })
            }
            _ => Ok(Response { content_type, body: request.body }),
        }
    }
}

/// Stands in for a supervisor: outlives its children.
struct Root;

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

fn request(service: &str, body: &'static str) -> Result<Request, Box<dyn Error>> {
    Ok(Request {
        service: service.parse()?,
        body: body.into(),
        content_type: None,
        deadline: Instant::now() + Duration::from_secs(5),
        call_id: "test".into(),
        traceparent: None,
        caller: Caller::Client(0),
    })
}

fn node() -> Result<NodeId, Box<dyn Error>> {
    Ok(Identity::generate()?.node_id())
}

#[tokio::test]
async fn every_end_of_a_local_call_reaches_the_caller_with_its_code_and_node() -> TestResult {
    let (me, services, hold) = (node()?, ServiceTable::new(), Arc::new(Semaphore::new(0)));
    let owner = Supervisor::builder("test").child(services.owner()).start().await?;
    let server = CallServer::builder(Obey { hold: hold.clone() }).max_in_flight(1).start().await?;
    let registration = services.register("obey".parse()?, true, server.client()).await?;
    let router = Router::local(me, None, services.clone());

    assert_eq!(&*router.dispatch(request("obey", "hello")?).await.map_err(|it| it.detail)?.body, b"hello");

    let refused = router.dispatch(request("obey", "refuse")?).await.err().ok_or("refused")?;
    assert_eq!((refused.code, refused.node), (Code::ApplicationError, Some(me)));
    assert_eq!(refused.application.map(|own| own.body), Some("not today".into()));

    let panicked = router.dispatch(request("obey", "panic")?).await.err().ok_or("panicked")?;
    assert_eq!((panicked.code, panicked.node), (Code::WorkerPanicked, Some(me)));
    assert!(panicked.detail.contains("told to"), "{}", panicked.detail);

    let mut held = router.dispatch(request("obey", "hold")?);
    assert!(futures::poll!(&mut held).is_pending());
    let full = router.serve(request("obey", "hello")?).await.err().ok_or("full")?;
    assert_eq!((full.problem.code, full.never_ran), (Code::Overloaded, true));
    drop(held);

    let mut late = request("obey", "hold")?;
    late.deadline = Instant::now() + Duration::from_millis(20);
    // The permit of the call given up returns when its worker has ended.
    let refused = loop {
        let refused = router.dispatch(late.clone()).await.err().ok_or("late")?;
        if refused.code != Code::Overloaded {
            break refused;
        }
        tokio::task::yield_now().await;
        late.deadline = Instant::now() + Duration::from_millis(20);
    };
    assert_eq!((refused.code, refused.node), (Code::Deadline, Some(me)));

    drop(registration);
    let gone = router.dispatch(request("obey", "hello")?).await.err().ok_or("gone")?;
    assert_eq!((gone.code, gone.node), (Code::NoProvider, Some(me)));
    owner.stop().await.unwrap();
    Ok(())
}

#[tokio::test]
async fn a_service_is_offered_for_as_long_as_its_server_runs() -> TestResult {
    let (root, root_ended) = Actor::spawn(None, Root, ()).await?;
    let (services, hold) = (ServiceTable::new(), Arc::new(Semaphore::new(0)));
    let owner = Supervisor::builder("test").child(services.owner()).start().await?;
    let router = Router::local(node()?, None, services.clone());
    let mut changes = services.changes();
    let start = || {
        let server = CallServer::builder(Obey { hold: hold.clone() });
        let name = "obey".parse().map_err(Box::<dyn Error>::from);
        let (services, root) = (services.clone(), root.get_cell());
        async move { Ok::<_, Box<dyn Error>>(provide(&services, name?, true, server, root).await?) }
    };

    let before = router.serve(request("obey", "x")?).await.err().ok_or("nobody yet")?;
    assert_eq!((before.problem.code, before.never_ran), (Code::NoProvider, true));
    start().await?;
    assert!(router.dispatch(request("obey", "x")?).await.is_ok());
    assert!(Overview::services(&router).iter().all(|entry| entry.callable && entry.idempotent));
    changes.mark_unchanged();

    // The later server takes the entry over; the end of the first one does not withdraw it.
    let first = root.get_cell().get_children();
    start().await?;
    for child in first {
        child.stop_and_wait(None, None).await?;
    }
    assert!(router.dispatch(request("obey", "x")?).await.is_ok());

    root.stop(None);
    root_ended.await?;
    while !services.list().is_empty() {
        changes.changed().await?;
    }
    owner.stop().await.unwrap();
    Ok(())
}

/// The owner of the table is killed: what was offered is still called, what ends meanwhile is withdrawn, and the next owner
/// goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_table_outlives_its_owner() -> TestResult {
    let services = ServiceTable::new();
    let tree = Supervisor::builder("test").child(services.owner()).start().await?;
    let router = Router::local(node()?, None, services.clone());
    let hold = Arc::new(Semaphore::new(0));
    let server = CallServer::builder(Obey { hold: hold.clone() }).start().await?;
    let kept = services.register("kept".parse()?, true, server.client()).await?;
    let dropped = services.register("dropped".parse()?, true, server.client()).await?;
    tree.child("service-table")?.actor().kill();
    drop(dropped);
    assert!(router.dispatch(request("kept", "x")?).await.is_ok());
    let gone = router.dispatch(request("dropped", "x")?).await.err().ok_or("withdrawn")?;
    assert_eq!(gone.code, Code::NoProvider);
    // It waits for the next owner.
    let added = services.register("added".parse()?, true, server.client()).await?;
    let names: Vec<_> = services.list().iter().map(|service| service.name.to_string()).collect();
    assert_eq!(names, ["added", "kept"]);
    drop((kept, added));
    assert!(services.list().is_empty());
    tree.stop().await.unwrap();
    let none = services.register("late".parse()?, true, server.client()).await;
    assert!(matches!(none, Err(NotOffered::NoOwner)), "{none:?}");
    Ok(())
}

/// Issue 10, 4.9: the caller reads whether the call may have run.
#[tokio::test]
async fn a_problem_says_whether_the_call_may_have_run() -> TestResult {
    let (services, hold) = (ServiceTable::new(), Arc::new(Semaphore::new(0)));
    let owner = Supervisor::builder("test").child(services.owner()).start().await?;
    let server = CallServer::builder(Obey { hold: hold.clone() }).max_in_flight(1).start().await?;
    let _registration = services.register("obey".parse()?, false, server.client()).await?;
    let router = Router::local(node()?, None, services.clone());
    let nowhere = router.dispatch(request("nowhere", "x")?).await.err().ok_or("nowhere")?;
    assert_eq!((nowhere.code, nowhere.may_have_run), (Code::NoProvider, false));
    let panicked = router.dispatch(request("obey", "panic")?).await.err().ok_or("panicked")?;
    assert_eq!((panicked.code, panicked.may_have_run), (Code::WorkerPanicked, true));
    let mut held = router.dispatch(request("obey", "hold")?);
    assert!(futures::poll!(&mut held).is_pending());
    let full = router.dispatch(request("obey", "x")?).await.err().ok_or("full")?;
    assert_eq!((full.code, full.may_have_run), (Code::Overloaded, false));
    assert!(!serde_json::to_string(&full.document())?.contains("may_have_run"));
    drop(held);
    // The permit returns when the worker of the call that was given up has ended.
    let late = loop {
        let mut late = request("obey", "hold")?;
        late.deadline = Instant::now() + Duration::from_millis(20);
        let late = router.dispatch(late).await.err().ok_or("late")?;
        if late.code != Code::Overloaded {
            break late;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((late.code, late.may_have_run), (Code::Deadline, true));
    assert!(serde_json::to_string(&late.document())?.contains("\"may_have_run\":true"));
    owner.stop().await.unwrap();
    Ok(())
}

/// Issue 10, 7.3: at the cap of the table, the server that was started for the entry is ended again, and one entry less makes
/// room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_finds_the_table_full_leaves_no_server() -> TestResult {
    let (services, hold) = (ServiceTable::new(), Arc::new(Semaphore::new(0)));
    let owner = Supervisor::builder("test").child(services.owner()).start().await?;
    let server = CallServer::builder(Obey { hold: hold.clone() }).start().await?;
    let mut kept = Vec::new();
    for n in 0..MAX_SERVICES {
        kept.push(services.register(format!("s{n}").parse()?, true, server.client()).await?);
    }
    let (root, root_ended) = Actor::spawn(None, Root, ()).await?;
    let provide = || {
        let (server, root) = (CallServer::builder(Obey { hold: hold.clone() }), root.get_cell());
        let (services, name) = (services.clone(), "late".parse().map_err(Box::<dyn Error>::from));
        async move { Ok::<_, Box<dyn Error>>(provide(&services, name?, true, server, root).await) }
    };
    let refused = provide().await?;
    assert!(matches!(refused, Err(NotOffered::Full)), "{refused:?}");
    let ended = async {
        while !root.get_cell().get_children().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await?;
    assert_eq!(services.list().len(), MAX_SERVICES);
    kept.pop();
    provide().await??;
    assert_eq!(services.list().len(), MAX_SERVICES);
    root.stop(None);
    root_ended.await?;
    owner.stop().await.unwrap();
    Ok(())
}
