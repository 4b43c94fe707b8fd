//! From settings to the configuration of a node.

use std::net::{SocketAddr, UdpSocket};

use plimsoll_mesh::node::{NodeConfig, Trusted};

use super::{Budget, Settings, SettingsError};

impl Settings {
    /// The configuration of the node, which listens on the first of the addresses that is free.
    ///
    /// # Errors
    /// `memory.budget` is a share, and the system does not report how much memory there is.
    pub(crate) fn node_config(&self) -> Result<NodeConfig, SettingsError> {
        let mut config = NodeConfig::new(self.data.clone(), free(&self.listen));
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
        config.gateway.all_responses_bytes = self.response_bytes;
        config.gateway.response_timeout = self.response_timeout;
        config.gateway.requests_per_client = self.requests_per_client;
        config.gateway.requests_per_origin = self.requests_per_prefix;
        config.gateway.workers = self.workers;
        config.gateway.path_changes_per_minute = self.path_changes;
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

/// The first of these addresses, of which there is at least one, that a socket can be bound to; if none can, the first one,
/// whose error the node then reports.
fn free(addresses: &[SocketAddr]) -> SocketAddr {
    addresses.iter().copied().find(|address| UdpSocket::bind(address).is_ok()).unwrap_or(addresses[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_listens_on_the_first_address_that_is_free() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (occupied, free_one) = (taken.local_addr().unwrap(), "127.0.0.1:0".parse().unwrap());
        // An address for documentation: no interface has it.
        let foreign = "192.0.2.1:0".parse().unwrap();
        assert_eq!(free(&[occupied, foreign, free_one]), free_one);
        assert_eq!(free(&[foreign, occupied]), foreign, "none is free");
        assert_eq!(free(&[free_one, occupied]), free_one);
        drop(taken);
    }
}
