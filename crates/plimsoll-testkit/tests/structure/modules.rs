//! The modules of a crate, and which of them refers to which.
//!
//! A reference is a `use`, or a path written out in the code or in a macro's arguments. It is followed through re-exports and
//! aliases to the file that defines the item, so a facade that only re-exports is never part of a cycle. Code for tests
//! (`#[cfg(test)]`) does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree, Visibility};

/// Aliases are followed this far; a longer chain is a re-export of itself.
const MAX_ALIASES: usize = 16;

/// The modules of one crate by their paths, such as `supervisor::spec`; the root is `crate`.
pub(crate) struct Modules {
    modules: Vec<Module>,
}

/// A module: a file, or an inline `mod` within one.
#[derive(Default)]
struct Module {
    /// Path of the module whose file it is in.
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names of the items that it defines itself.
    items: BTreeSet<String>,
    /// What `use` brings in, by its local name.
    aliases: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    references: Vec<Reference>,
}

struct Reference {
    path: Vec<String>,
    /// Whether it is a `pub use` of any visibility.
    exported: bool,
}

impl Modules {
    /// Reads the crate whose sources are below `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let root = ["lib.rs", "main.rs"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        let root = root.unwrap_or_else(|| panic!("no lib.rs or main.rs in {}", folder.display()));
        let mut modules = Self { modules: vec![Module { file: "crate".into(), ..Module::default() }] };
        modules.add_file(0, &root);
        modules
    }

    fn of(text: &str) -> Self {
        let mut modules = Self { modules: vec![Module { file: "crate".into(), ..Module::default() }] };
        modules.add_items(0, &syn::parse_file(text).unwrap().items, None);
        modules
    }

    fn add_file(&mut self, at: usize, file: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "main" | "mod") => file.parent().expect("a file has a folder").to_owned(),
            _ => file.with_extension(""),
        };
        self.add_items(at, &parsed.items, Some(&folder));
    }

    /// Adds the items of a module. Without a folder every inline `mod` counts as a file of its own.
    fn add_items(&mut self, at: usize, items: &[Item], folder: Option<&Path>) {
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            if let Some(name) = name(item) {
                self.modules[at].items.insert(name);
            }
            match item {
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let parent = &self.modules[at];
                    let own_file = module.content.is_none() || folder.is_none();
                    let file = match (own_file, parent.file.as_str()) {
                        (false, file) => file.to_owned(),
                        (true, "crate") => name.clone(),
                        (true, file) => format!("{file}::{name}"),
                    };
                    let child = self.modules.len();
                    self.modules.push(Module { file, parent: Some(at), ..Module::default() });
                    self.modules[at].children.insert(name.clone(), child);
                    match (&module.content, folder) {
                        (Some((_, items)), folder) => {
                            let inner = folder.map(|folder| folder.join(&name));
                            self.add_items(child, items, inner.as_deref());
                        }
                        (None, Some(folder)) => self.add_file(child, &file_of(folder, &name)),
                        (None, None) => panic!("mod {name} has no body"),
                    }
                }
                item => Reader(&mut self.modules[at]).visit_item(item),
            }
        }
    }

    /// By file, the files that it refers to.
    pub(crate) fn references(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (at, module) in self.modules.iter().enumerate() {
            let from = edges.entry(module.file.clone()).or_default();
            for reference in &module.references {
                for target in self.resolve(at, &reference.path, 0) {
                    let to = &self.modules[target].file;
                    let facade = reference.exported && is_below(to, &module.file);
                    if *to != module.file && !facade {
                        from.insert(to.clone());
                    }
                }
            }
        }
        edges
    }

    /// The modules that define what `path`, written in module `at`, stands for; none for another crate's item.
    fn resolve(&self, at: usize, path: &[String], aliases: usize) -> Vec<usize> {
        let Some((first, rest)) = path.split_first() else { return vec![at] };
        match first.as_str() {
            _ if aliases > MAX_ALIASES => Vec::new(),
            "crate" => self.resolve(0, rest, aliases),
            "self" => self.resolve(at, rest, aliases),
            "super" => self.modules[at].parent.map(|up| self.resolve(up, rest, aliases)).unwrap_or_default(),
            name => {
                let module = &self.modules[at];
                if let Some(child) = module.children.get(name) {
                    return self.resolve(*child, rest, aliases);
                }
                if module.items.contains(name) {
                    return vec![at];
                }
                if let Some(alias) = module.aliases.get(name) {
                    let path: Vec<_> = alias.iter().chain(rest).cloned().collect();
                    return self.resolve(at, &path, aliases + 1);
                }
                let through = |glob: &Vec<String>| {
                    let path: Vec<_> = glob.iter().chain(path).cloned().collect();
                    self.resolve(at, &path, aliases + 1)
                };
                module.globs.iter().flat_map(through).collect()
            }
        }
    }
}

