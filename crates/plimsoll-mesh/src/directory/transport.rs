//! The gossip engine's transport: its messages go over the connections of the peers, or nowhere.

use std::net::SocketAddr;
use std::sync::Arc;

use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Serializable as _};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::names::NodeId;
use crate::peers::Peers;

use super::Inner;
use super::address::address_of;

type Inbox = mpsc::Receiver<(NodeId, ChitchatMessage)>;

/// Hands its inbox to the engine, once.
pub(super) struct GossipTransport {
    inner: Arc<Inner>,
    peers: Peers,
    inbox: Mutex<Option<Inbox>>,
}

impl GossipTransport {
    pub(super) fn new(inner: Arc<Inner>, peers: Peers, inbox: Inbox) -> Self {
        Self { inner, peers, inbox: Mutex::new(Some(inbox)) }
    }
}

// The engine's traits are made for the `async_trait` crate; these signatures are what it expands to.
impl Transport for GossipTransport {
    fn open<'a, 't>(&'a self, _: SocketAddr) -> BoxFuture<'t, anyhow::Result<Box<dyn Socket>>>
    where
        'a: 't,
        Self: 't,
    {
        Box::pin(async move {
            let inbox = self.inbox.lock().take().ok_or_else(|| anyhow::anyhow!("the inbox is in use"))?;
            let (inner, peers) = (Arc::clone(&self.inner), self.peers.clone());
            Ok(Box::new(GossipSocket { inner, peers, inbox }) as Box<dyn Socket>)
        })
    }
}

struct GossipSocket {
    inner: Arc<Inner>,
    peers: Peers,
    inbox: Inbox,
}

impl Socket for GossipSocket {
    /// Never blocks and never fails: what cannot be sent is made good by the next round.
    fn send<'a, 't>(&'a mut self, to: SocketAddr, message: ChitchatMessage) -> BoxFuture<'t, anyhow::Result<()>>
    where
        'a: 't,
        Self: 't,
    {
        Box::pin(async move {
            let node = self.inner.reachable.read().get(&to).copied();
            if let Some(node) = node {
                self.peers.gossip(&node, message.serialize_to_vec().into());
            }
            Ok(())
        })
    }

    /// Cancel safe. Never fails: an error would end the engine.
    fn recv<'a, 't>(&'a mut self) -> BoxFuture<'t, anyhow::Result<(SocketAddr, ChitchatMessage)>>
    where
        'a: 't,
        Self: 't,
    {
        Box::pin(async move {
            match self.inbox.recv().await {
                Some((from, message)) => {
                    *self.inner.last_from.lock() = Some(from);
                    Ok((address_of(&from), message))
                }
                // A later life of the engine has its own inbox; this one is about to be stopped.
                None => std::future::pending().await,
            }
        })
    }
}
