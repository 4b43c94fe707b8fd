use std::time::Duration;

use plimsoll::bounded::pool::{CloseOutcome, LruPool, PoolAction};
use plimsoll::bounded::{Cap, PoolSettings};
use proptest::prelude::*;

use super::*;

fn node(n: u8) -> NodeId {
    NodeId::from_digest([n; 32])
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn table(me: u8) -> PeerTable {
    PeerTable::new(node(me), Redial::default())
}

/// The table with the pool that its connections are in.
struct Side {
    table: PeerTable,
    pool: LruPool<NodeId, CurrentConnection>,
}

impl Side {
    fn new(me: u8, cap: usize) -> Self {
        let settings = PoolSettings { cap: Cap::new(cap).unwrap(), ..PoolSettings::default() };
        Self { table: table(me), pool: LruPool::new(settings) }
    }

    fn kept(&self, of: u8) -> Option<LinkId> {
        self.pool.find(&node(of)).map(|(_, current)| current.link)
    }

    /// Judges and enters; evictions are passed to the table.
    fn arrive(&mut self, arrival: NewConnection, now: Instant) -> Verdict {
        let verdict = self.table.judge(arrival, self.pool.find(&arrival.node).map(|(_, current)| *current));
        if matches!(verdict, Verdict::Duplicate | Verdict::Stale) {
            return verdict;
        }
        if self.pool.replace(arrival.node, arrival.current(), now).is_err() {
            return Verdict::Full;
        }
        self.table.up(arrival.node, None, now);
        while let Some(action) = self.pool.next_action() {
            let PoolAction::Close { closing, key, .. } = action else { unreachable!("{action:?}") };
            self.pool.closed(closing, CloseOutcome::Closed);
            if self.pool.find(&key).is_none() {
                self.table.down(key, Disconnect { kind: DisconnectKind::Evicted, reason: "room".to_owned() }, now, 0.0);
            }
        }
        verdict
    }

    fn ended(&mut self, of: NodeId, link: LinkId, now: Instant) -> bool {
        let entry = self.pool.find(&of).filter(|(_, current)| current.link == link).map(|(entry, _)| entry);
        let Some(entry) = entry else { return false };
        self.pool.retire(entry);
        while let Some(PoolAction::Close { closing, .. }) = self.pool.next_action() {
            self.pool.closed(closing, CloseOutcome::Closed);
        }
        self.table.down(of, lost("gone"), now, 0.0)
    }
}

fn arrival(link: LinkId, of: u8, dialler: Dialler) -> NewConnection {
    NewConnection { link, node: node(of), dialler, incarnation: 1 }
}

fn lost(reason: &str) -> Disconnect {
    Disconnect { kind: DisconnectKind::Lost, reason: reason.to_owned() }
}

const EVERYBODY: fn(&NodeId) -> bool = |_| true;

/// Whatever the order in which the two connections greet, both sides keep the one that the smaller id dialled.
#[test]
fn both_sides_keep_the_connection_dialled_by_the_smaller_id() {
    let now = Instant::now();
    for first_dialled_by_smaller in [true, false] {
        let (mut small, mut large) = (Side::new(1, 9), Side::new(2, 9));
        // Links 1 and 2 are the same two connections on both sides; 1 was dialled by the smaller id.
        let order = if first_dialled_by_smaller { [1, 2] } else { [2, 1] };
        for link in order {
            let (by_small, by_large) =
                if link == 1 { (Dialler::Local, Dialler::Remote) } else { (Dialler::Remote, Dialler::Local) };
            small.arrive(arrival(link, 2, by_small), now);
            large.arrive(arrival(link, 1, by_large), now);
        }
        assert_eq!((small.kept(2), large.kept(1)), (Some(1), Some(1)));
        assert_eq!((small.table.count_up(), large.table.count_up()), (1, 1));
        assert_eq!((small.pool.len(), large.pool.len()), (1, 1));
    }
}

#[test]
fn a_later_incarnation_replaces_an_earlier_one_and_never_the_reverse() {
    let now = Instant::now();
    let mut side = Side::new(1, 9);
    let life = |link, incarnation| NewConnection { link, node: node(2), dialler: Dialler::Remote, incarnation };
    assert_eq!(side.arrive(life(1, 5), now), Verdict::Up);
    assert_eq!(side.arrive(life(2, 6), now), Verdict::UpReplacing(1));
    assert_eq!(side.arrive(life(3, 5), now), Verdict::Stale);
    assert!(!side.ended(node(2), 1, now), "the end of a replaced connection is no news");
    assert_eq!(side.table.state(&node(2)).map(|(state, _)| state), Some(PeerState::Up));
    assert!(side.ended(node(2), 2, now));
    assert_eq!(side.table.state(&node(2)), Some((PeerState::Down, Some("gone"))));
}

#[test]
fn a_seed_is_dialled_until_it_is_up_and_again_when_it_is_lost() {
    let start = Instant::now();
    let mut table = table(1);
    let dial = Dial { address: at(1), expected: None };
    table.add_seed(dial, start);
    assert_eq!(table.due(start, 9, true, EVERYBODY), [dial]);
    assert_eq!(table.due(start, 9, true, EVERYBODY), [], "one attempt at a time");

    table.dial_failed(at(1), None, lost("nobody"), start, 0.0);
    assert_eq!(table.due(start, 9, true, EVERYBODY), []);
    assert_eq!(table.next_due(true, EVERYBODY), Some(start + Duration::from_millis(100)));
    let later = start + Duration::from_millis(100);
    assert_eq!(table.due(later, 9, true, EVERYBODY), [dial]);

    table.dial_connected(at(1), node(2));
    table.up(node(2), None, later);
    table.dial_settled(at(1), None, later, 0.0);
    assert_eq!((table.due(later, 9, true, EVERYBODY), table.next_due(true, EVERYBODY)), (vec![], None));

    table.down(node(2), lost("gone"), later, 0.0);
    assert_eq!(table.due(later, 9, true, EVERYBODY), [dial], "a lost peer is dialled at once");
}

#[test]
fn a_node_that_refuses_is_dialled_rarely_and_one_that_was_evicted_on_demand() {
    let now = Instant::now();
    let mut table = table(1);
    for port in [1, 2] {
        table.add_seed(Dial { address: at(port), expected: Some(node(port as u8 + 1)) }, now);
    }
    assert_eq!(table.due(now, 9, true, EVERYBODY).len(), 2);
    for _ in 0..20 {
        table.dial_failed(at(1), None, Disconnect { kind: DisconnectKind::Refused, reason: "no".to_owned() }, now, 0.0);
    }
    assert_eq!(table.state(&node(2)), Some((PeerState::Refused, Some("no"))));
    assert_eq!(table.next_due(true, EVERYBODY), Some(now + Duration::from_secs(30)));

    table.dial_settled(at(2), Some(&Disconnect { kind: DisconnectKind::Evicted, reason: "full".to_owned() }), now, 0.0);
    let much_later = now + Duration::from_secs(60);
    table.up(node(9), None, now);
    assert_eq!(table.due(much_later, 9, true, |it| *it == node(3)), []);
    assert!(table.demand(&node(3), much_later));
    assert!(table.next_due(false, |it| *it == node(3)).is_some(), "it has a place, whether there is room or not");
    assert_eq!(table.due(much_later, 9, false, |it| *it == node(3)).len(), 1);
    assert!(!table.demand(&node(8), much_later), "no address of it is known");
}

#[test]
fn a_node_that_is_not_trusted_is_not_dialled() {
    let now = Instant::now();
    let mut table = table(1);
    table.add_seed(Dial { address: at(1), expected: Some(node(2)) }, now);
    let trusted = |it: &NodeId| *it != node(2);
    assert_eq!((table.due(now, 9, true, trusted), table.next_due(true, trusted)), (vec![], None));
}

/// What strangers leave behind is bounded; what is dialled is never forgotten for them.
#[test]
fn strangers_are_remembered_up_to_a_cap() {
    let now = Instant::now();
    let mut table = table(1);
    table.add_seed(Dial { address: at(1), expected: Some(node(2)) }, now);
    for n in 0..3 * MAX_REMEMBERED as u64 {
        let mut digest = [7; 32];
        digest[..8].copy_from_slice(&n.to_be_bytes());
        let refused = Disconnect { kind: DisconnectKind::Refused, reason: "stranger".to_owned() };
        table.note(NodeId::from_digest(digest), None, refused, now + Duration::from_millis(n));
    }
    assert!((1..=MAX_REMEMBERED).contains(&table.peers().len()), "{}", table.peers().len());
    assert!(table.state(&node(2)).is_some());
}

/// A node whose connections were all closed to make room has nobody left who could tell it of the mesh: it dials again by
/// itself, rarely.
#[test]
fn a_node_without_any_peer_dials_those_that_evicted_it() {
    let now = Instant::now();
    let mut table = table(1);
    table.add_seed(Dial { address: at(1), expected: None }, now);
    assert_eq!(table.due(now, 9, true, EVERYBODY).len(), 1);
    let evicted = || Disconnect { kind: DisconnectKind::Evicted, reason: "full".to_owned() };
    for _ in 0..20 {
        table.dial_failed(at(1), Some(node(2)), evicted(), now, 0.0);
    }
    assert_eq!(table.next_due(true, EVERYBODY), Some(now + Duration::from_secs(30)));
    assert_eq!(table.due(now + Duration::from_secs(30), 9, true, EVERYBODY).len(), 1);
}

/// However many targets fail, and however quickly they are due again: each of the others has its turn.
#[test]
fn targets_that_fail_do_not_keep_others_waiting() {
    let start = Instant::now();
    let mut table = table(1);
    for port in 1..=1_000 {
        table.add_seed(Dial { address: at(port), expected: None }, start);
    }
    let mut dialled = HashSet::new();
    for round in 0..100 {
        let now = start + Duration::from_secs(10) * round;
        for dial in table.due(now, 10, true, EVERYBODY) {
            dialled.insert(dial.address);
            table.dial_failed(dial.address, None, lost("nobody"), now, 0.0);
        }
    }
    assert_eq!(dialled.len(), 1_000);
}

/// Issue 10, 7.4: whatever becomes of an attempt, its entry is free again.
#[test]
fn every_end_of_an_attempt_frees_its_entry() {
    let now = Instant::now();
    let mut table = table(1);
    let refused = Disconnect { kind: DisconnectKind::Refused, reason: "no".to_owned() };
    let evicted = Disconnect { kind: DisconnectKind::Evicted, reason: "full".to_owned() };
    let ends: [Option<Disconnect>; 4] = [None, Some(lost("nobody")), Some(refused), Some(evicted)];
    for (port, end) in (1..).zip(ends) {
        table.add_seed(Dial { address: at(port), expected: Some(node(port as u8 + 1)) }, now);
        assert!(table.demand(&node(port as u8 + 1), now));
        assert_eq!((table.due(now, 9, false, EVERYBODY).len(), table.count_dialling()), (1, 1));
        match end {
            None => drop(table.dial_settled(at(port), None, now, 0.0)),
            Some(end) => drop(table.dial_failed(at(port), None, end, now, 0.0)),
        }
        assert_eq!(table.count_dialling(), 0);
        assert_eq!(table.due(now + Duration::from_secs(60), 9, false, EVERYBODY), [], "no call waits for it any more");
    }
}

/// Members that are gone are forgotten, and neither a seed nor an attempt in progress with them.
#[test]
fn members_are_targets_for_as_long_as_they_are_members() {
    let now = Instant::now();
    let mut table = table(1);
    let member = |port: u16| Dial { address: at(port), expected: Some(node(port as u8 + 1)) };
    table.add_seed(Dial { address: at(1), expected: None }, now);
    table.set_members([member(1), member(2), member(3)].into_iter(), now);
    assert_eq!(table.count_targets(), 3);
    assert_eq!(table.due(now, 9, true, |it| *it == node(4)), [Dial { address: at(1), expected: None }, member(3)]);
    table.set_members([].into_iter(), now);
    assert_eq!(table.count_targets(), 2, "the seed, and the attempt in progress");
    table.dial_failed(at(3), None, lost("nobody"), now, 0.0);
    table.set_members([].into_iter(), now);
    assert_eq!(table.count_targets(), 1);
}

/// Issue 10, 4.5: all addresses of a name are dialled, and those that it has no more are forgotten.
#[test]
fn all_addresses_of_a_name_are_dialled() {
    let now = Instant::now();
    let mut table = table(1);
    table.add_seed(Dial { address: at(1), expected: None }, now);
    table.names().add("seed.example", 4433, None, now);
    assert_eq!(table.due_lookups(now).len(), 1);
    assert_eq!(table.resolved(0, Ok(vec![at(1), at(2), at(3)]), now, 0.0), LookupOutcome::Changed);
    assert_eq!(table.due(now, 9, true, EVERYBODY).len(), 3);
    for port in [1, 2] {
        table.dial_failed(at(port), None, lost("nobody"), now, 0.0);
    }
    table.dial_connected(at(3), node(2));
    table.up(node(2), None, now);
    table.dial_settled(at(3), None, now, 0.0);
    let later = now + Duration::from_secs(600);
    assert!(table.due_lookups(later).is_empty(), "one of its addresses leads to a connected node");
    table.down(node(2), lost("gone"), later, 0.0);
    assert_eq!(table.due_lookups(later).len(), 1, "its node was lost");
    table.resolved(0, Ok(vec![at(4)]), later, 0.0);
    assert_eq!(table.count_targets(), 2, "the seed of the configuration stays, and the new address");
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Arrive { of: u8, dialler: Dialler, incarnation: u64 },
    End { nth: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let dialler = prop_oneof![Just(Dialler::Local), Just(Dialler::Remote)];
    prop_oneof![
        (prop::sample::select(vec![2u8, 3, 5, 6]), dialler, 1u64..4)
            .prop_map(|(of, dialler, incarnation)| Event::Arrive { of, dialler, incarnation }),
        (0usize..64).prop_map(|nth| Event::End { nth }),
    ]
}

proptest! {
    /// Whatever comes and goes: never more than the cap, each node up exactly while one of its connections counts, and
    /// the number of those that count is right.
    #[test]
    fn the_table_adds_up(events in prop::collection::vec(event(), 0..200)) {
        let (now, mut side) = (Instant::now(), Side::new(4, 3));
        let mut open: Vec<(LinkId, NodeId)> = Vec::new();
        for (link, event) in (1..).zip(events) {
            match event {
                Event::Arrive { of, dialler, incarnation } => {
                    let verdict = side.arrive(NewConnection { link, node: node(of), dialler, incarnation }, now);
                    if !matches!(verdict, Verdict::Stale | Verdict::Full) {
                        open.push((link, node(of)));
                    }
                }
                Event::End { nth } if !open.is_empty() => {
                    let (link, node) = open.swap_remove(nth % open.len());
                    side.ended(node, link, now);
                }
                Event::End { .. } => {}
            }
            let up = side.table.entries.values().filter(|entry| entry.is_up()).count();
            prop_assert_eq!((side.table.count_up(), side.pool.len()), (up, up));
            prop_assert!(up <= 3);
            for (node, entry) in &side.table.entries {
                let kept = side.pool.find(node).map(|(_, current)| current.link);
                prop_assert_eq!(kept.is_some(), entry.is_up());
                prop_assert!(kept.is_none_or(|link| open.contains(&(link, *node))));
            }
        }
    }
}
