//! What an actor may hold: the sources are walked for the types that are an actor's state, or an actor itself, and for all
//! that these are made of.
//!
//! A map, a list or an unbounded channel in one of them has to be a bounded part of the library or be on the list below,
//! with the reason why it cannot grow without limit. An entry of the list that nothing needs any more fails as well, and so
//! does a type from elsewhere of which it is not written down what it holds.
//!
//! The walk follows names and not types: through aliases, renamed imports, parameters by their bounds, associated types, and
//! traits to all that they are implemented for. A name that stands for several types stands for all of them. What a closure
//! or a future holds it does not see; therefore all types of the node count, and not only those of its actors.

#[path = "held/walk.rs"]
mod walk;

use std::collections::BTreeSet;
use std::path::Path;

use walk::{Finding, Sources};

/// What may be held nevertheless: type, field, reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("Activities", "alias", "one for each session, of which there is a cap"),
    ("HttpResponse", "fields", "the header fields of one response, which the program writes itself"),
    ("Child", "waiters", "callers of the supervisor that wait for one start or stop; each waits for its reply"),
    ("DynamicState", "commands", "what one event leads to, executed at its end"),
    ("DynamicState", "timers", "one for each child, of which there is a maximum"),
    ("DynamicTable", "used", "16, kept to be used again"),
    ("ChildSlots", "slots", "children that have handles; a dynamic child that is gone goes at the next doubling"),
    ("ChildSlots", "touched", "what one event changes, published at its end"),
    ("EarlyExits", "0", "1,024 exits of children whose start is in progress"),
    ("Effects", "others", "what one event leads to, done at its end"),
    ("StaticState", "children", "the children: as many as the program specifies"),
    ("StaticState", "commands", "what one event leads to, executed at its end"),
    ("StaticState", "deferred", "exits of children that wait for a stop in progress: one for each child"),
    ("StaticState", "due", "one for each child"),
    ("StaticState", "ids", "one for each child"),
    ("StaticState", "queued", "callers of the supervisor, each of which waits for its reply"),
    ("StaticState", "restarts", "one for each child"),
    ("Unclaimed", "actors", "actors that run: one entry for each"),
    ("Unclaimed", "in_progress", "starts in progress, each of which has a caller or a child spec"),
    ("PeerTable", "entries", "nodes with a connection, which the pool bounds, and 1,024 others"),
    ("PeerTable", "targets", "10,000"),
    ("CallError", "0", "the servers of one cycle of calls: no more than calls are nested"),
    ("CallerIndex", "by_id", "an index: one entry for each slot, which a live client keeps"),
    (
        "ConnectionPool",
        "closings",
        "those of the pool that are being closed: each has its actor, whose supervisor has a cap",
    ),
    ("ConnectionPool", "creations", "each has a place of the pool"),
    ("ConnectionPool", "open", "each has its actor, whose supervisor has a cap"),
    ("Calls", "queue", "every item holds a permit of the server's cap, or a place of its bounded mailbox"),
    ("Details", "children", "one look at the tree"),
    ("Metrics", "types", "one look at an actor"),
    ("Target", "associated", "the map of Metrics: one look at an actor"),
    ("Metrics", "values", "one look at an actor"),
    ("NodeRecords", "services", "1,000 a node"),
    ("NodeRecords", "values", "one for each of the node's keys, of which validation admits 4,096"),
    ("Inner", "throttled", "1,024 kinds and peers"),
    ("Inner", "arrived", "nodes with a connection, each once"),
    ("Inner", "reachable", "nodes with a connection"),
    ("IntensityWindow", "restarts", "as many as the intensity allows, and one"),
    ("EngineSummary", "lives", "10,000 in the engine"),
    ("Layers", "values", "one for each setting there is"),
    ("EndedList", "alias", "sessions and subscriptions that ended, each once, until the next turn"),
    (
        "List",
        "responses",
        "unacknowledged responses of one connection: each has a stream, of which the transport allows 64",
    ),
    ("Log", "throttles", "1,024"),
    ("Node", "children", "eight levels for each filter, of which there is a cap"),
    ("NodeBuilder", "offers", "what the program offers"),
    ("NodeConfig", "listen_fallbacks", "what the configuration names"),
    ("NodeConfig", "seeds", "what the configuration names"),
    ("NodeSnapshot", "events", "100"),
    ("NodeSnapshot", "history", "one look at the counters"),
    ("NodeSnapshot", "nodes", "one look at the peer table"),
    ("NodeSnapshot", "routing", "one look at the counters"),
    ("NodeSnapshot", "services", "one look at the directory"),
    ("Numbered", "alias", "one for each child"),
    ("OFF", "static", "what a control leaves out, read once"),
    ("OPEN", "static", "in builds with controls only: what the proxy leaked before its fix"),
    ("MessageBuilder", "0", "one gossip message that a control forges"),
    ("Parts", "offers", "what the program offers"),
    ("PeersConfig", "seeds", "what the configuration names"),
    ("Publisher", "published", "one for each service that this node offers"),
    (
        "ConnectionDriver",
        "tasks",
        "the requests of one connection: each has a stream, of which the transport allows 64",
    ),
    ("StepReport", "checks", "the steps of the tour"),
    ("StepReport", "lines", "the steps of the tour"),
    ("StepReport", "names", "the steps of the tour"),
    ("THROTTLES", "static", "64 places of panics"),
    ("Texts", "alias", "the entries of one setting, from a file of at most a megabyte"),
    ("Queue", "waiting", "bytes, at most the capacity of the writer"),
    ("Queue", "records", "4,096 events, the rest is counted"),
    ("Queue", "messages", "each holds a credit of the mailbox"),
    ("RegularFile", "bytes", "one file, of a size that its reader names"),
    ("RecordTable", "lives", "10,000 in the engine"),
    ("Published", "acknowledged", "nodes that have acknowledged the withdrawal: at most those of the directory"),
    ("EngineEntry", "values", "one look at a node's keys"),
    ("ServeArgs", "flags", "what the command line names"),
    ("ServiceEntry", "providers", "one look at the directory"),
    ("Settings", "listen", "the addresses of one host"),
    ("Settings", "seeds", "what the configuration names"),
    ("Settings", "services", "what the configuration names"),
    ("PeersState", "expelled", "1,024"),
    ("Shared", "own_waiting", "a waiting call has a place in the server's queue, which has a cap"),
    ("ShutdownReport", "failures", "10,000, and how many more there were"),
    ("State", "waiters", "callers of the supervisor that wait for one start or stop; each waits for its answer"),
    ("Stopped", "killed", "those of one report"),
    ("Stopped", "kill_timed_out", "those of one report"),
    ("Entries", "alias", "services that this node offers: 1,000"),
    ("Timers", "alias", "one for each child"),
    (
        "Trimmed",
        "0",
        "images whose files are being removed: one batch of the index, and one more for each write under way",
    ),
    ("Trio", "nodes", "three"),
    ("StopFailure", "path", "one for each level of the tree"),
    ("StopFailures", "list", "10,000, and how many more there were"),
    ("Trust", "0", "10,000"),
    ("Context", "next", "what a server's own handler says is to happen next, taken before the next message"),
    ("Positions", "alias", "services that were called: 10,000"),
    ("SeedName", "addresses", "16"),
    ("SeedNames", "names", "what the configuration names"),
    ("DirectoryView", "members", "10,000 in the engine"),
    ("DirectoryView", "services", "10,000 records"),
    ("TimerWheel", "links", "one for each slot of the call table, which has a cap"),
    ("MonitorTable", "by_actor", "an index of the monitors, which have a cap"),
    ("MonitorTable", "entries", "the monitors of one server, which have a cap"),
    ("Shared", "origins", "one for each origin that has a client, of which there is a cap"),
    ("UniStreams", "qpack", "one of each kind"),
    ("UniStreams", "untyped", "as many as the transport allows at once"),
];

