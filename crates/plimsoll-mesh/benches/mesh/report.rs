//! Rows as a table and as JSON.

use serde::Serialize;

/// One line of the table. `ratio` is ours to theirs in time and memory, theirs to ours in throughput: smaller is better.
#[derive(Debug, Serialize)]
pub struct Row {
    pub bench: String,
    pub ours: f64,
    pub unit: &'static str,
    pub peer: Option<String>,
    pub theirs: Option<f64>,
    pub ratio: Option<f64>,
    pub goal: Option<f64>,
    pub met: Option<bool>,
}

/// Rounds of ours and theirs, paired: the two of one pair ran one after the other.
#[derive(Debug, Default)]
pub struct Pairs(pub Vec<(f64, f64)>);

impl Pairs {
    fn median(&self, value: impl Fn(&(f64, f64)) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// A row of time or memory: the ratio is the median of the rounds' ratios.
    pub fn less(&self, bench: String, unit: &'static str, peer: &str, goal: Option<f64>) -> Row {
        self.row(bench, unit, peer, self.median(|(ours, theirs)| ours / theirs), goal)
    }

    /// A row of throughput.
    pub fn more(&self, bench: String, unit: &'static str, peer: &str, goal: Option<f64>) -> Row {
        self.row(bench, unit, peer, self.median(|(ours, theirs)| theirs / ours), goal)
    }

    fn row(&self, bench: String, unit: &'static str, peer: &str, ratio: f64, goal: Option<f64>) -> Row {
        Row {
            bench,
            ours: self.median(|pair| pair.0),
            unit,
            peer: Some(peer.to_owned()),
            theirs: Some(self.median(|pair| pair.1)),
            ratio: Some(ratio),
            goal,
            met: goal.map(|goal| ratio <= goal),
        }
    }
}

/// Prints the table and writes `target/bench/mesh.json`.
pub fn publish(rows: &[Row]) -> std::io::Result<()> {
    println!(
        "{:<64} {:>9} {:<9} {:>9} {:>6} {:>5} {:>4}  peer",
        "what", "ours", "unit", "theirs", "ratio", "goal", "met"
    );
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    for row in rows {
        println!(
            "{:<64} {:>9.1} {:<9} {:>9} {:>6} {:>5} {:>4}  {}",
            row.bench,
            row.ours,
            row.unit,
            number(row.theirs, 1),
            number(row.ratio, 2),
            number(row.goal, 2),
            row.met.map_or("-", |met| if met { "yes" } else { "NO" }),
            row.peer.as_deref().unwrap_or("-"),
        );
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("mesh.json"), serde_json::to_vec_pretty(rows)?)
}
