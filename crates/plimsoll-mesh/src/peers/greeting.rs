//! The first exchange on a connection: each side says its realm, versions, life and listening address.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendStream};

use crate::names::NodeId;

use super::PeersConfig;
use super::book::Ended;
use super::frames::{self, ReceiveError};
use super::reason::{CloseReason, ended_by};
use super::wire::{self, Expected, Greeting, Kind};

/// The protocol versions spoken.
const OLDEST: u16 = 1;
const NEWEST: u16 = 1;

const EXPECTED: Expected = Expected { kind: Kind::Greeting, max_body: 0 };

/// A failed exchange: this node's reason, or how the connection ended under it.
#[derive(Debug)]
pub(crate) enum Failed {
    Ours(CloseReason),
    Ended(Ended),
}

/// The dialling side: greets and takes the answer.
pub(crate) async fn say(connection: &Connection, me: NodeId, config: &PeersConfig) -> Result<Greeting, Failed> {
    in_time(config.patience, async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(lost)?;
        write(&mut send, connection, config).await?;
        let frame = frames::receive(&mut recv, EXPECTED).await.map_err(|error| unread(connection, error))?;
        check(&frame.head, me, config)
    })
    .await
}

/// The accepting side: takes the greeting. The answer is sent by [`answer`], once the connection is judged.
pub(crate) async fn hear(
    connection: &Connection,
    me: NodeId,
    config: &PeersConfig,
) -> Result<(Greeting, SendStream), Failed> {
    in_time(config.patience, async {
        let (send, mut recv) = connection.accept_bi().await.map_err(lost)?;
        let frame = frames::receive(&mut recv, EXPECTED).await.map_err(|error| unread(connection, error))?;
        Ok((check(&frame.head, me, config)?, send))
    })
    .await
}

/// Answers a greeting.
pub(crate) async fn answer(mut send: SendStream, connection: &Connection, config: &PeersConfig) -> Result<(), Failed> {
    in_time(config.patience, write(&mut send, connection, config)).await
}

async fn write(send: &mut SendStream, connection: &Connection, config: &PeersConfig) -> Result<(), Failed> {
    let greeting = Greeting {
        realm: config.realm.clone(),
        oldest: OLDEST,
        newest: NEWEST,
        incarnation: config.incarnation,
        listens: config.listens,
    };
    let frame = wire::encode(Kind::Greeting, &greeting, 0).map_err(|error| no_greeting(error.to_string()))?;
    let sent = frames::send(send, frame, Bytes::new()).await;
    sent.map_err(|error| match connection.close_reason() {
        Some(closed) => Failed::Ended(ended_by(&closed)),
        None => no_greeting(error.to_string()),
    })
}

fn check(head: &[u8], me: NodeId, config: &PeersConfig) -> Result<Greeting, Failed> {
    let greeting = Greeting::decode(head).map_err(|error| no_greeting(error.to_string()))?;
    if greeting.newest < OLDEST || greeting.oldest > NEWEST {
        return Err(Failed::Ours(CloseReason::Version { oldest: OLDEST, newest: NEWEST, me }));
    }
    if greeting.realm != config.realm {
        let (theirs, mine) = (greeting.realm, config.realm.clone());
        return Err(Failed::Ours(CloseReason::Realm { theirs, mine, me }));
    }
    Ok(greeting)
}

/// Where a peer can be dialled: what it said, with the address it was seen at when it listens on all of its own.
pub(crate) fn reachable(listens: Option<SocketAddr>, seen: SocketAddr) -> Option<SocketAddr> {
    let listens = listens.filter(|address| address.port() != 0)?;
    Some(if listens.ip().is_unspecified() { SocketAddr::new(seen.ip(), listens.port()) } else { listens })
}

async fn in_time<T>(patience: Duration, exchange: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let late = |_| Err(no_greeting(format!("nothing in {patience:?}")));
    tokio::time::timeout(patience, exchange).await.unwrap_or_else(late)
}

fn lost(error: ConnectionError) -> Failed {
    Failed::Ended(ended_by(&error))
}

fn unread(connection: &Connection, error: ReceiveError) -> Failed {
    match (connection.close_reason(), error) {
        (Some(closed), _) => lost(closed),
        (None, error) => no_greeting(error.to_string()),
    }
}

fn no_greeting(why: String) -> Failed {
    Failed::Ours(CloseReason::NoGreeting { why })
}