/// Types from elsewhere that hold one thing, what was given to them when they were made, or a buffer of bytes.
#[rustfmt::skip]
const KNOWN: &[&str] = &[
    "AbortHandle", "AbortOnDropHandle", "ActorId", "AdmissionRefusal", "Any", "Arc", "ArcSwap", "ArcSwapOption", "AtomicBool",
    "AtomicI64", "AtomicPtr", "AtomicU16", "AtomicU32", "AtomicU64", "AtomicU8", "AtomicUsize", "Barrier", "Box",
    "BoxError", "BoxFuture", "BoxStream", "BufReader", "ByteCap", "Bytes", "BytesMut", "CancellationToken", "Cap",
    "Cell", "CertificateDer", "Child", "ChildStderr", "ChildStdin", "ChildStdout", "ChitchatMessage", "ClientConfig",
    "Closing", "Code", "Condvar", "ConnectionError", "Consumer", "Context", "Cow", "Creation", "DefaultHasher",
    "DialLease", "Disconnected", "Dispatch", "DropGuard", "Duration", "EcdsaKeyPair", "Empty", "EntryKey",
    "EventKind", "ExitCode", "ExitStatus",
    "File", "FrameStreamError", "FxBuildHasher", "HeaderName", "HeaderValue", "Id", "Infallible", "Instant", "Interval",
    "IpAddr", "Ipv4Addr", "Ipv6Addr", "Jemalloc", "JoinHandle", "LazyLock", "LeaseError", "Level", "Lines", "LogThrottle",
    "ManuallyDrop", "MaybeUninit", "Method", "Mutex", "MutexGuard", "NonZeroU16", "NonZeroU32", "NonZeroU64",
    "NonZeroUsize", "Notify", "OnceCell", "OnceLock", "Option", "Ordering", "OsString", "OwnedMutexGuard",
    "OwnedSemaphorePermit", "Path", "PathBuf", "PayloadLen", "Permit", "PhantomPinned", "Pin", "Poll", "PoolRefusal",
    "PrivatePkcs8KeyDer", "RandomState", "Range", "RangeInclusive", "Rate", "Rc", "ReadError", "Receiver", "RefCell",
    "RegistryEvent", "RegistryRefusal", "ResourceCaps", "ResourceKey", "Result", "ReusableBoxFuture", "RwLock",
    "RwLockReadGuard", "RwLockWriteGuard", "Semaphore", "SemaphorePermit", "Sender", "SendRequest", "ServerConfig",
    "SessionCounters", "SessionKey", "SessionRefusal", "Signal", "Sleep", "SmallRng", "SocketAddr", "SocketAddrV4",
    "SocketAddrV6", "Span", "SpawnErr", "StatsAlloc", "StatusCode", "StdRng", "StreamError", "String", "System",
    "SystemRandom", "SystemTime", "TcpListener", "TcpStream", "TempDir", "Thread", "ThreadId", "TokenBucket", "TypeId", "UdpSocket",
    "UnixListener", "UnixStream", "UnsafeCell", "UnsyncBoxBody", "Uri", "Value", "Version", "WaitKey", "Waker",
    "WAYS", "Weak", "WeakSender", "WebPkiSupportedAlgorithms", "Wrapping", "WriteBuf",
];

