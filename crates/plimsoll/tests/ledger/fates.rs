//! What may become of a call on the server's side: a service and a server that share the choice.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::call::{CallContext, Service};
use plimsoll::server::{BoxError, Context, GenServer, Response};
use plimsoll_testkit::ledger::Ledger;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Reply,
    Error,
    Panic,
    Sleep(Duration),
    Never,
    /// A worker kills itself; a server forgets the call.
    Lost,
    /// A server answers from another task.
    Elsewhere(Duration),
}

impl Fate {
    pub fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..100) {
            0..55 => Self::Reply,
            55..65 => Self::Error,
            65..69 => Self::Panic,
            69..85 => Self::Sleep(Duration::from_micros(random.random_range(0..9_000))),
            85..88 => Self::Never,
            88..92 => Self::Lost,
            _ => Self::Elsewhere(Duration::from_micros(random.random_range(0..9_000))),
        }
    }
}

pub type Ask = (usize, Fate);

#[derive(Clone)]
pub struct Worked(pub Arc<Ledger>);

impl Service for Worked {
    type Request = Ask;
    type Reply = usize;
    type Error = ();

    async fn call(&self, ctx: CallContext, (id, fate): Ask) -> Result<usize, ()> {
        self.0.ran(id);
        match fate {
            Fate::Reply => {}
            Fate::Error => return Err(()),
            Fate::Panic => panic!("fate"),
            Fate::Sleep(time) | Fate::Elsewhere(time) => sleep(time).await,
            Fate::Never => pending().await,
            Fate::Lost => {
                if let Some(worker) = ctx.worker() {
                    worker.kill();
                    pending().await
                }
                return Err(());
            }
        }
        Ok(id)
    }
}

pub struct Served(pub Arc<Ledger>);

impl GenServer for Served {
    type Call = Ask;
    type Reply = usize;
    type Error = ();
    type Cast = ();
    type Message = ();

    async fn call(&mut self, (id, fate): Ask, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        self.0.ran(id);
        Ok(match fate {
            Fate::Reply => Response::Reply(id),
            Fate::Error => Response::Error(()),
            // A server that panicked as often as a worker would do little else.
            Fate::Panic if id.is_multiple_of(8) => panic!("fate"),
            Fate::Panic | Fate::Lost => Response::Later,
            Fate::Never => {
                drop(ctx.take_reply());
                Response::Later
            }
            Fate::Sleep(time) => {
                sleep(time / 16).await;
                Response::Reply(id)
            }
            Fate::Elsewhere(time) => {
                let reply = ctx.take_reply();
                tokio::spawn(async move {
                    sleep(time).await;
                    reply.map(|reply| reply.ok(id))
                });
                Response::Later
            }
        })
    }
}
