//! What a log line costs when nobody reads it: the sources are walked for text that is made for the log alone.

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// What makes text, or copies it, before anybody has asked whether the line is wanted.
const EAGER: &[&str] = &["format !", ". to_string ()", "String :: from", "serde_json ::", ". to_owned ()", ". collect"];

#[derive(Default)]
struct Lines {
    seen: usize,
    eager: Vec<String>,
}

impl Visit<'_> for Lines {
    fn visit_macro(&mut self, called: &syn::Macro) {
        let name = called.path.segments.last().map(|segment| segment.ident.to_string());
        if matches!(name.as_deref(), Some("debug" | "trace")) {
            self.seen += 1;
            let tokens = called.tokens.to_string();
            if EAGER.iter().any(|eager| tokens.contains(eager)) {
                self.eager.push(tokens);
            }
        }
        visit::visit_macro(self, called);
    }
}

fn lines(source: &str) -> Lines {
    let mut lines = Lines::default();
    lines.visit_file(&syn::parse_file(source).expect("it compiles, so it parses"));
    lines
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// no line for debugging makes its text before somebody has asked for that level.
#[test]
fn lines_for_debugging_are_made_only_when_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["plimsoll", "plimsoll-sync", "plimsoll-mesh", "plimsoll-console"] {
        sources(&root.join("crates").join(folder).join("src"), &mut files);
    }
    for folder in ["mesh-node", "image-proxy"] {
        sources(&root.join("examples").join(folder).join("src"), &mut files);
    }
    let (mut seen, mut eager) = (0, Vec::new());
    for file in files {
        let found = lines(&fs::read_to_string(&file).expect("readable"));
        seen += found.seen;
        eager.extend(found.eager.into_iter().map(|line| format!("{}: {line}", file.display())));
    }
    assert!(seen >= 5, "the lines were not found: {seen}");
    assert!(eager.is_empty(), "text made for a log that may not be read:\n{eager:#?}");
}

/// the walk finds what it looks for.
#[test]
fn eager_lines_are_found() {
    let source = |line: &str| format!("fn f() {{ if true {{ tracing::{line}; }} }}");
    for eager in [
        "debug!(body = %format!(\"{:?}\", 1), \"served\")",
        "trace!(json = serde_json::to_string(&1).unwrap())",
        "debug!(name = name.to_string())",
    ] {
        assert_eq!(lines(&source(eager)).eager.len(), 1, "{eager}");
    }
    for lazy in ["debug!(%error, \"served\")", "trace!(?body, size = body.len())", "warn!(name = name.to_string())"] {
        assert_eq!(lines(&source(lazy)).eager.len(), 0, "{lazy}");
    }
}
