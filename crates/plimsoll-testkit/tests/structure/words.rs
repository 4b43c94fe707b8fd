//! Terms of the field in place of private words.
//!
//! The lists hold words that once stood for something that has a common name. Those that the sources still use are counted
//! in `words.txt`, by crate, since files move: a count may only go down. `PLIMSOLL_LOWER=1` writes the lower counts there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use syn::Ident;
use syn::visit::{self, Visit};

use crate::workspace::{files, members, root};

/// Never, in code or prose.
const ANYWHERE: &[&str] = &[
    "anchor",
    "bell",
    "crew",
    "desk",
    "door",
    "doubtful",
    "errand",
    "farewell",
    "glance",
    "greeting",
    "household",
    "hush",
    "keeper",
    "lookout",
    "newcomer",
    "pump",
    "rung",
    "tide",
    "untold",
];

/// No part of an identifier; in a sentence they are plain English.
const IN_IDENTIFIERS: &[&str] = &[
    "absorb",
    "account",
    "alarm",
    "book",
    "broken",
    "carrier",
    "charge",
    "cover",
    "face",
    "forge",
    "owe",
    "owed",
    "promising",
    "silence",
    "strike",
    "told",
    "trouble",
    "whoever",
];

/// No identifier begins or ends with one of these.
const COMPOUNDS: &[&str] = &["in_hand", "leave_behind", "left_behind", "own_end", "switched_off"];

/// No file and no module has one of these names.
const MODULES: &[&str] = &[
    "acting", "behind", "due", "early", "ending", "floor", "flow", "frame", "group", "hold", "line", "living",
    "making", "post", "rest", "ring", "within",
];

/// No type has one of these names.
const TYPES: &[&str] =
    &["Ask", "Gone", "How", "Serving", "Told", "Tree", "Trouble", "Troubles", "Turn", "What", "Why", "Word"];

/// Identifiers of other crates.
const FOREIGN: &[&str] = &["BrokenPipe", "alarm"];

type Counts = BTreeMap<(String, String), (usize, Vec<String>)>;

struct Counter<'a> {
    krate: &'a str,
    file: &'a str,
    counts: &'a mut Counts,
}

impl Counter<'_> {
    fn count(&mut self, word: &str, at: &str) {
        let (count, places) = self.counts.entry((self.krate.to_owned(), word.to_owned())).or_default();
        *count += 1;
        places.push(format!("{}: {at}", self.file));
    }

    fn prose(&mut self, text: &str) {
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            for word in parts(word).filter_map(|part| listed(&part, ANYWHERE)) {
                self.count(word, text.trim());
            }
        }
    }

    fn identifier(&mut self, name: &str) {
        if FOREIGN.contains(&name) {
            return;
        }
        for part in parts(name) {
            if let Some(word) = listed(&part, ANYWHERE).or_else(|| listed(&part, IN_IDENTIFIERS)) {
                self.count(word, name);
            }
        }
        let snake = parts(name).collect::<Vec<_>>().join("_");
        let compound = COMPOUNDS.iter().find(|compound| snake.starts_with(**compound) || snake.ends_with(**compound));
        if let Some(compound) = compound {
            self.count(compound, name);
        }
    }

    fn declared_type(&mut self, name: &Ident) {
        if let Some(word) = TYPES.iter().find(|word| name == *word) {
            self.count(word, "a type");
        }
    }

    fn rust(&mut self, text: &str) {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", self.file));
        self.visit_file(&parsed);
        for comment in text.lines().filter_map(|line| line.split_once("// ")) {
            self.prose(comment.1);
        }
    }
}

