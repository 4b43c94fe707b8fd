//! A server that does what it is told, and what its tests share.

use std::time::Duration;

use plimsoll::call::{CallClient, CallError, Died, StartedServer};
use plimsoll::exit::ExitReason;
use plimsoll::server::{self, BoxError, Reply, Server, ServerBuilder, Serving, TimerKey, Turn};
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::{Mark, Probe, probe};
use tokio::time::Instant;

/// A server that does what it is told and notes what it did.
pub(crate) struct Obeys {
    mark: Mark<&'static str>,
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
    Call(CallClient<Serving<Obeys>>, Box<Ask>),
    Request(CallClient<Serving<Obeys>>, Box<Ask>),
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

impl Server for Obeys {
    type Args = (Mark<&'static str>, Option<&'static str>);
    type Call = Ask;
    type Reply = u32;
    type Error = String;
    type Cast = Note;
    type Message = &'static str;

    async fn init((mark, first): Self::Args, turn: &mut Turn<Self>) -> Result<Self, BoxError> {
        match first {
            Some("fail") => return Err("init failed".into()),
            Some(message) => turn.continue_with(message),
            None => {}
        }
        Ok(Self { mark, kept: Vec::new(), timer: None })
    }

    async fn call(&mut self, ask: Ask, reply: Reply<Self>, turn: &mut Turn<Self>) -> Result<(), BoxError> {
        match ask {
            Ask::Echo(n) => {
                reply.ok(n);
            }
            Ask::Forget => drop(reply),
            Ask::ForgetElsewhere(there, here) => {
                tokio::spawn(async move {
                    there.pass().await;
                    drop(reply);
                });
                here.pass().await;
            }
            Ask::ForgetThenPass(gate) => {
                drop(reply);
                gate.pass().await;
            }
            Ask::ForgetAndFail(why) => {
                drop(reply);
                return Err(why.into());
            }
            Ask::Keep => self.kept.push(reply),
            Ask::Fail(why) => return Err(why.into()),
            Ask::Panic(why) => panic!("{why}"),
            Ask::Refuse => {
                reply.err("no".to_owned());
            }
            Ask::StopNormally => {
                self.kept.push(reply);
                turn.stop(None);
            }
            Ask::StopWith(why) => {
                self.kept.push(reply);
                turn.stop(Some(why));
            }
            Ask::Pass(gate) => {
                gate.pass().await;
                reply.ok(0);
            }
            Ask::Delegate(gate) => {
                tokio::spawn(async move {
                    gate.pass().await;
                    reply.ok(1);
                });
            }
            Ask::Continue => {
                reply.ok(0);
                turn.continue_with("continued");
            }
            Ask::CallMyself => {
                let outcome = turn.client(&turn.myself()).call(Ask::Echo(1)).await;
                reply.send(outcome.map_err(|error| error.to_string()));
            }
            Ask::Call(other, ask) => {
                let outcome = turn.client(&other).call(*ask).await;
                reply.send(outcome.map_err(|error| error.to_string()));
            }
            Ask::Request(other, ask) => {
                let asked = turn.request(&other, *ask, |answer| if answer.is_ok() { "answered" } else { "refused" });
                reply.send(asked.map(|()| 0).map_err(|error| error.to_string()));
            }
            Ask::After(delay) => {
                self.timer = Some(turn.send_after(delay, "after")?);
                reply.ok(0);
            }
            Ask::Every(period) => {
                self.timer = Some(turn.every(period, || "tick")?);
                reply.ok(0);
            }
            Ask::CancelTimer => {
                let was = self.timer.take().is_some_and(|timer| turn.cancel(timer));
                reply.ok(u32::from(was));
            }
            Ask::Deadline(mark) => {
                mark.note(turn.deadline());
                reply.ok(0);
            }
        }
        Ok(())
    }

    async fn cast(&mut self, note: Note, _: &mut Turn<Self>) -> Result<(), BoxError> {
        match note {
            Note::Say(what) => self.mark.note(what),
            Note::Wait(gate) => gate.pass().await,
            Note::AnswerKept(n) => self.kept.drain(..).for_each(|reply| {
                reply.ok(n);
            }),
        }
        Ok(())
    }

    async fn message(&mut self, message: &'static str, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.mark.note(message);
        if message == "fail" { Err("continuation failed".into()) } else { Ok(()) }
    }

    async fn idle(&mut self, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.mark.note("idle");
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.mark.note("stopped");
        Ok(())
    }

    fn method(ask: &Ask) -> &'static str {
        if let Ask::Echo(_) = ask { "echo" } else { "other" }
    }
}

pub(crate) type Started = StartedServer<Serving<Obeys>>;

pub(crate) fn obeys() -> (ServerBuilder<Obeys>, Probe<&'static str>) {
    let (mark, probe) = probe(64);
    (server::builder((mark, None)), probe)
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
