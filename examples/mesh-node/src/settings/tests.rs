use std::io::Write;

use plimsoll_mesh::node::{NodeConfig, Trusted};
use plimsoll_mesh::rpc::ProviderChoice;

use super::*;

fn refused(layers: Result<Layers, SettingsError>) -> String {
    layers.and_then(|layers| Settings::from_layers(&layers)).unwrap_err().to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn flag(layers: Layers, name: &str, value: &str) -> Layers {
    layers.flag(Key::named(name).unwrap(), value.as_ref())
}

#[test]
fn the_defaults_are_good() {
    let settings = Settings::from_layers(&Layers::default()).unwrap();
    assert_eq!(settings.max_clients, 10_000);
    assert_eq!(settings.max_peers.get(), 1_000);
    assert_eq!(settings.call_deadline, Duration::from_secs(5));
    assert_eq!(settings.budget, Budget::Percent(75));
    assert_eq!(settings.services.len(), 3);
    assert!(!settings.open);
    // What the program starts with is what the library starts with.
    let limits = plimsoll_mesh::gateway::Limits::default();
    assert_eq!((settings.admission, settings.pubsub), (limits.admission, limits.pubsub));
    assert_eq!(settings.advertisements, limits.advertisements);
    let requests = (settings.requests_per_client, settings.requests_per_prefix, settings.workers);
    assert_eq!(requests, (limits.requests_per_client, limits.requests_per_origin, limits.workers));
    let times = (settings.response_timeout, settings.client_idle, settings.call_deadline);
    assert_eq!(times, (limits.response_timeout, limits.idle_timeout, limits.deadline));
    assert_eq!((settings.path_changes, settings.max_clients), (limits.path_changes_per_minute, limits.clients));
    assert_eq!((settings.max_body, settings.response_bytes), (limits.body_bytes, limits.all_responses_bytes));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file =
        file("realm = \"file\"\n[gateway]\nmax_clients = 1_000\nmax_body = \"2 MiB\"\n[calls]\nmax_in_flight = 7\n");
    let variables = [("MESH_NODE_GATEWAY_MAX_CLIENTS", "200"), ("MESH_NODE_REALM", "environment"), ("HOME", "/")];
    let layers = Layers::default().file(file.path()).unwrap();
    let layers = layers.environment(variables.map(|(name, value)| (name.into(), value.into()))).unwrap();
    let settings = Settings::from_layers(&flag(layers, "realm", "flag")).unwrap();
    assert_eq!(settings.realm.as_str(), "flag");
    assert_eq!(settings.max_clients, 200);
    assert_eq!(settings.max_body, 2 << 20);
    assert_eq!(settings.max_in_flight, 7);
}

#[test]
fn an_unknown_key_is_refused_with_file_and_line() {
    let file = file("listen = \"127.0.0.1:0\"\n\n[gateway]\nmax_client = 3\n");
    let message = refused(Layers::default().file(file.path()));
    assert_eq!(message, format!("there is no setting \"gateway.max_client\" ({}, line 4)", file.path().display()));
    let message = refused(Layers::default().environment([("MESH_NODE_MAX_CLIENTS".into(), "3".into())]));
    assert!(message.contains("environment variable MESH_NODE_MAX_CLIENTS"), "{message}");
    assert!(message.ends_with("did you mean gateway.max_clients?"), "{message}");
}

/// F-1: "unlimited" is not a value, whatever the source and whichever the cap.
#[test]
fn zero_and_unlimited_caps_are_refused() {
    for name in [
        "gateway.max_clients",
        "gateway.half_open",
        "gateway.max_per_prefix",
        "gateway.rate",
        "gateway.prefix_rate",
        "advertisements.max",
        "advertisements.max_per_client",
        "advertisements.rate",
        "pubsub.max_subscribers",
        "pubsub.max_filters",
        "pubsub.backlog",
        "pubsub.all_backlogs",
        "gateway.requests_per_client",
        "gateway.requests_per_prefix",
        "gateway.workers",
        "gateway.path_changes",
        "peers.max",
        "events.max",
        "calls.max_in_flight",
        "gateway.max_body",
        "gateway.response_bytes",
        "memory.budget",
    ] {
        for value in ["0", "unlimited", "-1", "", "inf"] {
            // Without a cap of its own a prefix has that of all clients.
            if (name, value) == ("gateway.max_per_prefix", "") {
                continue;
            }
            let message = refused(Ok(flag(Layers::default(), name, value)));
            assert!(message.starts_with(&format!("{name} = {value:?} (flag --")), "{message}");
        }
    }
    for name in [
        "calls.deadline",
        "peers.gossip_interval",
        "directory.ttl",
        "advertisements.ttl",
        "advertisements.sweep",
        "pubsub.patience",
        "gateway.response_timeout",
        "gateway.idle",
        "stop.grace",
    ] {
        for value in ["0s", "never", "5", "5 h"] {
            let message = refused(Ok(flag(Layers::default(), name, value)));
            assert!(message.contains("nothing here waits for ever"), "{message}");
        }
    }
    let file = file("[gateway]\nmax_clients = 0\n");
    let message = refused(Layers::default().file(file.path()));
    assert!(message.contains("line 2") && message.contains("nothing here is unlimited"), "{message}");
}

/// Every time and every body has an upper end, and a refusal names the setting and that end.
#[test]
fn what_is_too_long_or_too_large_is_refused_by_name() {
    let cases = [
        ("gateway.idle", "10min", ["601s", "99999999min"], "at most 10min"),
        ("peers.gossip_interval", "10min", ["600001ms", "99999999min"], "at most 10min"),
        ("calls.deadline", "60s", ["61s", "10min"], "at most 60s"),
        ("advertisements.ttl", "300s", ["301s", "10min"], "from 1s to 300s is needed"),
        ("advertisements.sweep", "10min", ["601s", "99999999min"], "at most 10min"),
        ("pubsub.patience", "10min", ["601s", "99999999min"], "at most 10min"),
        ("pubsub.backlog", "16MiB", ["16777217B", "100GiB"], "at most 16MiB"),
        ("pubsub.all_backlogs", "1024GiB", ["1099511627777", "1025GiB"], "largest is 1099511627776"),
        ("gateway.response_timeout", "10min", ["601s", "99999999min"], "at most 10min"),
        ("gateway.requests_per_client", "64", ["65", "1000"], "at most 64"),
        ("gateway.requests_per_prefix", "4294967295", ["4294967296", "9999999999"], "at most 4294967295"),
        ("pubsub.max_subscribers", "1000000000", ["1000000001", "4294967296"], "largest is 1000000000"),
        ("advertisements.max", "1000000000", ["1000000001", "4294967296"], "largest is 1000000000"),
        ("gateway.rate", "1000000000", ["1000000001", "4294967296"], "largest is 1000000000"),
        ("peers.max", "1000000000", ["1000000001", "4294967296"], "largest is 1000000000"),
        ("gateway.max_body", "16MiB", ["16777217B", "100GiB"], "at most 16MiB"),
        ("gateway.response_bytes", "1024GiB", ["1099511627777", "1025GiB"], "largest is 1099511627776"),
    ];
    for (name, largest, refusals, end) in cases {
        Settings::from_layers(&flag(Layers::default(), name, largest)).unwrap();
        for value in refusals {
            let message = refused(Ok(flag(Layers::default(), name, value)));
            assert!(message.starts_with(&format!("{name} = {value:?} (flag --")), "{message}");
            assert!(message.ends_with(end), "{message}");
        }
    }
}

/// A message larger than all backlogs could never be published.
#[test]
fn all_backlogs_take_a_whole_one() {
    let with = |one, all| flag(flag(Layers::default(), "pubsub.backlog", one), "pubsub.all_backlogs", all);
    assert_eq!(Settings::from_layers(&with("2MiB", "2MiB")).unwrap().pubsub.all_backlogs.get(), 2 << 20);
    let message = refused(Ok(with("2MiB", "2097151")));
    assert!(message.ends_with("at least pubsub.backlog, 2097152 bytes, is needed"), "{message}");
}

/// A response that no client may hold could never be sent: the node does not start, in place of refusing each call.
#[test]
fn a_quarter_of_all_responses_takes_a_whole_body() {
    let with = |body, responses| {
        let layers = flag(Layers::default(), "gateway.max_body", body);
        flag(layers, "gateway.response_bytes", responses)
    };
    assert_eq!(Settings::from_layers(&with("2MiB", "8MiB")).unwrap().response_bytes, 8 << 20);
    let message = refused(Ok(with("2MiB", "8388607")));
    assert!(message.starts_with("gateway.response_bytes = \"8388607\" (flag --gateway-response-bytes): "), "{message}");
    assert!(message.ends_with("body of gateway.max_body: at least 8388608 bytes are needed"), "{message}");
    Settings::from_layers(&flag(Layers::default(), "gateway.max_body", "16MiB")).unwrap();
}

#[test]
fn lists_are_written_as_toml_arrays_or_with_commas() {
    let file = file("services = [\"echo\", \"hash\"]\n");
    let layers = Layers::default().file(file.path()).unwrap();
    let seeds = format!("127.0.0.1:1, {}@127.0.0.1:2", "ab".repeat(32));
    let settings = Settings::from_layers(&flag(layers, "peers.seeds", &seeds)).unwrap();
    assert_eq!(settings.services, [Builtin::Echo, Builtin::Hash]);
    assert_eq!(settings.seeds[0].node, None);
    assert_eq!(settings.seeds[1].node.unwrap().short(), "abababab");
    let message = refused(Ok(flag(Layers::default(), "services", "echo,quux")));
    assert!(message.starts_with("services = \"quux\" (flag --services): "), "{message}");
    let message = refused(Ok(flag(Layers::default(), "services", "echo,hash,echo")));
    assert_eq!(message, "services = \"echo\" (flag --services): it is listed twice");
}

#[test]
fn the_handbook_lists_every_setting_as_it_is() {
    let handbook = include_str!("../../../../docs/configuration.md");
    let mut table = "| setting | default | value | what it is |\n|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let default = if key.default.is_empty() { "" } else { &format!("`{}`", key.default) };
        let value = key.value.replace('|', " or ");
        table += &format!("| `{}` | {default} | {value} | {} |\n", key.name, key.help);
    }
    assert!(handbook.contains(&table), "docs/configuration.md should have this table:\n{table}");
}