impl<'ast> Visit<'ast> for Counter<'_> {
    fn visit_ident(&mut self, name: &'ast Ident) {
        self.identifier(&name.to_string());
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        text.value().lines().for_each(|line| self.prose(line));
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        self.prose(&invoked.tokens.to_string());
        visit::visit_macro(self, invoked);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.declared_type(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.declared_type(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.declared_type(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.declared_type(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if let Some(word) = MODULES.iter().find(|word| item.ident == *word) {
            self.count(word, "a module");
        }
        visit::visit_item_mod(self, item);
    }
}

/// The lower-case words of an identifier in either case.
fn parts(name: &str) -> impl Iterator<Item = String> {
    let mut parts = vec![String::new()];
    let mut before_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before_lower) {
            parts.push(String::new());
        }
        before_lower = c.is_lowercase() || c.is_numeric();
        if c != '_' {
            parts.last_mut().expect("never empty").extend(c.to_lowercase());
        }
    }
    parts.into_iter().filter(|part| !part.is_empty())
}

/// The word of the list that this is, in the singular or plural.
fn listed(word: &str, list: &[&'static str]) -> Option<&'static str> {
    list.iter().find(|known| word == **known || word.strip_suffix('s') == Some(**known)).copied()
}

/// What the sources and pages use of the lists: by crate (`docs` for pages) and word, how often and where.
fn used() -> Counts {
    let mut counts = Counts::new();
    for member in members() {
        let krate = member.rsplit('/').next().expect("a path has a last part");
        for (file, text) in files(&root().join(&member).join("src"), "rs", &[]) {
            Counter { krate, file: &file, counts: &mut counts }.rust(&text);
        }
    }
    for (file, text) in files(&root().join("docs"), "md", &["glossary.md"]) {
        text.lines().for_each(|line| Counter { krate: "docs", file: &file, counts: &mut counts }.prose(line));
    }
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(file)).expect(file);
        text.lines().for_each(|line| Counter { krate: "docs", file, counts: &mut counts }.prose(line));
    }
    counts
}

#[test]
fn private_words_only_become_fewer() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/structure/words.txt");
    let text = fs::read_to_string(&list).expect("words.txt");
    let mut allowed = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let [krate, word, count] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("words.txt: {line:?}") };
        allowed.insert((krate.to_owned(), word.to_owned()), count.parse::<usize>().expect(line));
    }
    let used = used();
    let mut more = String::new();
    for (key @ (krate, word), (count, places)) in &used {
        let allowed = allowed.get(key).copied().unwrap_or(0);
        if *count > allowed {
            let _ = writeln!(
                more,
                "{krate}: {word:?} {count} times, at most {allowed} are left:\n  {}",
                places.join("\n  ")
            );
        }
    }
    assert!(more.is_empty(), "words that have a common name (see docs/glossary.md):\n{more}");
    let mut lower =
        String::from("# crate, word, uses that are left: crates/plimsoll-testkit/tests/structure/words.rs\n");
    for ((krate, word), (count, _)) in &used {
        let _ = writeln!(lower, "{krate} {word} {count}");
    }
    if std::env::var_os("PLIMSOLL_LOWER").is_some() {
        fs::write(&list, lower).expect("words.txt");
        return;
    }
    let stale: Vec<_> = allowed.keys().filter(|key| !used.contains_key(*key)).collect();
    assert!(stale.is_empty(), "in words.txt and used no more, remove them (PLIMSOLL_LOWER=1): {stale:?}");
}

#[test]
fn a_word_is_found_in_both_cases_in_the_plural_and_in_prose() {
    let mut counts = Counts::new();
    let mut counter = Counter { krate: "a", file: "a.rs", counts: &mut counts };
    counter.rust("// The household.\nmod post {}\nstruct What;\nstruct OwnEndBooks { left_behind: () }\n#[doc = \"door\"]\nfn f() { panic!(\"desks\") }");
    let found: Vec<_> = counts.keys().map(|(_, word)| word.as_str()).collect();
    assert_eq!(found, ["What", "book", "desk", "door", "household", "left_behind", "own_end", "post"]);
    let mut counts = Counts::new();
    Counter { krate: "a", file: "a.rs", counts: &mut counts }
        .rust("/// In the face of it.\nfn doorway() -> Whatever {}");
    assert!(counts.is_empty(), "{counts:?}");
}