fn is_below(path: &str, top: &str) -> bool {
    top == "crate" || path.strip_prefix(top).is_some_and(|rest| rest.starts_with("::"))
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    let flat = folder.join(format!("{name}.rs"));
    if flat.is_file() { flat } else { folder.join(name).join("mod.rs") }
}

/// Collects the names and references of a module's item, its inline modules left out.
struct Reader<'a>(&'a mut Module);

impl Reader<'_> {
    fn uses(&mut self, tree: &UseTree, mut path: Vec<String>, exported: bool) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.uses(&part.tree, path, exported);
            }
            UseTree::Name(name) => {
                if name.ident != "self" {
                    path.push(name.ident.to_string());
                }
                self.alias(path.last().cloned().unwrap_or_default(), path, exported);
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    path.push(rename.ident.to_string());
                }
                self.alias(rename.rename.to_string(), path, exported);
            }
            UseTree::Glob(_) => {
                self.0.globs.push(path.clone());
                self.0.references.push(Reference { path, exported });
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.uses(tree, path.clone(), exported);
                }
            }
        }
    }

    fn alias(&mut self, name: String, path: Vec<String>, exported: bool) {
        // `use name;` of another crate is no alias of anything here.
        if path.len() > 1 || path.first().is_some_and(|first| *first != name) {
            self.0.aliases.insert(name, path.clone());
        }
        self.0.references.push(Reference { path, exported });
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.uses(&item.tree, Vec::new(), !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_none() && segments.len() > 1 {
            self.0.references.push(Reference { path: segments, exported: false });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        for path in paths_in(&invoked.tokens.to_string()) {
            self.0.references.push(Reference { path, exported: false });
        }
        visit::visit_macro(self, invoked);
    }
}

/// Paths of two or more names in the tokens of a macro's arguments.
fn paths_in(tokens: &str) -> Vec<Vec<String>> {
    let spaced = tokens.replace("::", " :: ");
    let mut paths = vec![Vec::new()];
    let mut joined = false;
    for word in spaced.split(|c: char| c.is_whitespace() || "(){}[]<>,;&!.".contains(c)).filter(|word| !word.is_empty())
    {
        if word == "::" {
            joined = true;
            continue;
        }
        if !std::mem::take(&mut joined) {
            paths.push(Vec::new());
        }
        paths.last_mut().expect("never empty").push(word.to_owned());
    }
    let is_name = |part: &String| part.chars().all(|c| c.is_alphanumeric() || c == '_');
    paths.into_iter().filter(|path| path.len() > 1 && path.iter().all(is_name)).collect()
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let tokens = list.tokens.to_string().replace(' ', "");
            !tokens.contains("not(test") && tokens.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
        }
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

#[test]
fn a_reference_is_followed_to_the_file_that_defines_the_item() {
    let modules = Modules::of(
        "mod a { pub use b::Thing; mod b { pub struct Thing; use super::super::c::help; } }
         mod c { pub fn help(_: crate::a::Thing) {} #[cfg(test)] use crate::d; }
         mod d { use super::c as other; fn f() { other::help(vec![crate::a::Thing]) } }",
    );
    let edges = modules.references();
    let of = |file: &str| edges[file].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("a"), [""; 0], "a facade does not depend on what it re-exports");
    assert_eq!(of("a::b"), ["c"]);
    assert_eq!(of("c"), ["a::b"]);
    assert_eq!(of("d"), ["a::b", "c"]);
}
