//! Walks sources from actors to what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

/// What grows by itself.
const GROWS: &[&str] = &[
    "Vec",
    "VecDeque",
    "HashMap",
    "HashSet",
    "BTreeMap",
    "BTreeSet",
    "BinaryHeap",
    "LinkedList",
    "Slab",
    "HashTable",
    "IndexMap",
    "IndexSet",
    "DashMap",
    "SegQueue",
    "SmallVec",
    "TaskTracker",
    "StreamMap",
    "FuturesOrdered",
    "JoinSet",
    "FuturesUnordered",
    "DelayQueue",
    "UnboundedSender",
    "UnboundedReceiver",
];

/// What keeps a bound itself; of what stands in its angle brackets there are so many.
const BOUNDED: &[&str] = &[
    "LruPool",
    "DialPool",
    "TtlRegistry",
    "Sessions",
    "Admission",
    "ByteCache",
    "History",
    "Fanout",
    "Scratch",
    "TaskPool",
    "Tee",
    "Slots",
    "LruMap",
    "PhantomData",
];

/// A field of a type that an actor holds, which can grow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The type that has the field.
    pub(crate) holder: String,
    /// Its name, or its place in a tuple.
    pub(crate) field: String,
    /// What of it grows.
    pub(crate) what: String,
    /// The file it is in.
    pub(crate) file: String,
}

#[derive(Default)]
pub(crate) struct Sources {
    /// By name: a name may stand for several types, in different places. Aliases, associated types and statics are types of
    /// one field, and so is what a trait stands for: each type that it is implemented for.
    types: BTreeMap<String, Vec<Type>>,
    /// Traits that the sources define, and for what which trait is implemented.
    traits: BTreeSet<String>,
    impls: Vec<(String, Place, Names)>,
    parameters: BTreeSet<String>,
    /// The types of actors and of their states.
    actors: BTreeSet<(String, Place)>,
    channels: BTreeSet<String>,
}

struct Type {
    place: Place,
    fields: Vec<(String, Names)>,
}

/// A crate and a file of it.
type Place = (String, String);

impl Sources {
    /// Reads all files below `folder`, those of tests and `but` left out.
    pub(crate) fn read(&mut self, krate: &str, folder: &Path, but: &[&Path]) {
        let mut entries: Vec<_> =
            fs::read_dir(folder).expect("a folder of sources").map(|e| e.expect("entry").path()).collect();
        entries.sort();
        for path in entries {
            let for_tests = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "test");
            if for_tests || but.contains(&path.as_path()) {
                continue;
            }
            if path.is_dir() {
                self.read(krate, &path, but);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                self.add(krate, &path.display().to_string(), &text);
            }
        }
    }

    /// Adds one file.
    pub(crate) fn add(&mut self, krate: &str, file: &str, text: &str) {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut reader = Reader { sources: self, place: (krate.to_owned(), file.to_owned()) };
        reader.visit_file(&parsed);
    }

    /// The types of actors and of their states, by name and place.
    pub(crate) fn actors(&self) -> Vec<(String, Place)> {
        self.actors.iter().cloned().collect()
    }

    /// Files that name an unbounded channel.
    pub(crate) fn unbounded_channels(&self) -> Vec<String> {
        self.channels.iter().cloned().collect()
    }

    /// All types and statics of a crate.
    pub(crate) fn all_of(&self, krate: &str) -> Vec<(String, Place)> {
        let of = |(name, types): (&String, &Vec<Type>)| {
            let places = types.iter().map(|known| known.place.clone()).filter(|place| place.0 == krate);
            places.map(|place| (name.clone(), place)).collect::<Vec<_>>()
        };
        self.types.iter().flat_map(of).collect()
    }

    /// What can grow in `roots` and in all that they are made of, and the names in them that the sources do not explain.
    pub(crate) fn held_by(&self, roots: &[(String, Place)]) -> (Vec<Finding>, BTreeSet<String>) {
        let mut seen = BTreeSet::new();
        let mut to_do = roots.to_vec();
        let (mut found, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        while let Some((name, from)) = to_do.pop() {
            if self.traits.contains(&name) {
                for (_, place, names) in self.impls.iter().filter(|(of, ..)| *of == name) {
                    to_do.extend(names.others.iter().map(|other| (other.clone(), place.clone())));
                }
                continue;
            }
            let nearest = self.nearest(&name, &from);
            // What begins with a small letter is a number, or a renamed module.
            let is_type = name.starts_with(char::is_uppercase);
            if nearest.is_empty() && is_type && !self.parameters.contains(&name) {
                unknown.insert(name.clone());
            }
            for known in nearest {
                if !seen.insert((name.clone(), known.place.clone())) {
                    continue;
                }
                for (field, names) in &known.fields {
                    for what in &names.grows {
                        let (field, what, file) = (field.clone(), what.clone(), known.place.1.clone());
                        found.insert(Finding { holder: name.clone(), field, what, file });
                    }
                    // Whatever has the name of a bounded part and is none is looked at like everything else.
                    let impostors = names.bounded.iter().filter(|name| self.is_defined(name));
                    let others = names.others.iter().chain(impostors);
                    to_do.extend(others.map(|other| (other.clone(), known.place.clone())));
                }
            }
        }
        (found.into_iter().collect(), unknown)
    }

    /// Whether a type of that name is defined in what was read, elsewhere than among the tables of slots.
    fn is_defined(&self, name: &str) -> bool {
        self.types.get(name).is_some_and(|types| types.iter().any(|known| known.place.0 != "plimsoll-sync"))
    }

    /// The types of that name in the same file; if there is none, those of the same crate, and then those of any.
    fn nearest(&self, name: &str, from: &Place) -> Vec<&Type> {
        let all = self.types.get(name).map(Vec::as_slice).unwrap_or_default();
        let of =
            |near: &dyn Fn(&Place) -> bool| -> Vec<&Type> { all.iter().filter(|known| near(&known.place)).collect() };
        let here = of(&|place| place == from);
        let in_crate = of(&|place| place.0 == from.0);
        if !here.is_empty() {
            here
        } else if !in_crate.is_empty() {
            in_crate
        } else {
            of(&|_| true)
        }
    }
}

