//! How answers look to a person: colours, tables, the tree.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use plimsoll::inspect::{Status, TreeNode};

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

/// Writes to stdout. A reader that went away (`| head`) is no error of ours: the program ends.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A table with a head, columns aligned, two spaces between; cells may be painted after alignment by the caller's lines.
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

/// The supervision tree, one place a line.
pub(crate) fn tree(paint: Paint, root: &TreeNode) -> String {
    let mut places = Vec::new();
    walk(root, "", "", &mut places);
    let width = places.iter().map(|(branch, node)| branch.chars().count() + node.id.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (branch, node) in places {
        let gap = " ".repeat(width - branch.chars().count() - node.id.chars().count());
        let status = format!("{:<10}", word(node.status));
        let status = if node.status == Status::Running { paint.good(&status) } else { paint.bad(&status) };
        let mut notes: Vec<_> = Vec::new();
        if node.restarts > 0 {
            notes.push(paint.bad(&format!("restarts {}", node.restarts)));
        }
        let counters = node.details.counters.iter().filter(|(_, value)| **value > 0);
        notes.extend(counters.map(|(name, value)| paint.dim(&format!("{} {value}", name.replace('_', " ")))));
        let line =
            format!("{}{}{gap}  {status} {}", paint.dim(&branch), paint.name(&node.id), notes.join(&paint.dim(", ")));
        text += line.trim_end();
        text.push('\n');
    }
    text
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
    use plimsoll::inspect::{Details, Kind};

    use super::*;

    fn place(id: &str, restarts: u64, children: Vec<TreeNode>) -> TreeNode {
        let counters = [("in_flight".to_owned(), 2), ("told".to_owned(), 0)].into();
        let details = Details { counters, children };
        TreeNode { id: id.into(), kind: Kind::Worker, status: Status::Running, actor: None, restarts, details }
    }

    #[test]
    fn the_tree_is_drawn_with_its_branches_and_what_is_not_zero() {
        let root = place("node", 0, vec![place("a", 0, vec![place("deep", 0, vec![])]), place("b", 3, vec![])]);
        let drawn = tree(Paint(false), &root);
        let wanted = "\
node        running    in flight 2
├─ a        running    in flight 2
│  └─ deep  running    in flight 2
└─ b        running    restarts 3, in flight 2
";
        assert_eq!(drawn, wanted);
    }
}
