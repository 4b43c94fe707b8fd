//! Running the gossip engine, and reading it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use plimsoll::supervisor::BoxError;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::names::NodeId;
use crate::peers::{Peers, Poison};
use crate::services::ServiceTable;

use super::address::address_of;
use super::publisher::Publisher;
use super::record_table::{EngineEntry, RecordTable};
use super::signed_record::Origin;
use super::transport::GossipTransport;
use super::validate::{EngineSummary, Incarnation};
use super::view::Member;
use super::withdrawal;
use super::{INBOX, Inner, count};

/// How long nodes that are gone, and keys that were deleted, are remembered.
const GRACE: Duration = Duration::from_secs(300);

/// Rounds in which heartbeats of a node that is dead still go round, and in which the failure detector gives up on it.
const PROOF_ROUNDS: u32 = 20;

/// Runs the engine until `stop`. An engine that fails is an error, and its supervisor starts it again; the sender of its last
/// message is expelled first.
pub(super) async fn run(
    inner: Arc<Inner>,
    peers: Peers,
    services: ServiceTable,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let (me, config) = (inner.identity.node_id(), &inner.config);
    let generations = config.generations.clone();
    // It is stored on disk.
    let generation = tokio::task::spawn_blocking(move || generations.next()).await??;
    let (sender, inbox) = mpsc::channel(INBOX);
    *inner.known.write() = EngineSummary { me: Some((me, generation)), lives: HashMap::new() };
    inner.last_from.lock().take();
    inner.inbox.store(Some(Arc::new(sender)));

    let origin = Origin { realm: &config.realm, node: me, generation };
    let mut publisher = Publisher::new(&inner.identity, origin, config.ttl(), Instant::now());
    let first = publisher.introduce(config.listens)?;
    let transport = GossipTransport::new(Arc::clone(&inner), peers.clone(), inbox);
    let engine = Engine(spawn_chitchat(engine_config(&inner, generation), first, &transport).await.map_err(boxed)?);
    let mut ended = std::pin::pin!(engine.0.termination_watcher());
    // An engine that starts knows none of the connected nodes.
    let connected: Vec<NodeId> = inner.reachable.read().values().copied().collect();
    gossip_now(&engine.0, connected);

    let mut records = RecordTable::new(me, config.realm.clone(), PROOF_ROUNDS * config.gossip_interval);
    let mut versions = BTreeMap::new();
    let mut offers = services.changes();
    offers.mark_changed();
    let mut checks = tokio::time::interval(config.gossip_interval.min(Duration::from_millis(500)) / 2);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut leaving, mut rounds) = (false, tokio::time::interval(withdrawal::ROUND));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = &mut ended => return Err(engine_failed(&inner, &peers, ended)),
            () = inner.arrival.notified() => gossip_now(&engine.0, std::mem::take(&mut *inner.arrived.lock())),
            _ = offers.changed() => {
                let offered = services.list();
                engine.0.with_chitchat(|chitchat| publisher.offer(chitchat.self_node_state(), &offered)).await?;
            }
            () = inner.withdrawal.requested(), if !leaving => {
                leaving = true;
                let version = engine.0.with_chitchat(|chitchat| publisher.withdraw(chitchat.self_node_state())).await?;
                inner.withdrawal.publish(version);
                rounds.reset_immediately();
            }
            _ = rounds.tick(), if leaving => {
                let waiting = inner.withdrawal.unacknowledged(inner.reachable.read().values());
                gossip_now(&engine.0, waiting);
            }
            _ = checks.tick() => {
                let now = Instant::now();
                engine.0.with_chitchat(|chitchat| publisher.renew(chitchat.self_node_state(), now)).await?;
                let (seen, known) =
                    engine.0.with_chitchat(|chitchat| read(chitchat, (me, generation), &mut versions, &inner)).await;
                *inner.known.write() = known;
                // Signatures take their time: not in a thread that serves connections.
                records = tokio::task::spawn_blocking(move || {
                    records.update(seen, now);
                    records
                })
                .await?;
                show(&inner, &peers, &records, now);
            }
        }
    }
}

/// Publishes what is known now: to the router and the operator as a view, to the peers as the members to dial.
fn show(inner: &Inner, peers: &Peers, records: &RecordTable, now: Instant) {
    inner.counters.invalid_records.store(records.invalid_records(), Ordering::Relaxed);
    let view = records.view(now, |node| inner.trust.allows(node));
    if view == **inner.view.load() {
        return;
    }
    // The address of a node that listens on all addresses is known once it is connected.
    let dialable = |member: &Member| Some((member.node, member.address.filter(|it| !it.ip().is_unspecified())?));
    let members: Vec<(NodeId, SocketAddr)> = view.members.iter().filter_map(dialable).collect();
    inner.view.store(Arc::new(view));
    peers.set_members(&members);
}

/// What the engine holds; values only of incarnations that have changed.
fn read(
    chitchat: &mut Chitchat,
    me: Incarnation,
    versions: &mut BTreeMap<Incarnation, u64>,
    inner: &Inner,
) -> (Vec<EngineEntry>, EngineSummary) {
    let beating: HashSet<ChitchatId> = chitchat.live_nodes().cloned().collect();
    let connected: HashSet<NodeId> = inner.reachable.read().values().copied().collect();
    let (mut seen, mut lives) = (Vec::new(), HashMap::new());
    for (id, state) in chitchat.node_states() {
        let Ok(node) = id.node_id.parse::<NodeId>() else { continue };
        let life = (node, id.generation_id);
        lives.insert(life, state.key_values_including_deleted().count());
        let changed = versions.insert(life, state.max_version()) != Some(state.max_version());
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let values = changed.then(|| state.key_values().map(owned).collect());
        let (connected, beating) = (connected.contains(&node), beating.contains(id));
        seen.push(EngineEntry { life, connected, beating, values });
    }
    versions.retain(|life, _| lives.contains_key(life));
    (seen, EngineSummary { me: Some(me), lives })
}

/// Has the engine gossip with these nodes at once. It knows them by address.
fn gossip_now(engine: &ChitchatHandle, nodes: Vec<NodeId>) {
    for node in nodes {
        // It fails only when the engine has ended, which is noticed by itself.
        let _ = engine.gossip(address_of(&node));
    }
}

fn engine_failed(inner: &Inner, peers: &Peers, ended: anyhow::Result<()>) -> BoxError {
    count(&inner.counters.restarts);
    let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
    let culprit = inner.last_from.lock().take();
    warn!(target: "plimsoll::mesh", why, peer = ?culprit, "the gossip engine failed");
    if let Some(node) = culprit {
        peers.expel(node, &Poison("the gossip engine failed at its message".to_owned()));
    }
    format!("the gossip engine failed: {why}").into()
}

fn engine_config(inner: &Inner, generation: u64) -> ChitchatConfig {
    let (me, config) = (inner.identity.node_id(), &inner.config);
    let address = address_of(&me);
    ChitchatConfig {
        chitchat_id: ChitchatId::new(me.to_string(), generation, address),
        cluster_id: format!("plimsoll/1/{}", config.realm),
        gossip_interval: config.gossip_interval,
        listen_addr: address,
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            // The default of 5 s would keep a node that is killed early alive for half a minute.
            initial_interval: config.gossip_interval,
            dead_node_grace_period: GRACE,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

fn boxed(error: anyhow::Error) -> BoxError {
    error.into()
}

/// The engine's task ends with this.
struct Engine(ChitchatHandle);

impl Drop for Engine {
    fn drop(&mut self) {
        self.0.abort();
    }
}
