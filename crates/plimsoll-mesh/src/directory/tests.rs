use std::time::Duration;

use futures::future::BoxFuture;

use super::test_messages::MessageBuilder;
use super::*;
use crate::peers::{PeerState, PeersConfig};
use crate::problem::{Code, Problem};
use crate::service::{Refusal, Request, Response, ServePeer};

type TestResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

struct Nothing;

impl ServePeer for Nothing {
    fn serve(&self, _: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        Box::pin(async { Err(Refusal::never_ran(Problem::new(Code::NoProvider, "nothing here"))) })
    }
}

/// The guard's backstop: should a message break the engine all the same, its sender is expelled and the engine runs
/// again, in a later life.
#[tokio::test]
async fn an_engine_that_fails_runs_again_without_the_peer_that_broke_it() -> TestResult {
    let identity = Identity::generate()?;
    let mut config = DirectoryConfig::new("default");
    config.gossip_interval = Duration::from_millis(50);
    // The last incarnation had a later clock.
    let folder = tempfile::tempdir()?;
    let last = 1 << 50;
    std::fs::write(folder.path().join(crate::identity::GENERATION_FILE), format!("{last}"))?;
    config.generations = crate::identity::Generations::in_folder(folder.path())?;
    let directory = GossipDirectory::new(identity.clone(), TrustStore::open(), config);
    let endpoint = quinn::Endpoint::client((std::net::Ipv4Addr::LOCALHOST, 0).into())?;
    let (serve, gossip) = (Arc::new(Nothing), Arc::new(directory.clone()));
    let peers = Peers::new(identity, TrustStore::open(), endpoint, PeersConfig::new("default"), serve, gossip)?;
    let tree = directory.supervisor(&peers, &ServiceTable::new()).start().await?;
    // A task child runs some time after its supervisor's start.
    let engine = async {
        loop {
            match directory.0.inbox.load_full() {
                Some(inbox) => return inbox,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let inbox = tokio::time::timeout(Duration::from_secs(10), engine).await?;
    let generation = || directory.0.known.read().me.map(|(_, generation)| generation);
    let until = async |holds: &dyn Fn() -> bool| {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Its task has begun when its supervisor has started, and no more.
    tokio::time::timeout(Duration::from_secs(10), until(&|| directory.0.inbox.load().is_some())).await?;
    let first = generation();
    assert_eq!(first, Some(last + 1));

    let attacker = NodeId::from_digest([2; 32]);
    let digest = MessageBuilder::header(0).bytes(&1u16.to_le_bytes()).life(2, 1).u64(3).u64(0).u64(0);
    let syn = digest.text("plimsoll/1/default").0;
    let ack = MessageBuilder::default().node(2).key("\u{e9}", "1", 1).ack();
    // Past the guard, which takes the first and refuses the second.
    assert!(directory.deliver(attacker, syn.into()).is_ok());
    assert!(directory.deliver(attacker, ack.clone().into()).is_err());
    let poison = ChitchatMessage::deserialize(&mut &ack[..])?;
    inbox.send((attacker, poison)).await?;

    tokio::time::timeout(Duration::from_secs(10), until(&|| generation() != first)).await?;
    assert_eq!(generation(), Some(last + 2));
    assert_eq!(directory.0.counters.restarts.load(Ordering::Relaxed), 1);
    let expelled = peers.list().into_iter().find(|peer| peer.node == attacker).ok_or("not named")?;
    assert_eq!(expelled.state, PeerState::Refused);
    tree.stop().await.unwrap();
    Ok(())
}