/// Types from elsewhere that can hold more than that, and what bounds it.
const KNOWN_TO_GROW: &[(&str, &str)] = &[
    ("BacklogBudget", "the subscriptions of all topics, which have a cap, and their backlogs, which have one in bytes"),
    (
        "ActorCell",
        "ractor's own ports have no bound: what is sent through them holds a credit, a permit or an edge of the tree",
    ),
    ("ActorRef", "the same"),
    ("ChitchatHandle", "the gossip engine's state: the guard lets in 10,000 lives with 4,096 keys each"),
    (
        "Endpoint",
        "quinn's connections: clients, peers and refusal responders have caps, and so have pending handshakes",
    ),
    ("HeaderMap", "64 fields and 16 KiB of a request, checked before it is served"),
    ("HttpConnector", "the image proxy's client of one tenant keeps one idle connection; its requests hold permits"),
    ("RequestResolver", "h3's channel of requests that ended: one for each stream, of which the transport allows 64"),
];

/// Files that may name an unbounded channel, and why.
const ALLOWED_CHANNELS: &[(&str, &str)] = &[];

/// Crates of which every type is looked at, and not only those of actors: what they hold is shared with tasks.
const WHOLE: &[&str] = &["plimsoll-mesh", "plimsoll-console", "mesh-node", "image-proxy"];

fn sources() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // The bounded parts are what is to be used; their own insides are held against models.
    let bounded = root.join("crates/plimsoll/src/bounded");
    let but = [bounded.as_path(), &bounded.with_extension("rs")];
    let mut sources = Sources::default();
    for folder in ["plimsoll", "plimsoll-sync", "plimsoll-mesh", "plimsoll-console"] {
        sources.read(folder, &root.join("crates").join(folder).join("src"), &but);
    }
    for folder in ["mesh-node", "image-proxy"] {
        sources.read(folder, &root.join("examples").join(folder).join("src"), &but);
    }
    sources
}

/// M-1: nothing that an actor holds, and nothing in the node at all, can grow without a limit, but for what is listed with
/// its reason.
#[test]
fn what_an_actor_holds_is_bounded() {
    let sources = sources();
    let mut roots = sources.actors();
    assert!(roots.len() >= 12, "the actors were not found: {roots:?}");
    roots.extend(WHOLE.iter().flat_map(|krate| sources.all_of(krate)));
    let (found, unknown) = sources.held_by(&roots);
    let excused = |finding: &&Finding| {
        ALLOWED.iter().any(|(holder, field, _)| finding.holder == *holder && finding.field == *field)
    };
    let open: Vec<_> = found.iter().filter(|finding| !excused(finding)).collect();
    assert!(open.is_empty(), "held without a bound:\n{open:#?}");
    let needed: BTreeSet<_> = found.iter().map(|finding| (finding.holder.as_str(), finding.field.as_str())).collect();
    let idle: Vec<_> = ALLOWED.iter().filter(|(holder, field, _)| !needed.contains(&(*holder, *field))).collect();
    assert!(idle.is_empty(), "on the list and not held any more: {idle:?}");
    let strange: Vec<_> = unknown.iter().filter(|name| !is_known(name)).collect();
    assert!(strange.is_empty(), "types from elsewhere of which it is not known what they hold: {strange:?}");
}

fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || KNOWN_TO_GROW.iter().any(|(known, _)| *known == name)
}

/// M-1: no source that ships names an unbounded channel, but for those listed.
#[test]
fn no_channel_is_unbounded() {
    let naming: Vec<_> = sources().unbounded_channels();
    let open: Vec<_> = naming.iter().filter(|file| ALLOWED_CHANNELS.iter().all(|(known, _)| known != file)).collect();
    assert!(open.is_empty(), "an unbounded channel in {open:?}");
}

/// A control: a map three types below an actor's state, a list in the actor itself and an unbounded channel are found, a
/// bounded part and what tests hold are not.
#[test]
fn the_walk_finds_what_it_looks_for() {
    let mut sources = Sources::default();
    sources.add(
        "sample",
        "sample.rs",
        r"
        impl Actor for Hoarder { type State = Hoard; }
        struct Hoarder { list: Vec<u8>, pool: LruPool<u8, u8> }
        struct Hoard { inner: Arc<Mutex<Inner>>, fixed: [u8; 4] }
        enum Inner { One(Deep), Two { tasks: Option<mpsc::UnboundedSender<u8>> } }
        struct Deep { by_name: HashMap<String, u8> }
        struct Unrelated { list: Vec<u8> }
        #[cfg(test)] mod tests { impl Actor for T { type State = Vec<u8>; } }
        ",
    );
    assert_eq!(found_in(&sources), ["Deep.by_name", "Hoarder.list", "Inner.tasks"]);
    assert_eq!(sources.unbounded_channels(), ["sample.rs"]);
}

fn found_in(sources: &Sources) -> Vec<String> {
    let (found, _) = sources.held_by(&sources.actors());
    found.iter().map(|finding| format!("{}.{}", finding.holder, finding.field)).collect()
}

/// A control: ways to hide what grows, one at a time: each is found, in the type that it is in.
#[test]
fn nothing_hides_from_the_walk() {
    let ways = [
        ("a renamed map", "use std::collections::HashMap as Map; struct S { it: Map<u8, u8> }", "Map.alias"),
        ("an alias of an alias", "type A = Vec<u8>; type B = A; struct S { it: B }", "A.alias"),
        ("a wrapper of a pointer", "struct S { it: Arc<Wrapper> } struct Wrapper(Mutex<Vec<u8>>);", "Wrapper.0"),
        ("a parameter", "struct S { it: Holder<Vec<u8>> } struct Holder<T> { it: T }", "S.it"),
        (
            "the bound of a parameter",
            "trait Crew {} impl Crew for Hands { } struct Hands { all: Vec<u8> } struct S { it: Of<u8> } \
             struct Of<C: Crew>(C);",
            "Hands.all",
        ),
        (
            "behind a trait",
            "trait Any { } impl Any for Hands {} struct Hands(Vec<u8>); struct S { it: Box<dyn Any> }",
            "Hands.0",
        ),
        (
            "an associated type",
            "trait Has { type It; } impl Has for u8 { type It = Vec<u8>; } struct S { it: <u8 as Has>::It }",
            "It.associated",
        ),
        ("the name of a bounded part", "struct S { it: LruMap } struct LruMap { all: Vec<u8> }", "LruMap.all"),
        (
            "an entry of a bounded part",
            "struct S { it: LruPool<u8, Entry> } struct Entry { all: Vec<u8> }",
            "Entry.all",
        ),
    ];
    for (way, hidden, expected) in ways {
        let mut sources = Sources::default();
        sources.add("sample", "sample.rs", &format!("impl Actor for X {{ type State = S; }} struct X; {hidden}"));
        assert_eq!(found_in(&sources), [expected], "{way}");
    }
    let mut sources = Sources::default();
    sources.add("sample", "sample.rs", "impl Actor for X { type State = Foreign<u8>; } struct X;");
    assert!(sources.held_by(&sources.actors()).1.contains("Foreign"), "a type from elsewhere");
    let channels = [
        "fn f() { let (a, b) = std::sync::mpsc::channel(); }",
        "fn f() { join!(mpsc::unbounded_channel()) }",
        "use tokio::sync::mpsc::unbounded_channel as channel;",
    ];
    for text in channels {
        let mut sources = Sources::default();
        sources.add("sample", "sample.rs", text);
        assert_eq!(sources.unbounded_channels(), ["sample.rs"], "{text}");
    }
    let mut sources = Sources::default();
    sources.add("sample", "sample.rs", "fn f() { let (a, b) = tokio::sync::mpsc::channel(8); }");
    assert!(sources.unbounded_channels().is_empty());
}