#[test]
fn which_provider_is_asked_is_one_of_three_words() {
    let chosen = |word| Settings::from_layers(&flag(Layers::default(), "calls.choice", word)).map(|it| it.choice);
    assert_eq!(Settings::from_layers(&Layers::default()).unwrap().choice, ProviderChoice::PowerOfTwoChoices);
    assert_eq!(chosen("round-robin").unwrap(), ProviderChoice::RoundRobin);
    assert_eq!(chosen("sticky").unwrap(), ProviderChoice::Sticky);
    let message = chosen("random").unwrap_err().to_string();
    assert!(message.contains("better-of-two, round-robin or sticky"), "{message}");
}

/// A setting, a value that is not its default, and whether a configuration has it.
type Wired = (&'static str, &'static str, fn(&NodeConfig) -> bool);

/// Every setting of the node changes what it documents, and no other does.
#[test]
fn every_setting_reaches_the_configuration_of_the_node() {
    let table: &[Wired] = &[
        ("data", "/elsewhere", |config| config.data.ends_with("elsewhere")),
        ("listen", "127.0.0.1:7001", |config| config.listen.port() == 7001),
        ("advertise", "127.0.0.1:7002", |config| config.advertise.is_some_and(|address| address.port() == 7002)),
        ("realm", "another", |config| config.realm.as_str() == "another"),
        ("peers.seeds", "127.0.0.1:7003", |config| config.seeds.len() == 1),
        ("peers.max", "7", |config| config.max_peers.get() == 7),
        ("peers.gossip_interval", "7ms", |config| config.gossip_interval == Duration::from_millis(7)),
        ("trust.open", "true", |config| config.trusted == Trusted::Open),
        ("trust.allow_list", "/list", |config| config.trusted == Trusted::Listed("/list".into())),
        ("gateway.max_clients", "8", |config| config.gateway.clients == 8),
        ("gateway.idle", "8s", |config| config.gateway.idle_timeout == Duration::from_secs(8)),
        ("gateway.max_body", "8KiB", |config| config.gateway.body_bytes == 8 << 10),
        ("gateway.response_bytes", "9MiB", |config| config.gateway.all_responses_bytes == 9 << 20),
        ("gateway.response_timeout", "9s", |config| config.gateway.response_timeout == Duration::from_secs(9)),
        ("gateway.requests_per_client", "3", |config| config.gateway.requests_per_client == 3),
        ("gateway.requests_per_prefix", "4", |config| config.gateway.requests_per_origin == 4),
        ("gateway.workers", "5", |config| config.gateway.workers == 5),
        ("gateway.path_changes", "6", |config| config.gateway.path_changes_per_minute == 6),
        ("gateway.half_open", "9", |config| config.gateway.admission.half_open.get() == 9),
        ("gateway.max_per_prefix", "10", |config| config.gateway.admission.per_origin.map(Cap::get) == Some(10)),
        ("gateway.rate", "11", |config| config.gateway.admission.rate == Rate::per_second(Cap::of::<11>())),
        ("gateway.prefix_rate", "12", |config| {
            config.gateway.admission.origin_rate == Rate::per_second(Cap::of::<12>())
        }),
        ("advertisements.max", "13", |config| config.gateway.advertisements.total.get() == 13),
        ("advertisements.max_per_client", "14", |config| {
            let limits = &config.gateway.advertisements;
            (limits.per_client.get(), limits.rate.burst.get()) == (14, 14)
        }),
        ("advertisements.rate", "15", |config| config.gateway.advertisements.rate.per_second.get() == 15),
        ("advertisements.ttl", "16s", |config| config.gateway.advertisements.ttl == Duration::from_secs(16)),
        ("advertisements.sweep", "17s", |config| config.gateway.advertisements.sweep == Duration::from_secs(17)),
        ("pubsub.max_subscribers", "18", |config| config.gateway.pubsub.subscribers.get() == 18),
        ("pubsub.max_filters", "19", |config| config.gateway.pubsub.filters.get() == 19),
        ("pubsub.backlog", "20KiB", |config| config.gateway.pubsub.backlog.get() == 20 << 10),
        ("pubsub.all_backlogs", "30MiB", |config| config.gateway.pubsub.all_backlogs.get() == 30 << 20),
        ("pubsub.patience", "21s", |config| config.gateway.pubsub.patience == Duration::from_secs(21)),
        ("calls.deadline", "22s", |config| config.gateway.deadline == Duration::from_secs(22)),
        ("calls.choice", "sticky", |config| config.choice == ProviderChoice::Sticky),
        ("directory.ttl", "23s", |config| config.service_ttl == Duration::from_secs(23)),
        ("memory.budget", "3GiB", |config| config.memory_budget == 3 << 30),
        ("stop.grace", "24s", |config| config.grace == Duration::from_secs(24)),
        ("events.max", "25", |config| config.max_events.get() == 25),
    ];
    // What the program itself does with the settings; end-to-end tests assert it.
    let elsewhere = ["services", "calls.max_in_flight", "log.filter", "log.json"];
    let config = |name: Option<(&str, &str)>| {
        let layers = flag(Layers::default(), "data", "/data");
        let layers = name.iter().fold(layers, |layers, (name, value)| flag(layers, name, value));
        Settings::from_layers(&layers).unwrap().node_config().unwrap()
    };
    for (name, value, has_it) in table {
        assert!(!has_it(&config(None)), "{name}: {value} is the default");
        for (other, its_value, _) in table {
            let changed = config(Some((other, its_value)));
            assert_eq!(has_it(&changed), other == name, "{name} = {value}, where {other} = {its_value}");
        }
    }
    let named: Vec<_> = table.iter().map(|(name, ..)| *name).chain(elsewhere).collect();
    let missing: Vec<_> = KEYS.iter().map(|key| key.name).filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty() && named.len() == KEYS.len(), "settings without a row: {missing:?}");
}
