//! What the documentation of public items has: a `Cancel safe` line for each async function, an `# Errors` section for each
//! result, a compiled example for each type that users build and each trait, and JSON for each error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, ReturnType, Signature, Type, Visibility};

use crate::workspace::{files, root};

#[derive(Default)]
struct Api {
    /// Types that users build and traits.
    built: BTreeSet<String>,
    /// Types with an example, of their own or of a function.
    examples: BTreeSet<String>,
    errors: BTreeSet<String>,
    public: BTreeSet<String>,
    /// By type, or nothing for a free function, and by function.
    faults: BTreeMap<(String, String), &'static str>,
    /// The type or trait whose functions are visited.
    of: Option<String>,
}

fn docs(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        let Meta::NameValue(doc) = &attribute.meta else { continue };
        if let (true, Expr::Lit(value)) = (doc.path.is_ident("doc"), &doc.value)
            && let Lit::Str(line) = &value.lit
        {
            text += &line.value();
            text.push('\n');
        }
    }
    text
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("doc") => list.tokens.to_string().contains("hidden"),
        Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        _ => false,
    })
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The name of the type that a function returns, without its parameters: `Result`, `Self`.
fn returned(signature: &Signature) -> String {
    match &signature.output {
        ReturnType::Type(_, output) => name_of(output),
        ReturnType::Default => String::new(),
    }
}

fn name_of(of: &Type) -> String {
    match of {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

impl Api {
    fn function(&mut self, attributes: &[Attribute], signature: &Signature) {
        let (docs, name) = (docs(attributes), &signature.ident);
        let of = self.of.clone().unwrap_or_default();
        let mut fault = |what| {
            self.faults.insert((of.clone(), name.to_string()), what);
        };
        if signature.asyncness.is_some() && !docs.contains("Cancel safe") && !docs.contains("Not cancel safe") {
            fault("no line that says whether it is cancel safe");
        }
        if returned(signature) == "Result" && !docs.contains("# Errors") {
            fault("no `# Errors`");
        }
        if let Some(of) = &self.of {
            let output = returned(signature);
            let builds = output == "Self" || output == *of || output.ends_with("Builder");
            if builds && signature.receiver().is_none() {
                self.built.insert(of.clone());
            }
            if docs.contains("```") {
                self.examples.insert(of.clone());
            }
        }
    }

    fn declared(&mut self, name: &str, attributes: &[Attribute], public: bool) {
        if docs(attributes).contains("```") {
            self.examples.insert(name.to_owned());
        }
        let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
        let mut derives = derives.filter_map(|attribute| attribute.meta.require_list().ok());
        if public && derives.any(|list| list.tokens.to_string().split([',', ':']).any(|part| part.trim() == "Error")) {
            self.errors.insert(name.to_owned());
        }
        if public {
            self.public.insert(name.to_owned());
        }
        if public && name.ends_with("Builder") {
            self.built.insert(name.to_owned());
        }
    }
}

impl<'ast> Visit<'ast> for Api {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Struct(item) => {
                self.declared(&item.ident.to_string(), &item.attrs, is_public(&item.vis));
            }
            Item::Enum(item) => self.declared(&item.ident.to_string(), &item.attrs, is_public(&item.vis)),
            Item::Fn(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => self.function(&item.attrs, &item.sig),
            Item::Mod(item) if is_hidden(&item.attrs) => return,
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if !is_public(&item.vis) || is_hidden(&item.attrs) {
            return;
        }
        self.declared(&item.ident.to_string(), &item.attrs, true);
        self.of = Some(item.ident.to_string());
        for function in &item.items {
            if let syn::TraitItem::Fn(function) = function
                && !is_hidden(&function.attrs)
            {
                self.function(&function.attrs, &function.sig);
            }
        }
        self.of = None;
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.trait_.is_some() {
            return;
        }
        self.of = Some(name_of(&item.self_ty));
        for function in &item.items {
            if let ImplItem::Fn(function) = function
                && is_public(&function.vis)
                && !is_hidden(&function.attrs)
            {
                self.function(&function.attrs, &function.sig);
            }
        }
        self.of = None;
    }
}

/// What the sources of `krate` declare.
fn api(krate: &str) -> Api {
    let mut api = Api::default();
    for (file, text) in files(&root().join("crates").join(krate).join("src"), "rs", &["/tests"]) {
        api.visit_file(&syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}")));
    }
    let Api { public, faults, built, .. } = &mut api;
    faults.retain(|(of, _), _| of.is_empty() || public.contains(of));
    built.retain(|of| public.contains(of));
    api
}

#[test]
fn public_functions_say_how_they_fail_and_whether_they_are_cancel_safe() {
    let faults = api("plimsoll").faults;
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_users_build_has_an_example() {
    let api = api("plimsoll");
    let without: Vec<_> = api.built.difference(&api.examples).collect();
    assert!(without.is_empty(), "{without:?}");
    assert!(api.built.len() > 20, "types were not found: {:?}", api.built);
}

#[test]
fn every_error_is_serialized() {
    let list = fs::read_to_string(root().join("crates/plimsoll/src/serialize_error.rs")).expect("serialize_error.rs");
    let listed: BTreeSet<_> =
        list.lines().filter_map(|line| line.trim().strip_suffix(',')).map(str::to_owned).collect();
    let missing: Vec<_> = api("plimsoll").errors.into_iter().filter(|error| !listed.contains(error)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_missing_is_found() {
    let mut api = Api::default();
    let source = "pub struct ABuilder; impl ABuilder { pub async fn a(&self) -> Result<(), ()> { todo() } fn b() {} }
        #[derive(Debug, thiserror::Error)] pub enum E {} /// ```\n pub struct C; pub(crate) struct D;
        pub trait T { fn t(&self) -> Result<(), ()>; } impl C { pub fn new() -> Self { C } }
        pub struct F; impl F { pub fn new() -> Self { F } }";
    api.visit_file(&syn::parse_str(source).unwrap());
    assert_eq!(api.faults.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["a", "t"]);
    assert_eq!(api.built.difference(&api.examples).collect::<Vec<_>>(), ["ABuilder", "F"]);
    assert_eq!((api.errors.contains("E"), api.public.contains("D")), (true, false));
}
