//! What an actor may hold: the sources are walked for the types that are an actor's state, or an actor itself, and for all
//! that these are made of.
//!
//! A map, a list or an unbounded channel in one of them has to be a bounded part of the library or be on the list below,
//! with the reason why it cannot grow without limit. An entry of the list that nothing needs any more fails as well.

#[path = "held/walk.rs"]
mod walk;

use std::collections::BTreeSet;
use std::path::Path;

use walk::{Finding, Sources};

/// What may be held nevertheless: type, field, reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("CallError", "0", "the servers of one cycle of calls: no more than calls are nested"),
    ("Callers", "by_id", "an index: one entry for each slot, which a client in somebody's hands keeps"),
    (
        "Left",
        "alias",
        "sessions whose connection ended, each once, until the next turn: no more than there are clients",
    ),
    ("Desk", "intake", "every item holds a permit of the server's cap, or a place of its bounded mailbox"),
    ("Shared", "own_waiting", "a waiting call has a place in the server's queue, which has a cap"),
    ("Turn", "next", "what a server's own handler says is to happen next, taken before the next message"),
    ("Wheel", "links", "one for each slot of the table of calls, which has a cap"),
];

/// Files that may name an unbounded channel, and why.
const ALLOWED_CHANNELS: &[(&str, &str)] = &[];

fn sources() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = Sources::default();
    for folder in ["plimsoll", "plimsoll-sync", "plimsoll-mesh", "plimsoll-console"] {
        sources.read(folder, &root.join("crates").join(folder).join("src"));
    }
    sources.read("mesh-node", &root.join("examples/mesh-node/src"));
    sources
}

/// M-1: nothing that an actor holds can grow without a limit, but for what is listed with its reason.
#[test]
fn what_an_actor_holds_is_bounded() {
    let sources = sources();
    let roots = sources.actors();
    assert!(roots.len() >= 5, "the actors were not found: {roots:?}");
    let found = sources.held_by(&roots);
    let excused = |finding: &&Finding| {
        ALLOWED.iter().any(|(holder, field, _)| finding.holder == *holder && finding.field == *field)
    };
    let open: Vec<_> = found.iter().filter(|finding| !excused(finding)).collect();
    assert!(open.is_empty(), "held without a bound:\n{open:#?}");
    let needed: BTreeSet<_> = found.iter().map(|finding| (finding.holder.as_str(), finding.field.as_str())).collect();
    let idle: Vec<_> = ALLOWED.iter().filter(|(holder, field, _)| !needed.contains(&(*holder, *field))).collect();
    assert!(idle.is_empty(), "on the list and not held any more: {idle:?}");
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
        struct Hoarder { list: Vec<u8>, pool: LruPool<Vec<u8>, u8> }
        struct Hoard { inner: Arc<Mutex<Inner>>, fixed: [u8; 4] }
        enum Inner { One(Deep), Two { tasks: Option<mpsc::UnboundedSender<u8>> } }
        struct Deep { by_name: HashMap<String, u8> }
        struct Unrelated { list: Vec<u8> }
        #[cfg(test)] mod tests { impl Actor for T { type State = Vec<u8>; } }
        ",
    );
    let found = sources.held_by(&sources.actors());
    let found: Vec<_> = found.iter().map(|finding| (finding.holder.as_str(), finding.field.as_str())).collect();
    assert_eq!(found, [("Deep", "by_name"), ("Hoarder", "list"), ("Inner", "tasks")]);
    assert_eq!(sources.unbounded_channels(), ["sample.rs"]);
}