struct Reader<'a> {
    sources: &'a mut Sources,
    place: Place,
}

fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().starts_with("test"))
    })
}

fn unbounded(name: &str) -> bool {
    name.starts_with("Unbounded") || name == "unbounded_channel" || name == "unbounded"
}

fn ends_with_std_channel(path: &syn::Path) -> bool {
    let mut last = path.segments.iter().rev();
    last.next().is_some_and(|name| name.ident == "channel") && last.next().is_none_or(|module| module.ident == "mpsc")
}

impl Reader<'_> {
    fn add_type(&mut self, name: impl ToString, fields: Vec<(String, Names)>) {
        let known = Type { place: self.place.clone(), fields };
        self.sources.types.entry(name.to_string()).or_default().push(known);
    }

    /// A parameter stands for whatever has the traits that it is bound by.
    fn add_parameters(&mut self, generics: &syn::Generics) -> Names {
        let mut bounds = Names::default();
        for parameter in generics.type_params() {
            self.sources.parameters.insert(parameter.ident.to_string());
            parameter.bounds.iter().for_each(|bound| bounds.add_bound(bound));
        }
        for parameter in generics.const_params() {
            self.sources.parameters.insert(parameter.ident.to_string());
        }
        for predicate in generics.where_clause.iter().flat_map(|clause| &clause.predicates) {
            if let syn::WherePredicate::Type(of) = predicate {
                of.bounds.iter().for_each(|bound| bounds.add_bound(bound));
            }
        }
        bounds
    }

    fn add_actor(&mut self, ty: &syn::Type, bounds: &Names) {
        let names = Names::of(ty);
        for name in names.others.iter().chain(&bounds.others) {
            self.sources.actors.insert((name.clone(), self.place.clone()));
        }
        if !names.grows.is_empty() {
            // The state itself grows: shown as a type of that name with one field.
            let name = format!("the state of an actor in {}", self.place.1);
            self.sources.actors.insert((name.clone(), self.place.clone()));
            let known = Type { place: self.place.clone(), fields: vec![("itself".into(), names)] };
            self.sources.types.entry(name).or_default().push(known);
        }
    }
}

