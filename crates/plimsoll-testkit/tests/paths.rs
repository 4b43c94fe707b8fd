//! Every file and folder that the front pages name is there, and the name says which one is meant.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Pages that name files of this repository.
const PAGES: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

/// What files end with that are named without their folder.
const ENDINGS: [&str; 5] = [".rs", ".md", ".py", ".toml", "justfile"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Paths of all files and folders below `folder`, relative to the root; folders end with `/`.
fn tree(folder: &Path, prefix: &str, paths: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.unwrap_or_else(|error| panic!("{error}"));
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if path == "target" || path == ".git" {
            continue;
        }
        if entry.path().is_dir() {
            paths.insert(format!("{path}/"));
            tree(&entry.path(), &format!("{path}/"), paths);
        } else {
            paths.insert(path);
        }
    }
}

/// Names of files and folders in code spans, blocks of code and links of a page.
fn named(page: &str) -> BTreeSet<String> {
    // Blocks first: a drawing in one may have single backticks.
    let prose = page.split("```").step_by(2);
    let spans = prose.flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let spans = spans.filter(|span| !span.contains(char::is_whitespace));
    let blocks = page.split("```").skip(1).step_by(2).flat_map(str::split_whitespace);
    let links = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let path = |word: &&str| {
        let word = word.trim_end_matches(',');
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        let numbered = word.rsplit('/').next().is_some_and(|last| !last.is_empty() && last.parse::<u32>().is_ok());
        let named = ENDINGS.iter().any(|ending| word.len() > ending.len() && word.ends_with(ending));
        let foldered = word.contains('/') && !word.starts_with(['/', '.']);
        word.chars().all(plain) && (named || foldered) && !numbered && !word.starts_with("target/")
    };
    // In a block only what ends like a file: commands have arguments of every kind.
    let blocks = blocks.filter(|word| ENDINGS.iter().any(|ending| word.ends_with(ending)));
    let words = spans.chain(blocks).filter(path).chain(links.filter(|link| !link.contains("://") && !link.is_empty()));
    words.map(|word| word.trim_end_matches(',').to_owned()).collect()
}

/// What of `paths` a page may mean by `name`: that path, else whatever ends with it below a `src`, else anywhere.
fn meant<'a>(name: &str, paths: &'a BTreeSet<String>) -> Vec<&'a str> {
    let folder = format!("{}/", name.trim_end_matches('/'));
    let exact = paths.iter().find(|path| **path == name || **path == folder);
    if let Some(exact) = exact {
        return vec![exact];
    }
    let ends = |path: &&String| {
        [name, &*folder].iter().any(|name| path.strip_suffix(name).is_some_and(|before| before.ends_with('/')))
    };
    let all: Vec<&str> = paths.iter().filter(ends).map(String::as_str).collect();
    let shipped: Vec<&str> = all.iter().copied().filter(|path| path.contains("/src/")).collect();
    if shipped.is_empty() { all } else { shipped }
}

#[test]
fn what_the_front_pages_name_is_there() {
    let mut paths = BTreeSet::new();
    tree(&root(), "", &mut paths);
    let mut wrong = Vec::new();
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        let names = named(&text);
        assert!(names.len() >= 3, "{page} was not understood: {names:?}");
        for name in names {
            match meant(&name, &paths)[..] {
                [_] => {}
                [] => wrong.push(format!("{page}: there is no {name}")),
                ref many => wrong.push(format!("{page}: {name} may be any of {many:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_name_that_is_wrong_is_found() {
    let paths: BTreeSet<String> =
        ["a/src/one.rs", "a/src/call/", "a/src/call/router.rs", "b/src/rpc/router.rs", "a/tests/one.rs", "README.md"]
            .map(str::to_owned)
            .into();
    let count = |name| meant(name, &paths).len();
    assert_eq!((count("one.rs"), count("call/"), count("call/router.rs"), count("README.md")), (1, 1, 1, 1));
    assert_eq!((count("router.rs"), count("two.rs"), count("all/router.rs")), (2, 0, 0));
    let page = "see `call/router.rs`, [this](docs/x.md#part) and `/v1/call/{service}`\n```sh\nrun one.rs -- a/b\n`- x\n```\n`README.md`";
    assert_eq!(named(page), ["README.md", "call/router.rs", "docs/x.md", "one.rs"].map(str::to_owned).into());
}
