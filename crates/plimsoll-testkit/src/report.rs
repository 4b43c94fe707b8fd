//! The results of end-to-end scenarios as JSON.
//!
//! Every test may run in a process of its own, so that each scenario is a file, and the list is put together anew from
//! all of them after each: `target/e2e/<name>.json`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One figure of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which scenario, in words.
    pub scenario: String,
    /// What was measured, with its unit.
    pub figure: String,
    /// What it had to be.
    pub bound: String,
    /// Whether it was.
    pub met: bool,
    /// What the control showed, where there is one.
    pub control: Option<String>,
}

/// The results of one set of scenarios.
#[derive(Debug, Clone)]
pub struct Report {
    folder: PathBuf,
    file: PathBuf,
}

impl Report {
    /// The report `name` below `target`, the build's target folder.
    pub fn new(target: &Path, name: &str) -> Self {
        let e2e = target.join("e2e");
        Self { folder: e2e.join(name), file: e2e.join(format!("{name}.json")) }
    }

    /// Writes the rows of one scenario, in place of any it wrote before, and the whole list anew.
    ///
    /// # Errors
    /// When a file cannot be written or a part is not JSON.
    pub fn write(&self, scenario: &str, rows: &[Row]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let lock = File::create(self.folder.join("lock"))?;
        lock.lock()?;
        fs::write(self.folder.join(format!("{scenario}.json")), serde_json::to_vec_pretty(rows)?)?;
        let mut parts: Vec<_> = fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        parts.sort();
        let mut all: Vec<Row> = Vec::new();
        for part in parts {
            all.extend(serde_json::from_slice::<Vec<Row>>(&fs::read(part)?)?);
        }
        let whole = self.folder.join("whole");
        fs::write(&whole, serde_json::to_vec_pretty(&all)?)?;
        fs::rename(whole, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: &str, figure: &str) -> Row {
        Row { scenario: scenario.into(), figure: figure.into(), bound: "any".into(), met: true, control: None }
    }

    #[test]
    fn scenarios_are_gathered_and_a_repeated_one_replaces_itself() {
        let target = tempfile::tempdir().unwrap();
        let report = Report::new(target.path(), "mesh");
        report.write("b", &[row("b", "1 s")]).unwrap();
        report.write("a", &[row("a", "2 s")]).unwrap();
        report.write("b", &[row("b", "3 s")]).unwrap();
        let list: Vec<Row> = serde_json::from_slice(&fs::read(target.path().join("e2e/mesh.json")).unwrap()).unwrap();
        assert_eq!(list, [row("a", "2 s"), row("b", "3 s")]);
    }
}
