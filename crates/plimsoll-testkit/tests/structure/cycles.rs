//! No two modules need each other.
//!
//! Compared are the modules of one folder, each with all that is below it: if anything in `a` refers to anything in `b`, then
//! `a` needs `b`. What a module and its own parts need of each other does not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::Modules;
use crate::workspace::{members, root};

/// Cycles that are still there: crate, folder (empty for the top), modules. An entry may become shorter, and one without a cycle
/// fails.
const ALLOWED: &[(&str, &str, &[&str])] = &[];

/// By module, the modules that it needs.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// What the modules of each folder need of each other.
fn by_folder(references: &Needs) -> BTreeMap<String, Needs> {
    let mut folders: BTreeMap<String, Needs> = BTreeMap::new();
    let pairs = references.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to)));
    for (from, to) in pairs.filter(|(from, to)| *from != "crate" && *to != "crate") {
        let (from, to): (Vec<_>, Vec<_>) = (from.split("::").collect(), to.split("::").collect());
        let shared = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
        let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) else { continue };
        let folder = folders.entry(from[..shared].join("::")).or_default();
        folder.entry((*one).to_owned()).or_default().insert((*other).to_owned());
    }
    folders
}

fn reachable<'a>(needs: &'a Needs, from: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        open.extend(needs.get(at).into_iter().flatten().map(String::as_str).filter(|next| found.insert(*next)));
    }
    found
}

/// The largest sets of modules each of which needs all others.
fn cycles(needs: &Needs) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<_, _> = needs.keys().map(|from| (from.as_str(), reachable(needs, from))).collect();
    let of = |at: &str| {
        let back = |other: &&str| reach.get(*other).is_some_and(|all| all.contains(at));
        reach[at].iter().copied().filter(back).map(str::to_owned).collect::<Vec<_>>()
    };
    reach.keys().map(|at| of(at)).filter(|cycle| !cycle.is_empty()).collect()
}

#[test]
fn no_modules_need_each_other() {
    let mut open = Vec::new();
    let mut used = BTreeSet::new();
    for member in members() {
        let krate = member.rsplit('/').next().expect("a path has a last part");
        let references = Modules::read(&root().join(&member).join("src")).references();
        for (folder, needs) in by_folder(&references) {
            for cycle in cycles(&needs) {
                let known = ALLOWED.iter().position(|(of, place, modules)| {
                    *of == krate && *place == folder && cycle.iter().all(|module| modules.contains(&module.as_str()))
                });
                match known {
                    Some(known) => drop(used.insert(known)),
                    None => open.push(described(krate, &folder, &cycle, &references)),
                }
            }
        }
    }
    assert!(open.is_empty(), "modules that need each other:\n{}", open.join("\n"));
    let gone: Vec<_> = (0..ALLOWED.len()).filter(|at| !used.contains(at)).map(|at| ALLOWED[at]).collect();
    assert!(gone.is_empty(), "no cycles any more, remove them from ALLOWED: {gone:?}");
}

/// A cycle with the references that make it one.
fn described(krate: &str, folder: &str, cycle: &[String], references: &Needs) -> String {
    let mut text = format!("{krate}, in {:?}: {}", folder, cycle.join(" "));
    let within = |module: &str| {
        let rest = if folder.is_empty() { Some(module) } else { module.strip_prefix(&format!("{folder}::")) };
        rest.and_then(|rest| rest.split("::").next())
            .filter(|name| cycle.iter().any(|module| module == name))
            .map(str::to_owned)
    };
    for (from, to) in references.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
        if let (Some(one), Some(other)) = (within(from), within(to))
            && one != other
        {
            text += &format!("\n  {from} -> {to}");
        }
    }
    text
}

#[test]
fn a_cycle_through_parts_of_two_modules_is_found_and_one_with_an_own_part_is_none() {
    let needs = |pairs: &[(&str, &str)]| {
        let mut needs = Needs::new();
        for (from, to) in pairs {
            needs.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        needs
    };
    let through_parts =
        by_folder(&needs(&[("top::a::x", "top::b"), ("top::b::y", "top::a::z"), ("top::a::x", "top::a")]));
    assert_eq!(cycles(&through_parts["top"]), BTreeSet::from([vec!["a".to_owned(), "b".to_owned()]]));
    let with_part = by_folder(&needs(&[("a", "a::x"), ("a::x", "a"), ("a::x", "b"), ("c", "a")]));
    assert_eq!(with_part.values().map(|needs| cycles(needs).len()).sum::<usize>(), 0);
}
