//! Filters by level, so that the filters that match a topic are found without comparing each.
//!
//! Finding costs O(2^levels) at worst, with at most eight levels, and does not depend on how many filters there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::topic::{Filter, Topic};

/// Values by filter.
#[derive(Debug)]
pub(super) struct FilterTrie<V> {
    root: Node<V>,
    len: usize,
}

#[derive(Debug)]
struct Node<V> {
    value: Option<V>,
    children: HashMap<Arc<str>, Node<V>>,
}

impl<V> Default for FilterTrie<V> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { value: None, children: HashMap::new() }
    }
}

impl<V> FilterTrie<V> {
    pub(super) fn get(&self, filter: &Filter) -> Option<&V> {
        filter.levels().try_fold(&self.root, |node, level| node.children.get(level))?.value.as_ref()
    }

    pub(super) fn get_or_insert_with(&mut self, filter: &Filter, make: impl FnOnce() -> V) -> &mut V {
        let node = filter.levels().fold(&mut self.root, |node, level| node.children.entry(level.into()).or_default());
        node.value.get_or_insert_with(|| {
            self.len += 1;
            make()
        })
    }

    /// Removes a filter, and the levels that only it had.
    pub(super) fn remove(&mut self, filter: &Filter) -> Option<V> {
        let levels: Vec<_> = filter.levels().collect();
        let removed = self.root.remove(&levels)?;
        self.len -= 1;
        Some(removed)
    }

    /// Calls `found` with the value of every filter that matches `topic`.
    pub(super) fn matching(&self, topic: &Topic, found: &mut impl FnMut(&V)) {
        let levels: Vec<_> = topic.levels().collect();
        self.root.matching(&levels, found);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl<V: Clone> FilterTrie<V> {
    pub(super) fn values(&self) -> Vec<V> {
        let mut values = Vec::with_capacity(self.len);
        let mut left = vec![&self.root];
        while let Some(node) = left.pop() {
            values.extend(node.value.clone());
            left.extend(node.children.values());
        }
        values
    }
}

impl<V> Node<V> {
    fn remove(&mut self, levels: &[&str]) -> Option<V> {
        let Some((level, rest)) = levels.split_first() else { return self.value.take() };
        let children = self.children.get_mut(*level)?;
        let removed = children.remove(rest)?;
        if children.value.is_none() && children.children.is_empty() {
            self.children.remove(*level);
        }
        if self.children.is_empty() {
            self.children = HashMap::new();
        }
        Some(removed)
    }

    fn matching(&self, levels: &[&str], found: &mut impl FnMut(&V)) {
        if let Some(rest) = self.children.get("**") {
            rest.value.iter().for_each(&mut *found);
        }
        let Some((level, rest)) = levels.split_first() else {
            return self.value.iter().for_each(found);
        };
        for name in [*level, "*"] {
            if let Some(children) = self.children.get(name) {
                children.matching(rest, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn filter() -> impl Strategy<Value = Filter> {
        let level = prop_oneof![Just("a"), Just("b"), Just("*")];
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map("no levels", |(mut levels, rest)| {
            levels.extend(rest.then_some("**"));
            levels.join(".").parse().ok()
        })
    }

    fn topic() -> impl Strategy<Value = Topic> {
        prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..5)
            .prop_map(|levels| levels.join(".").parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// M-13: what a topic finds is what asking every filter would find; nothing is left of what was removed.
        #[test]
        fn a_trie_finds_what_a_list_finds(
            ops in prop::collection::vec((filter(), any::<bool>()), 0..30),
            topics in prop::collection::vec(topic(), 1..5),
        ) {
            let (mut trie, mut list) = (FilterTrie::default(), BTreeMap::new());
            for (filter, insert) in ops {
                let name = filter.as_str().to_owned();
                if insert {
                    trie.get_or_insert_with(&filter, || name.clone());
                    list.insert(name, filter);
                } else {
                    prop_assert_eq!(trie.remove(&filter), list.remove(&name).map(|_| name));
                }
                prop_assert_eq!(trie.len(), list.len());
            }
            for topic in &topics {
                let mut found = Vec::new();
                trie.matching(topic, &mut |name: &String| found.push(name.clone()));
                found.sort();
                let expected: Vec<_> =
                    list.iter().filter(|(_, filter)| filter.matches(topic)).map(|(name, _)| name.clone()).collect();
                prop_assert_eq!(found, expected);
            }
            let mut values = trie.values();
            values.sort();
            prop_assert_eq!(&values, &list.keys().cloned().collect::<Vec<_>>());
            for filter in list.values() {
                prop_assert_eq!(trie.get(filter).map(String::as_str), Some(filter.as_str()));
                trie.remove(filter);
            }
            prop_assert!(trie.root.children.is_empty(), "no level outlives its filters");
        }
    }
}
