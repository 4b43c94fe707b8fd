//! Log lines as events of the node, which `mesh-node events` lists.
//!
//! The library logs what an operator should know, throttled, such as refusals at a limit. Here these lines become events,
//! whatever `log.filter` says. What the mesh records itself is left out: restarts, panics, and what the gateway refuses.

use std::fmt::{Debug, Write};
use std::sync::OnceLock;

use plimsoll_mesh::events::EventKind;
use plimsoll_mesh::node::NodeView;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

/// The target of supervisors.
const SUPERVISOR: &str = "plimsoll::supervisor";

/// Lines of the mesh about what it records as an event itself, by how they begin.
const RECORDED: [&str; 5] = [
    "peer ",
    "a worker failed",
    "the worker of a peer's call panicked",
    "seed name does not resolve",
    "requests refused",
];

/// Lines of supervisors about what the mesh records as an event itself, by what they contain.
const RECORDED_OF_SUPERVISORS: [&str; 3] = ["restart", "retrying", "giving up"];

static NODE: OnceLock<NodeView> = OnceLock::new();

/// From now on lines are recorded in the events of this node.
pub(crate) fn record_in(node: &NodeView) {
    let _ = NODE.set(node.clone());
}

/// Records lines of the log. Wants [`filter`].
#[derive(Debug)]
pub(crate) struct Events;

/// The lines that may be events: warnings and errors.
pub(crate) fn filter() -> Targets {
    Targets::new().with_default(Level::WARN)
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(node) = NODE.get() else { return };
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(kind) = kind(event.metadata().target(), &line) {
            node.record(kind, &format!("{}{}", line.message, line.fields));
        }
    }
}

/// The kind of a line; `None` if it is not recorded.
fn kind(target: &str, line: &Line) -> Option<EventKind> {
    let message = line.message.as_str();
    match target {
        SUPERVISOR if RECORDED_OF_SUPERVISORS.iter().any(|part| message.contains(part)) => None,
        // The response to the caller is recorded by the mesh, and the location of the panic is for the log.
        "mesh_node" if message.starts_with("panicked: ") => None,
        "plimsoll::mesh" if RECORDED.iter().any(|begin| message.starts_with(begin)) => None,
        // A client that the gateway does not admit.
        "plimsoll::bounded" if message.starts_with("refused: ") => None,
        "plimsoll::bounded" => Some(EventKind::CapReached),
        "plimsoll::mesh" if message.starts_with("bytes refused") => Some(EventKind::CapReached),
        _ if message.contains("refused") => Some(EventKind::Refusal),
        _ => Some(EventKind::Warning),
    }
}

/// The text of a line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    /// Of lines that were suppressed there is nothing to report when there are none.
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() != "suppressed" || value > 0 {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_kind_of_what_it_reports() {
        for (target, message, wanted) in [
            ("plimsoll::supervisor", "child failed: restarting", None),
            ("plimsoll::supervisor", "child failed to start: retrying", None),
            ("plimsoll::supervisor", "giving up: more restarts than allowed", None),
            ("plimsoll::supervisor", "child did not stop as its spec says", Some(EventKind::Warning)),
            ("plimsoll::bounded", "refused: 1024 handshakes are in progress; try again in 1s", None),
            ("plimsoll::bounded", "refused", Some(EventKind::CapReached)),
            ("plimsoll::mesh", "bytes refused", Some(EventKind::CapReached)),
            ("plimsoll::mesh", "requests refused", None),
            ("plimsoll::mesh", "peer refused", None),
            ("plimsoll::mesh", "a worker failed", None),
            ("plimsoll::mesh", "the gossip engine failed", Some(EventKind::Warning)),
            ("mesh_node", "panicked: boom", None),
            ("mesh_node", "log lines dropped", Some(EventKind::Warning)),
        ] {
            let line = Line { message: message.into(), fields: String::new() };
            assert_eq!(kind(target, &line), wanted, "{target}: {message}");
        }
    }
}
