//! Every setting there is.

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its place in the TOML file; the flag and the variable are made from it.
    pub(crate) name: &'static str,
    /// The default, in the same notation as everywhere; empty for an empty list.
    pub(crate) default: &'static str,
    /// What to write there.
    pub(crate) value: &'static str,
    /// What it is.
    pub(crate) help: &'static str,
}

/// The environment variable of a setting is this, then its name in capitals with `_` for `.`.
pub(crate) const ENVIRONMENT_PREFIX: &str = "MESH_NODE_";

const fn key(name: &'static str, default: &'static str, value: &'static str, help: &'static str) -> Key {
    Key { name, default, value, help }
}

/// All settings, in the order in which `serve --help` shows them.
pub(crate) const KEYS: &[Key] = &[
    key("data", "", "FOLDER", "data folder: identity, allow-list, admin socket [default: ~/.local/state/mesh-node]"),
    key(
        "listen",
        "127.0.0.1:4433",
        "ADDRESS",
        "UDP address for clients and peers; of a name the first address that is free; port 0 takes a free port",
    ),
    key(
        "advertise",
        "",
        "ADDRESS",
        "where others should dial this node, if not where it listens; port 0 stands for the port it listens on",
    ),
    key("realm", "default", "NAME", "realm of this node; peers of another are refused"),
    key(
        "services",
        "echo,time,hash",
        "LIST",
        "built-in services to provide: echo, time, hash, and for trials sleep and crash",
    ),
    key("peers.seeds", "", "LIST", "nodes to connect to first: HOST:PORT or NODE_ID@HOST:PORT"),
    key("peers.max", "1000", "COUNT", "peer connections kept; the least recently used idle one is closed first"),
    key("peers.gossip_interval", "500ms", "TIME", "time between gossip rounds: at most 10min"),
    key("trust.open", "false", "BOOL", "accept every node that proves its key, without an allow-list"),
    key("trust.allow_list", "allowed-nodes", "FILE", "node ids, one a line; read again when it changes"),
    key("gateway.max_clients", "10000", "COUNT", "clients at once; one more is refused with `max_clients_reached`"),
    key("gateway.idle", "30s", "TIME", "how long a client without traffic is kept: at most 10min"),
    key("gateway.max_body", "1MiB", "BYTES", "largest body of a call: at most 16MiB"),
    key(
        "gateway.response_bytes",
        "64MiB",
        "BYTES",
        "responses that clients have not read yet, all together: from 4 times gateway.max_body to 1024GiB",
    ),
    key("gateway.half_open", "1024", "COUNT", "handshakes in progress at once; one more is refused"),
    key(
        "gateway.max_per_prefix",
        "",
        "COUNT",
        "clients at once of one address prefix (/24, /56); half of gateway.max_clients when not set",
    ),
    key("gateway.rate", "10000", "COUNT", "connections that may begin a second"),
    key("gateway.prefix_rate", "10000", "COUNT", "connections that may begin a second from one address prefix"),
    key(
        "gateway.requests_per_client",
        "64",
        "COUNT",
        "requests in flight of one client; one more is refused: at most 64, the streams of a connection",
    ),
    key("gateway.requests_per_prefix", "512", "COUNT", "requests in flight of all clients of one address prefix"),
    key("gateway.workers", "1024", "COUNT", "listings, publications and advertisements in progress at once"),
    key(
        "gateway.response_timeout",
        "10s",
        "TIME",
        "how long a client may take to read a response and acknowledge it: at most 10min",
    ),
    key(
        "gateway.path_changes",
        "60",
        "COUNT",
        "how often the address of one client may change in a minute; then its connection is closed",
    ),
    key("advertisements.max", "10000", "COUNT", "advertisements of all clients"),
    key(
        "advertisements.max_per_client",
        "1000",
        "COUNT",
        "advertisements of one client, and how many it may send at once",
    ),
    key("advertisements.rate", "10", "COUNT", "advertisements a second that one client may send after those"),
    key("advertisements.ttl", "300s", "TIME", "lease of an advertisement that asks for none: 1s to 300s"),
    key("advertisements.sweep", "60s", "TIME", "time between two sweeps of leases that ran out: at most 10min"),
    key("pubsub.max_subscribers", "10000", "COUNT", "subscriptions at once; one more is refused"),
    key("pubsub.max_filters", "10000", "COUNT", "different filters subscribed to at once"),
    key("pubsub.backlog", "1MiB", "BYTES", "what may wait for one subscriber before it is disconnected: at most 16MiB"),
    key(
        "pubsub.all_backlogs",
        "64MiB",
        "BYTES",
        "what may wait for all subscribers together: from pubsub.backlog to 1024GiB; beyond it the heaviest reader is disconnected",
    ),
    key(
        "pubsub.patience",
        "5s",
        "TIME",
        "how long half of pubsub.backlog may wait before the subscriber is disconnected: at most 10min",
    ),
    key("calls.max_in_flight", "1024", "COUNT", "calls in flight for each service; one more is refused"),
    key("calls.deadline", "5s", "TIME", "deadline of a call that names none: at most 60s"),
    key(
        "calls.choice",
        "better-of-two",
        "CHOICE",
        "which of several other providers is called: better-of-two, round-robin, or sticky (one for all calls of a connection)",
    ),
    key("directory.ttl", "300s", "TIME", "how long the services of a silent node are kept: 1s to 300s"),
    key(
        "memory.budget",
        "75%",
        "BYTES|PERCENT",
        "memory that all caps together must fit, of the cgroup's limit or the machine",
    ),
    key("stop.grace", "5s", "TIME", "how long a stopping node serves the requests it has: at most 10min"),
    key("events.max", "10000", "COUNT", "events kept; at the cap the oldest hundredth is dropped"),
    key("log.filter", "info", "FILTER", "what is logged, for instance plimsoll::mesh=debug"),
    key("log.json", "false", "BOOL", "log lines as JSON"),
];

impl Key {
    /// The setting of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The flag, without its dashes.
    pub(crate) fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.replace('.', "_").to_uppercase())
    }
}
