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
    "JoinSet",
    "FuturesUnordered",
    "DelayQueue",
    "UnboundedSender",
    "UnboundedReceiver",
];

/// What keeps a bound itself: what stands in its angle brackets is its entries.
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
    "SlotTable",
    "Recent",
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
    /// By name: a name may stand for several types, in different places.
    types: BTreeMap<String, Vec<Type>>,
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
    /// Reads all files below `folder`, those of tests and of the bounded parts left out.
    pub(crate) fn read(&mut self, krate: &str, folder: &Path) {
        let mut entries: Vec<_> =
            fs::read_dir(folder).expect("a folder of sources").map(|e| e.expect("entry").path()).collect();
        entries.sort();
        for path in entries {
            // The bounded parts are what is to be used; their own insides are held against models.
            let skipped = ["tests", "test", "bounded"];
            if path.file_stem().is_some_and(|stem| skipped.iter().any(|skipped| stem == *skipped)) {
                continue;
            }
            if path.is_dir() {
                self.read(krate, &path);
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

    /// What can grow in `roots` and in all that they are made of.
    pub(crate) fn held_by(&self, roots: &[(String, Place)]) -> Vec<Finding> {
        let mut seen = BTreeSet::new();
        let mut to_do = roots.to_vec();
        let mut found = BTreeSet::new();
        while let Some((name, from)) = to_do.pop() {
            for known in self.nearest(&name, &from) {
                if !seen.insert((name.clone(), known.place.clone())) {
                    continue;
                }
                for (field, names) in &known.fields {
                    for what in &names.grows {
                        let (field, what, file) = (field.clone(), what.clone(), known.place.1.clone());
                        found.insert(Finding { holder: name.clone(), field, what, file });
                    }
                    to_do.extend(names.others.iter().map(|other| (other.clone(), known.place.clone())));
                }
            }
        }
        found.into_iter().collect()
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

impl Reader<'_> {
    fn add_type(&mut self, name: &syn::Ident, fields: Vec<(String, Names)>) {
        let known = Type { place: self.place.clone(), fields };
        self.sources.types.entry(name.to_string()).or_default().push(known);
    }

    fn add_actor(&mut self, ty: &syn::Type) {
        let names = Names::of(ty);
        for name in &names.others {
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
            self.add_type(&item.ident, fields(&item.fields));
            visit::visit_item_struct(self, item);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        if !for_tests(&item.attrs) {
            let all = item.variants.iter().flat_map(|variant| fields(&variant.fields)).collect();
            self.add_type(&item.ident, all);
            visit::visit_item_enum(self, item);
        }
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add_type(&item.ident, vec![("alias".into(), Names::of(&item.ty))]);
        visit::visit_item_type(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if for_tests(&item.attrs) {
            return;
        }
        let of =
            item.trait_.as_ref().and_then(|(path, _)| path.segments.last()).map(|segment| segment.ident.to_string());
        // A `Server` of the library is its own state, as in OTP.
        if matches!(of.as_deref(), Some("Actor" | "ThreadLocalActor" | "Server")) {
            self.add_actor(&item.self_ty);
            for inner in &item.items {
                if let syn::ImplItem::Type(state) = inner
                    && state.ident == "State"
                {
                    self.add_actor(&state.ty);
                }
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let unbounded =
            |name: &str| name.starts_with("Unbounded") || name == "unbounded_channel" || name == "unbounded";
        if path.segments.iter().any(|segment| unbounded(&segment.ident.to_string())) {
            self.sources.channels.insert(self.place.1.clone());
        }
        visit::visit_path(self, path);
    }

    fn visit_use_name(&mut self, name: &'ast syn::UseName) {
        if ["unbounded_channel", "UnboundedSender", "UnboundedReceiver"].iter().any(|known| name.ident == known) {
            self.sources.channels.insert(self.place.1.clone());
        }
    }
}

/// The names in a type: of what grows, and of everything else. What a bounded part holds is left out.
#[derive(Default)]
struct Names {
    grows: Vec<String>,
    others: Vec<String>,
}

impl Names {
    fn of(ty: &syn::Type) -> Self {
        let mut names = Self::default();
        names.visit_type(ty);
        names
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_type_path(&mut self, ty: &'ast syn::TypePath) {
        let Some(last) = ty.path.segments.last() else { return };
        let name = last.ident.to_string();
        if BOUNDED.contains(&name.as_str()) {
            return;
        }
        if GROWS.contains(&name.as_str()) {
            self.grows.push(name);
        } else {
            self.others.push(name);
        }
        visit::visit_type_path(self, ty);
    }

    // What a function takes or gives is not held by whoever holds the function.
    fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}

    fn visit_type_trait_object(&mut self, _: &'ast syn::TypeTraitObject) {}
}
