//! What a node holds, by its own snapshot, and the table of figures.

use std::path::Path;

use plimsoll::inspect::TreeNode;
use plimsoll_mesh::node::NodeSnapshot;
use plimsoll_testkit::report::{Report, Row};

/// Counters of what is held now, besides all whose name ends with `_used`.
const HELD: [&str; 11] = [
    "in_flight",
    "requests_in_flight",
    "workers",
    "timers",
    "waiting",
    "clients",
    "responding",
    "pending",
    "body_bytes_held",
    "response_bytes_held",
    "backlog_bytes",
];

/// Everything in any table of the node, by the place and the counter's name; nothing is listed that is zero.
pub(crate) fn held(snapshot: &NodeSnapshot) -> Vec<(String, u64)> {
    fn walk(node: &TreeNode, path: &str, held: &mut Vec<(String, u64)>) {
        for (name, &count) in &node.details.counters {
            let actors = node.id == "connections" && name == "children";
            if count > 0 && (actors || name.ends_with("_used") || HELD.contains(&name.as_str())) {
                held.push((format!("{path}/{name}"), count));
            }
        }
        for child in &node.details.children {
            walk(child, &format!("{path}/{}", child.id), held);
        }
    }
    let mut held = Vec::new();
    walk(&snapshot.runtime.tree, &snapshot.runtime.tree.id, &mut held);
    held
}

/// All of it in one number.
pub(crate) fn sum(snapshot: &NodeSnapshot) -> u64 {
    held(snapshot).iter().map(|(_, count)| count).sum()
}

/// One figure: what, the bound, whether it holds, and what it is without the mechanism.
pub(crate) type Figure = (String, String, bool, Option<String>);

/// Notes the figures of a scenario and fails if one is out of bounds.
pub(crate) fn record(scenario: &str, figures: &[Figure]) {
    let row = |(figure, bound, met, control): &Figure| Row {
        scenario: scenario.into(),
        figure: figure.clone(),
        bound: bound.clone(),
        met: *met,
        control: control.clone(),
    };
    let rows: Vec<_> = figures.iter().map(row).collect();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    Report::new(target, "bounded").write(&scenario.replace([' ', ','], "-"), &rows).unwrap();
    assert!(rows.iter().all(|row| row.met), "{rows:#?}");
}
