use proptest::prelude::*;

use super::*;
use crate::bounded::linked_list::visits;
use crate::bounded::{Compact, CompactPolicy};

fn settings() -> SessionSettings {
    let caps =
        |total, per_client| ResourceCaps { total: Cap::new(total).unwrap(), per_client: Cap::new(per_client).unwrap() };
    SessionSettings {
        clients: Cap::of::<3>(),
        streams: caps(5, 3),
        subscriptions: caps(3, 2),
        advertisements: caps(4, 4),
    }
}

#[derive(Debug, Clone)]
enum Op {
    Connect(u8),
    Attach { session: usize, kind: usize },
    Detach(usize),
    Remove(usize),
    SetClients(usize),
    Compact,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_u8..5).prop_map(Op::Connect),
        10 => (0_usize..32, 0_usize..3).prop_map(|(session, kind)| Op::Attach { session, kind }),
        4 => (0_usize..64).prop_map(Op::Detach),
        3 => (0_usize..32).prop_map(Op::Remove),
        1 => (1_usize..5).prop_map(Op::SetClients),
        1 => Just(Op::Compact),
    ]
}

type Resources = Vec<(ResourceKind, u32)>;

/// Every session there ever was, in a list; a resource is a number.
struct Model {
    cap: usize,
    sessions: Vec<(u8, Option<Resources>)>,
}

impl Model {
    fn clients(&self) -> usize {
        self.sessions.iter().filter(|(_, resources)| resources.is_some()).count()
    }

    fn count(&self, kind: ResourceKind) -> usize {
        self.sessions.iter().flat_map(|(_, resources)| resources.iter().flatten()).filter(|(k, _)| *k == kind).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// M-13, M-14, M-19: after any sequence of operations each session holds what was attached to it and not detached, one
    /// removal returns all of it, a second one or one by an old key returns nothing, and index, lists, totals and counters
    /// agree after every step.
    #[test]
    fn sessions_do_what_the_naive_model_does(ops in prop::collection::vec(op(), 1..80)) {
        let settings = settings();
        let mut sessions = Sessions::new(settings.clone());
        let mut model = Model { cap: 3, sessions: Vec::new() };
        // Keys by the number of the session and of the resource: those of old ones are used again and again.
        let (mut keys, mut resources) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Connect(id) => {
                    let earlier = model.sessions.iter().rposition(|(i, held)| *i == id && held.is_some());
                    let refused = earlier.is_none() && model.clients() >= model.cap;
                    match sessions.connect(id, keys.len()) {
                        Ok((key, replaced)) => {
                            prop_assert!(!refused);
                            let held = earlier.and_then(|at| model.sessions[at].1.take());
                            prop_assert_eq!(replaced.map(|removed| removed.resources), held);
                            keys.push(key);
                            model.sessions.push((id, Some(Vec::new())));
                        }
                        Err(refusal) => {
                            prop_assert!(refused);
                            prop_assert_eq!(refusal, SessionRefusal::MaxClientsReached { cap: model.cap });
                        }
                    }
                }
                Op::Attach { session, kind } if !keys.is_empty() => {
                    let (at, kind) = (session % keys.len(), ResourceKind::ALL[kind]);
                    let number = resources.len() as u32;
                    let caps = settings.caps(kind);
                    let total = model.count(kind);
                    let expected = match &mut model.sessions[at].1 {
                        None => Err(SessionRefusal::Ended),
                        Some(held) if held.iter().filter(|(k, _)| *k == kind).count() == caps.per_client.get() => {
                            Err(SessionRefusal::ClientFull { kind, cap: caps.per_client.get() })
                        }
                        Some(_) if total == caps.total.get() => {
                            Err(SessionRefusal::Full { kind, cap: caps.total.get() })
                        }
                        Some(held) => {
                            held.push((kind, number));
                            Ok(())
                        }
                    };
                    let attached = sessions.attach(keys[at], kind, number);
                    prop_assert_eq!(attached.clone().map(|_| ()).map_err(|(refusal, _)| refusal), expected);
                    resources.extend(attached.ok().map(|key| (key, number)));
                }
                Op::Detach(n) if !resources.is_empty() => {
                    let (key, number) = resources[n % resources.len()];
                    let held = model.sessions.iter_mut().filter_map(|(_, held)| held.as_mut());
                    let holder = held.into_iter().find(|held| held.iter().any(|(_, n)| *n == number));
                    let expected = holder.map(|held| held.retain(|(_, n)| *n != number)).map(|()| number);
                    prop_assert_eq!(sessions.detach(key), expected);
                }
                Op::Remove(n) if !keys.is_empty() => {
                    let at = n % keys.len();
                    let expected = model.sessions[at].1.take();
                    let removed = sessions.remove(keys[at]);
                    prop_assert_eq!(removed.as_ref().map(|removed| &removed.resources), expected.as_ref());
                    prop_assert_eq!(removed.map(|removed| (removed.session, removed.client)), expected.map(|_| (keys[at], at)));
                }
                Op::SetClients(cap) => {
                    model.cap = cap;
                    sessions.set_clients(Cap::new(cap).unwrap());
                }
                Op::Compact => {
                    sessions.compact(&CompactPolicy::new(1, 0));
                }
                Op::Attach { .. } | Op::Detach(_) | Op::Remove(_) => {}
            }
            sessions.check_invariants();
            prop_assert_eq!(sessions.len(), model.clients());
            for (at, (id, held)) in model.sessions.iter().enumerate() {
                prop_assert_eq!(sessions.client(keys[at]).map(|(id, client)| (*id, *client)), held.as_ref().map(|_| (*id, at)));
                let found: Vec<_> = sessions.resources(keys[at]).map(|(_, kind, number)| (kind, *number)).collect();
                prop_assert_eq!(found, held.clone().unwrap_or_default());
            }
        }
    }
}

/// M-4, M-13: a removal visits its own entries and no others, however many there are.
#[test]
fn a_removal_costs_its_own_entries() {
    let visited = |clients: u32| {
        let mut sessions = Sessions::new(SessionSettings::default());
        let keys: Vec<_> = (0..clients).map(|id| sessions.connect(id, ()).unwrap().0).collect();
        for _ in 0..8 {
            for key in &keys {
                sessions.attach(*key, ResourceKind::Stream, ()).unwrap();
            }
        }
        visits::during(|| assert_eq!(sessions.remove(keys[keys.len() / 2]).unwrap().resources.len(), 8))
    };
    assert_eq!(visited(10), visited(10_000));
}

/// M-19: clients and each kind of what belongs to them are in the snapshot with their caps.
#[test]
fn sessions_show_their_figures() {
    let mut sessions = Sessions::new(settings());
    let (key, _) = sessions.connect("client", ()).unwrap();
    sessions.attach(key, ResourceKind::Stream, ()).unwrap();
    sessions.remove(key);
    sessions.remove(key);
    let shown = sessions.counters().inspect().counters;
    let figures = ["sessions_used", "sessions_high_water", "sessions_streams_cap", "sessions_streams_high_water"];
    assert_eq!(figures.map(|name| shown[name]), [0, 1, 5, 1]);
    assert_eq!((shown["sessions_removed"], shown["sessions_stale_removals"]), (1, 1));
}
