//! From settings to the configuration of a node.

use plimsoll_mesh::node::{NodeConfig, Trusted};

use super::{Budget, Settings, SettingsError};

impl Settings {
    /// The configuration of the node.
    ///
    /// # Errors
    /// `memory.budget` is a share, and the system does not report how much memory there is.
    pub(crate) fn node_config(&self) -> Result<NodeConfig, SettingsError> {
        let mut config = NodeConfig::new(self.data.clone(), self.listen);
        config.advertise = self.advertise;
        config.realm = self.realm.clone();
        config.trusted = if self.open { Trusted::Open } else { Trusted::Listed(self.allow_list.clone()) };
        config.seeds = self.seeds.clone();
        config.max_peers = self.max_peers;
        config.max_events = self.max_events;
        config.gossip_interval = self.gossip_interval;
        config.service_ttl = self.service_ttl;
        config.choice = self.choice;
        config.grace = self.stop_grace;
        config.gateway.clients = self.max_clients;
        config.gateway.idle_timeout = self.client_idle;
        config.gateway.body_bytes = self.max_body;
        config.gateway.all_responses_bytes = self.answer_bytes;
        config.gateway.deadline = self.call_deadline;
        config.gateway.admission = self.admission;
        config.gateway.advertisements = self.advertisements.clone();
        config.gateway.pubsub = self.pubsub;
        config.memory_budget = match self.budget {
            Budget::Bytes(bytes) => bytes,
            Budget::Percent(percent) => {
                let (all, _) = plimsoll_mesh::node::memory().ok_or(SettingsError::MemoryUnknown)?;
                all / 100 * u64::from(percent)
            }
        };
        Ok(config)
    }
}
