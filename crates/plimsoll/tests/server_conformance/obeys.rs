//! A server that does what it is told, and what its tests share.

use std::time::Duration;

use plimsoll::call::{CallError, Died, StartedServer};
use plimsoll::exit::ExitReason;
use plimsoll::server::{
    self, BoxError, Context, GenServer, Reply, Response, ServerBuilder, ServerProtocol, ServerRef, TimerKey,
};
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::{Mark, Probe, probe};
use tokio::time::Instant;

/// A server that does what it is told and notes what it did.
pub(crate) struct Obeys {
    mark: Mark<&'static str>,
    first: Option<&'static str>,
    kept: Vec<Reply<Self>>,
    timer: Option<TimerKey>,
}

pub(crate) enum Ask {
    Echo(u32),
    Forget,
    /// Drop the reply handle in another task, at the first gate; the handler waits at the second.
    ForgetElsewhere(Gate, Gate),
    /// Drop the reply handle, then wait.
    ForgetThenPass(Gate),
    /// Drop the reply handle and fail in the same breath.
    ForgetAndFail(&'static str),
    Keep,
    Fail(&'static str),
    Panic(&'static str),
    Refuse,
    StopNormally,
    StopWith(&'static str),
    Pass(Gate),
    Delegate(Gate),
    Continue,
    CallMyself,
    Call(ServerRef<Obeys>, Box<Ask>),
    Request(ServerRef<Obeys>, Box<Ask>),
    After(Duration),
    Every(Duration),
    CancelTimer,
    Deadline(Mark<Option<Instant>>),
}

pub(crate) enum Note {
    Say(&'static str),
    Wait(Gate),
    AnswerKept(u32),
}

impl Obeys {
    /// A server that begins with the continuation `first`, or whose start fails.
    pub(crate) fn new(mark: Mark<&'static str>, first: Option<&'static str>) -> Self {
        Self { mark, first, kept: Vec::new(), timer: None }
    }
}

impl GenServer for Obeys {
    type Call = Ask;
    type Reply = u32;
    type Error = String;
    type Cast = Note;
    type Message = &'static str;

    async fn init(&mut self, ctx: &mut Context<Self>) -> Result<(), BoxError> {
        match self.first {
            Some("fail") => return Err("init failed".into()),
            Some(message) => ctx.continue_with(message),
            None => {}
        }
        Ok(())
    }

    async fn call(&mut self, ask: Ask, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        Ok(match ask {
            Ask::Echo(n) => Response::Reply(n),
            Ask::Forget => Response::Later,
            Ask::ForgetElsewhere(there, here) => {
                let reply = ctx.take_reply();
                tokio::spawn(async move {
                    there.pass().await;
                    drop(reply);
                });
                here.pass().await;
                Response::Later
            }
            Ask::ForgetThenPass(gate) => {
                drop(ctx.take_reply());
                gate.pass().await;
                Response::Later
            }
            Ask::ForgetAndFail(why) => {
                drop(ctx.take_reply());
                return Err(why.into());
            }
            Ask::Keep => {
                self.kept.extend(ctx.take_reply());
                Response::Later
            }
            Ask::Fail(why) => return Err(why.into()),
            Ask::Panic(why) => panic!("{why}"),
            Ask::Refuse => Response::Error("no".to_owned()),
            Ask::StopNormally => {
                self.kept.extend(ctx.take_reply());
                ctx.stop(None);
                Response::Later
            }
            Ask::StopWith(why) => {
                self.kept.extend(ctx.take_reply());
                ctx.stop(Some(why));
                Response::Later
            }
            Ask::Pass(gate) => {
                gate.pass().await;
                Response::Reply(0)
            }
            Ask::Delegate(gate) => {
                let reply = ctx.take_reply();
                tokio::spawn(async move {
                    gate.pass().await;
                    reply.map(|reply| reply.ok(1))
                });
                Response::Later
            }
            Ask::Continue => {
                ctx.continue_with("continued");
                Response::Reply(0)
            }
            Ask::CallMyself => {
                let outcome = ctx.client(&ctx.myself()).call(Ask::Echo(1)).await;
                outcome.map_err(|error| error.to_string()).into()
            }
            Ask::Call(other, ask) => {
                let outcome = ctx.client(&other).call(*ask).await;
                outcome.map_err(|error| error.to_string()).into()
            }
            Ask::Request(other, ask) => {
                let asked = ctx.request(&other, *ask, |result| if result.is_ok() { "answered" } else { "refused" });
                asked.map(|()| 0).map_err(|error| error.to_string()).into()
            }
            Ask::After(delay) => {
                self.timer = Some(ctx.send_after(delay, "after")?);
                Response::Reply(0)
            }
            Ask::Every(period) => {
                self.timer = Some(ctx.every(period, || "tick")?);
                Response::Reply(0)
            }
            Ask::CancelTimer => {
                let was = self.timer.take().is_some_and(|timer| ctx.cancel(timer));
                Response::Reply(u32::from(was))
            }
            Ask::Deadline(mark) => {
                mark.note(ctx.deadline());
                Response::Reply(0)
            }
        })
    }

    async fn cast(&mut self, note: Note, _: &mut Context<Self>) -> Result<(), BoxError> {
        match note {
            Note::Say(what) => self.mark.note(what),
            Note::Wait(gate) => gate.pass().await,
            Note::AnswerKept(n) => self.kept.drain(..).for_each(|reply| {
                reply.ok(n);
            }),
        }
        Ok(())
    }

    async fn message(&mut self, message: &'static str, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.mark.note(message);
        if message == "fail" { Err("continuation failed".into()) } else { Ok(()) }
    }

    async fn idle(&mut self, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.mark.note("idle");
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.mark.note("stopped");
        Ok(())
    }

    fn method(ask: &Ask) -> &'static str {
        if let Ask::Echo(_) = ask { "echo" } else { "other" }
    }
}

pub(crate) type Started = StartedServer<ServerProtocol<Obeys>>;

pub(crate) fn obeys() -> (ServerBuilder<Obeys>, Probe<&'static str>) {
    let (mark, probe) = probe(64);
    (server::builder(Obeys::new(mark, None)), probe)
}

pub(crate) async fn started() -> (Started, Probe<&'static str>) {
    let (builder, probe) = obeys();
    (builder.start().await.unwrap(), probe)
}

/// The outcome of a call made in a task of its own.
pub(crate) fn spawn(server: &Started, ask: Ask) -> tokio::task::JoinHandle<Result<u32, CallError<String>>> {
    let client = server.client();
    tokio::spawn(async move { client.call(ask).await })
}

pub(crate) fn died(reason: ExitReason) -> Result<u32, CallError<String>> {
    Err(Died::Exit(reason).into())
}
