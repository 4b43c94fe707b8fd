//! Output for people: colours, tables, the tree.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use plimsoll::inspect::{Status, TreeNode};

use crate::streams::{say, write};

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

/// Paints, or does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For stdout.
    pub(crate) fn new(color: Color) -> Self {
        Self(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
        })
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn name(self, text: &str) -> String {
        self.with("36", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Writes to stdout; where that fails, the program ends with exit code 1.
pub(crate) fn print(text: &str) {
    if let Err(error) = write(text.as_bytes()) {
        unwritten(&error);
    }
}

/// Writes a listing to stdout. A reader that went away (`| head`) is no error: the program exits with 0.
pub(crate) fn print_read(text: &str) {
    match write(text.as_bytes()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => unwritten(&error),
    }
}

fn unwritten(error: &io::Error) -> ! {
    say(format_args!("error: cannot write to stdout: {error}"));
    std::process::exit(1)
}

/// A table with a head and aligned columns, two spaces apart.
pub(crate) fn table(paint: Paint, head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<_> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head: Vec<_> = head.iter().map(|&cell| cell.to_owned()).collect();
    let mut text = paint.dim(&line(&head)) + "\n";
    for row in rows {
        text += &line(row);
        text.push('\n');
    }
    text
}

/// The most useful counters, which are shown first.
const FIRST: [&str; 11] = [
    "in_flight",
    "started",
    "settled",
    "clients",
    "offered",
    "served",
    "refused_with_reason",
    "refused_without_reason",
    "failed_handshakes",
    "up",
    "members",
];

/// Parts of names of counters that only the whole listing shows: limits, and details of other counters.
const DETAILS: [&str; 7] = ["_ns", "method_", "settled_", "limit", "cap", "high_water", "children"];

/// The supervision tree: a child a line, with its counters that are not zero. Lines have at most `width` characters and the
/// counters that fit; `None` shows all counters.
pub(crate) fn tree(paint: Paint, root: &TreeNode, width: Option<usize>) -> String {
    let mut places = Vec::new();
    walk(root, "", "", &mut places);
    let left = places.iter().map(|(branch, node)| branch.chars().count() + node.id.chars().count()).max().unwrap_or(0);
    let number = |value: u64| format!("{:>8}", if value == 0 { "-".to_owned() } else { value.to_string() });
    let head = format!("{:<left$}  {:<10} RESTARTS   REFUSED  COUNTERS", "CHILD", "STATUS");
    let room = width.map(|width| width.saturating_sub(left + 2 + 10 + 1 + 8 + 2 + 8 + 2));
    let mut text = paint.dim(&head) + "\n";
    for (branch, node) in places {
        let gap = " ".repeat(left - branch.chars().count() - node.id.chars().count());
        let status = format!("{:<10}", word(node.status));
        let status = if node.status == Status::Running { paint.good(&status) } else { paint.bad(&status) };
        let alarming = |value: u64| if value == 0 { paint.dim(&number(value)) } else { paint.bad(&number(value)) };
        let line = format!(
            "{}{}{gap}  {status} {}  {}  {}",
            paint.dim(&branch),
            paint.name(&node.id),
            alarming(node.restarts),
            alarming(refused(node)),
            paint.dim(&counters(node, room))
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// What a child has refused in all. Admission counts by reason what its listener counts by outcome, so it is left out.
fn refused(node: &TreeNode) -> u64 {
    let counters = node.details.counters.iter();
    let refusals = counters.filter(|(name, _)| !name.starts_with("admission_") && name.contains("refused"));
    refusals.map(|(_, value)| value).sum()
}

/// The counters that are not zero, the most useful first, as many as there is room for.
fn counters(node: &TreeNode, room: Option<usize>) -> String {
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let detail = |name: &str| DETAILS.iter().any(|part| name.contains(part));
    let mut shown: Vec<_> = node.details.counters.iter().filter(|(_, value)| **value > 0).collect();
    shown.retain(|(name, _)| room.is_none() || !detail(name));
    shown.sort_by_key(|(name, _)| rank(name));
    let mut text = String::new();
    for (name, value) in shown {
        let one = format!("{}{} {value}", if text.is_empty() { "" } else { ", " }, name.replace('_', " "));
        if room.is_some_and(|room| text.len() + one.len() > room) {
            break;
        }
        text += &one;
    }
    text
}

/// How long ago something was, in its two largest units.
pub(crate) fn ago(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0..60 => format!("{seconds}.{} s", milliseconds % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

fn walk<'a>(node: &'a TreeNode, branch: &str, below: &str, places: &mut Vec<(String, &'a TreeNode)>) {
    places.push((branch.to_owned(), node));
    let count = node.details.children.len();
    for (index, child) in node.details.children.iter().enumerate() {
        let (turn, line) = if index + 1 == count { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        walk(child, &format!("{below}{turn}"), &format!("{below}{line}"), places);
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Starting => "starting",
        Status::Running => "running",
        Status::Restarting => "restarting",
        Status::Stopping => "stopping",
        Status::Stopped => "stopped",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use plimsoll::inspect::{Details, Kind, Metric};

    use super::*;

    fn place(id: &str, restarts: u64, children: Vec<TreeNode>) -> TreeNode {
        let counters = [("clients_cap", 5), ("in_flight", 2), ("refused_with_reason", 0)]
            .map(|(name, value)| (name, Metric::counter(value)))
            .into();
        let details = Details { counters, children };
        TreeNode { id: id.into(), kind: Kind::Worker, status: Status::Running, actor: None, restarts, details }
    }

    #[test]
    fn the_tree_is_drawn_with_its_branches_and_what_is_not_zero() {
        let root = place("node", 0, vec![place("a", 0, vec![place("deep", 0, vec![])]), place("b", 3, vec![])]);
        let drawn = tree(Paint(false), &root, Some(80));
        let wanted = "\
CHILD       STATUS     RESTARTS   REFUSED  COUNTERS
node        running           -         -  in flight 2
├─ a        running           -         -  in flight 2
│  └─ deep  running           -         -  in flight 2
└─ b        running           3         -  in flight 2
";
        assert_eq!(drawn, wanted);
        assert!(!tree(Paint(false), &root, Some(40)).contains("in flight"), "no room");
        assert!(tree(Paint(false), &root, None).contains("in flight 2, clients cap 5"), "everything");
    }

    /// A refused connection is counted by its outcome and, under `admission`, by its reason: once in the column.
    #[test]
    fn the_tree_has_a_column_of_refusals() {
        let mut listener = place("listener", 0, vec![]);
        let counters = [
            ("admission_clients_refused_full", 3),
            ("body_bytes_refused_share", 7),
            ("offered", 9),
            ("refused_with_reason", 1),
            ("refused_without_reason", 2),
            ("served", 4),
        ];
        listener.details.counters = counters.map(|(name, value)| (name, Metric::counter(value))).into();
        let drawn = tree(Paint(false), &listener, Some(110));
        let wanted = "listener  running           -        10  offered 9, served 4, refused with reason 1, ";
        assert!(drawn.lines().nth(1).unwrap().starts_with(wanted), "{drawn}");
    }

    #[test]
    fn a_time_is_shown_in_its_two_largest_units() {
        let times = [(0, "0.0 s"), (59_990, "59.9 s"), (60_000, "1 min 0 s"), (3_661_000, "1 h 1 min")];
        for (milliseconds, wanted) in times {
            assert_eq!(ago(milliseconds), wanted);
        }
    }
}
