//! Warnings and panics as events of the node, which `mesh-node events` lists.
//!
//! The library logs what an operator should know, throttled: refusals at a limit, floods of handshakes, restarts. Here the same
//! lines become events, whatever `log.filter` says.

use std::fmt::{Debug, Write};
use std::sync::OnceLock;

use plimsoll_mesh::events::EventKind;
use plimsoll_mesh::node::NodeView;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

static NODE: OnceLock<NodeView> = OnceLock::new();

/// From now on warnings go to the events of this node.
pub(crate) fn record_in(node: &NodeView) {
    let _ = NODE.set(node.clone());
}

/// Records warnings and errors of this process. It wants a filter that lets only those through.
#[derive(Debug)]
pub(crate) struct Events;

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(node) = NODE.get() else { return };
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(kind) = kind(event.metadata().target(), &line.message) {
            node.record(kind, &format!("{}{}", line.message, line.fields));
        }
    }
}

/// The kind of a line; none for those that the library itself records as events of a peer.
fn kind(target: &str, message: &str) -> Option<EventKind> {
    match target {
        "mesh_node" if message.starts_with("panicked") => Some(EventKind::Panic),
        "plimsoll::mesh" if message.starts_with("peer ") => None,
        "plimsoll::supervisor" => Some(EventKind::Restart),
        _ if message.contains("refused") => Some(EventKind::Refusal),
        _ => Some(EventKind::Warning),
    }
}

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_kind_of_what_it_reports() {
        for (target, message, wanted) in [
            ("mesh_node", "panicked: boom", Some(EventKind::Panic)),
            ("plimsoll::mesh", "requests refused", Some(EventKind::Refusal)),
            ("plimsoll::mesh", "peer refused", None),
            ("plimsoll::supervisor", "child failed", Some(EventKind::Restart)),
            ("plimsoll::mesh", "the gossip engine fell over", Some(EventKind::Warning)),
        ] {
            assert_eq!(kind(target, message), wanted, "{message}");
        }
    }
}