fn fields(fields: &syn::Fields) -> Vec<(String, Names)> {
    let named = |(at, field): (usize, &syn::Field)| {
        (field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string), Names::of(&field.ty))
    };
    fields.iter().enumerate().map(named).collect()
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if !for_tests(&item.attrs) {
            let mut fields = fields(&item.fields);
            fields.push(("parameters".into(), self.add_parameters(&item.generics)));
            self.add_type(&item.ident, fields);
            visit::visit_item_struct(self, item);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        if !for_tests(&item.attrs) {
            let mut all: Vec<_> = item.variants.iter().flat_map(|variant| fields(&variant.fields)).collect();
            all.push(("parameters".into(), self.add_parameters(&item.generics)));
            self.add_type(&item.ident, all);
            visit::visit_item_enum(self, item);
        }
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add_parameters(&item.generics);
        self.add_type(&item.ident, vec![("alias".into(), Names::of(&item.ty))]);
        visit::visit_item_type(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.sources.traits.insert(item.ident.to_string());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        if !for_tests(&item.attrs) {
            self.add_type(&item.ident, vec![("static".into(), Names::of(&item.ty))]);
            visit::visit_item_static(self, item);
        }
    }

    fn visit_use_rename(&mut self, item: &'ast syn::UseRename) {
        if unbounded(&item.ident.to_string()) {
            self.sources.channels.insert(self.place.1.clone());
        }
        let mut names = Names::default();
        names.add(item.ident.to_string());
        if item.rename != "_" {
            self.add_type(&item.rename, vec![("alias".into(), names)]);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        // The channel of the standard library is unbounded; tokio's takes its bound.
        if let syn::Expr::Path(function) = &*call.func
            && call.args.is_empty()
            && ends_with_std_channel(&function.path)
        {
            self.sources.channels.insert(self.place.1.clone());
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // What is in a macro's brackets is words only.
        let text = item.tokens.to_string();
        if text.split(|c: char| !c.is_alphanumeric() && c != '_').any(unbounded) {
            self.sources.channels.insert(self.place.1.clone());
        }
        visit::visit_macro(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if for_tests(&item.attrs) {
            return;
        }
        let of =
            item.trait_.as_ref().and_then(|(path, _)| path.segments.last()).map(|segment| segment.ident.to_string());
        let bounds = self.add_parameters(&item.generics);
        // A `Server` of the library is its own state, as in OTP.
        let is_actor = matches!(of.as_deref(), Some("Actor" | "ThreadLocalActor" | "Server"));
        if is_actor {
            self.add_actor(&item.self_ty, &bounds);
        }
        for inner in &item.items {
            if let syn::ImplItem::Type(associated) = inner {
                if is_actor && associated.ident == "State" {
                    self.add_actor(&associated.ty, &bounds);
                } else if of.is_some() {
                    self.add_type(&associated.ident, vec![("associated".into(), Names::of(&associated.ty))]);
                }
            }
        }
        if let Some(of) = of {
            self.sources.impls.push((of, self.place.clone(), Names::of(&item.self_ty)));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.iter().any(|segment| unbounded(&segment.ident.to_string())) {
            self.sources.channels.insert(self.place.1.clone());
        }
        visit::visit_path(self, path);
    }

    fn visit_use_name(&mut self, name: &'ast syn::UseName) {
        if unbounded(&name.ident.to_string()) {
            self.sources.channels.insert(self.place.1.clone());
        }
    }
}

/// The names in a type: of what grows, of what keeps a bound itself, and of everything else.
#[derive(Default)]
struct Names {
    grows: Vec<String>,
    bounded: Vec<String>,
    others: Vec<String>,
}

impl Names {
    fn of(ty: &syn::Type) -> Self {
        let mut names = Self::default();
        names.visit_type(ty);
        names
    }

    fn add(&mut self, name: String) {
        if BOUNDED.contains(&name.as_str()) {
            self.bounded.push(name);
        } else if GROWS.contains(&name.as_str()) {
            self.grows.push(name);
        } else {
            self.others.push(name);
        }
    }

    fn add_bound(&mut self, bound: &syn::TypeParamBound) {
        if let syn::TypeParamBound::Trait(bound) = bound
            && let Some(last) = bound.path.segments.last()
        {
            let name = last.ident.to_string();
            // What a closure holds is not in its type, and a marker is held by nobody.
            let marks = ["Fn", "FnMut", "FnOnce", "Send", "Sync", "Sized", "Unpin", "Copy", "Clone", "Debug", "Future"];
            if !marks.contains(&name.as_str()) {
                self.add(name);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_type_path(&mut self, ty: &'ast syn::TypePath) {
        let Some(last) = ty.path.segments.last() else { return };
        self.add(last.ident.to_string());
        visit::visit_type_path(self, ty);
    }

    // What a function takes or gives is not held by whoever holds the function.
    fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}

    fn visit_parenthesized_generic_arguments(&mut self, _: &'ast syn::ParenthesizedGenericArguments) {}

    fn visit_type_trait_object(&mut self, object: &'ast syn::TypeTraitObject) {
        object.bounds.iter().for_each(|bound| self.add_bound(bound));
    }
}
