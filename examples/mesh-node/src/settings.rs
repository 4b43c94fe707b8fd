//! The settings of a node: defaults, a TOML file, the environment, flags; the later source takes precedence.
//!
//! Every setting is a row of [`KEYS`]. Each source is read into text with its origin, so that a bad value is reported with the
//! file and line, the variable or the flag that it came from.

mod keys;
mod layers;
mod node;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll::bounded::{Cap, Rate};
use plimsoll_mesh::gateway::{AdmissionLimits, AdvertisementLimits};
use plimsoll_mesh::names::ServiceName;
use plimsoll_mesh::peers::Seed;
use plimsoll_mesh::pubsub::PubsubCaps;
use plimsoll_mesh::rpc::ProviderChoice;

pub(crate) use keys::{ENVIRONMENT_PREFIX, KEYS, Key};
pub(crate) use layers::{Layers, SettingsError};
pub(crate) use values::Budget;

use crate::services::Builtin;

/// The settings of a node, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    /// The addresses that `listen` names, of which the first free one is taken.
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) realm: ServiceName,
    pub(crate) services: Vec<Builtin>,
    pub(crate) seeds: Vec<Seed>,
    pub(crate) max_peers: Cap,
    pub(crate) max_events: Cap,
    pub(crate) gossip_interval: Duration,
    pub(crate) open: bool,
    pub(crate) allow_list: PathBuf,
    pub(crate) max_clients: usize,
    pub(crate) client_idle: Duration,
    pub(crate) max_body: usize,
    pub(crate) response_bytes: usize,
    pub(crate) response_timeout: Duration,
    pub(crate) requests_per_client: u32,
    pub(crate) requests_per_prefix: u32,
    pub(crate) workers: u32,
    pub(crate) path_changes: u32,
    pub(crate) admission: AdmissionLimits,
    pub(crate) advertisements: AdvertisementLimits,
    pub(crate) pubsub: PubsubCaps,
    pub(crate) max_in_flight: u32,
    pub(crate) call_deadline: Duration,
    pub(crate) choice: ProviderChoice,
    pub(crate) service_ttl: Duration,
    pub(crate) budget: Budget,
    pub(crate) stop_grace: Duration,
    pub(crate) log: String,
    pub(crate) log_json: bool,
}

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    /// [`SettingsError`] with the origin of the first value that is not valid.
    pub(crate) fn from_layers(layers: &Layers) -> Result<Self, SettingsError> {
        let data: PathBuf = layers.data()?;
        let max_body = layers.value("gateway.max_body", values::body)?;
        Ok(Self {
            listen: layers.value("listen", values::addresses)?,
            advertise: layers.value("advertise", values::advertised)?,
            realm: layers.value("realm", values::name)?,
            services: layers.distinct("services", values::builtin)?,
            seeds: layers.list("peers.seeds", values::seed)?,
            max_peers: layers.value("peers.max", values::entries)?,
            max_events: layers.value("events.max", values::entries)?,
            gossip_interval: layers.value("peers.gossip_interval", values::duration)?,
            open: layers.value("trust.open", values::flag)?,
            allow_list: data.join(layers.path("trust.allow_list")?),
            max_clients: layers.value("gateway.max_clients", values::cap)?,
            client_idle: layers.value("gateway.idle", values::duration)?,
            max_body,
            response_bytes: layers.value("gateway.response_bytes", |value| values::responses(value, max_body))?,
            response_timeout: layers.value("gateway.response_timeout", values::duration)?,
            requests_per_client: layers.value("gateway.requests_per_client", values::requests_per_client)?,
            requests_per_prefix: layers.value("gateway.requests_per_prefix", values::small_cap)?,
            workers: layers.value("gateway.workers", values::small_cap)?,
            path_changes: layers.value("gateway.path_changes", values::small_cap)?,
            admission: admission(layers)?,
            advertisements: advertisements(layers)?,
            pubsub: pubsub(layers)?,
            max_in_flight: layers.value("calls.max_in_flight", values::small_cap)?,
            call_deadline: layers.value("calls.deadline", values::deadline)?,
            choice: layers.value("calls.choice", values::choice)?,
            service_ttl: layers.value("directory.ttl", values::lease)?,
            budget: layers.value("memory.budget", values::budget)?,
            stop_grace: layers.value("stop.grace", values::duration)?,
            log: layers.value("log.filter", values::text)?,
            log_json: layers.value("log.json", values::flag)?,
            data,
        })
    }
}

fn admission(layers: &Layers) -> Result<AdmissionLimits, SettingsError> {
    Ok(AdmissionLimits {
        per_origin: layers.value("gateway.max_per_prefix", values::entries_if_any)?,
        half_open: layers.value("gateway.half_open", values::entries)?,
        rate: layers.value("gateway.rate", values::rate)?,
        origin_rate: layers.value("gateway.prefix_rate", values::rate)?,
    })
}

fn advertisements(layers: &Layers) -> Result<AdvertisementLimits, SettingsError> {
    let per_client = layers.value("advertisements.max_per_client", values::entries)?;
    Ok(AdvertisementLimits {
        total: layers.value("advertisements.max", values::entries)?,
        per_client,
        rate: Rate { per_second: layers.value("advertisements.rate", values::entries)?, burst: per_client },
        ttl: layers.value("advertisements.ttl", values::lease)?,
        sweep: layers.value("advertisements.sweep", values::duration)?,
        ..AdvertisementLimits::default()
    })
}

fn pubsub(layers: &Layers) -> Result<PubsubCaps, SettingsError> {
    let backlog = layers.value("pubsub.backlog", values::backlog)?;
    Ok(PubsubCaps {
        filters: layers.value("pubsub.max_filters", values::entries)?,
        subscribers: layers.value("pubsub.max_subscribers", values::entries)?,
        backlog,
        all_backlogs: layers.value("pubsub.all_backlogs", |value| values::all_backlogs(value, backlog))?,
        patience: layers.value("pubsub.patience", values::duration)?,
    })
}

#[cfg(test)]
mod tests;
