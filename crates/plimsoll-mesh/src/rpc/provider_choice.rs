//! Which provider to call: rules without I/O.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::names::NodeId;

/// A provider on another node, as this node observes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) idempotent: bool,
    pub(crate) health: Health,
}

/// How likely a provider replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Connected, with this node's own calls in flight there and the recent time to a reply.
    Connected { in_flight: usize, latency: Duration },
    /// Not connected, and not known to fail.
    Dialable,
    /// Refused, or failing.
    Failing,
}

impl Health {
    fn rank(self) -> u8 {
        match self {
            Self::Connected { .. } => 0,
            Self::Dialable => 1,
            Self::Failing => 2,
        }
    }

    /// The expected cost of one more call there.
    fn cost(self) -> u128 {
        match self {
            Self::Connected { in_flight, latency } => latency.as_micros().max(1) * (in_flight as u128 + 1),
            Self::Dialable | Self::Failing => 0,
        }
    }
}

/// Which of the providers on other nodes is called, among those with the best health. This node itself always comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderChoice {
    /// The better of two taken at random, by this node's own calls in flight there and the recent time to a reply. Two
    /// random choices keep the load nearly even without exact knowledge of it (Mitzenmacher 2001), and do not send all
    /// callers to the same best provider. The default.
    #[default]
    PowerOfTwoChoices,
    /// One after the other, for each service by itself.
    RoundRobin,
    /// The same one for all calls of a client's connection to a service, as long as it can be reached. When a provider joins
    /// or leaves, only the calls that it takes or had are moved (rendezvous hashing).
    Sticky,
}

/// A choice with its input.
pub(crate) enum Rule<'a> {
    /// Returns a random number below its argument.
    PowerOfTwoChoices(&'a mut dyn FnMut(usize) -> usize),
    /// The position after which to go on; `None` at the beginning.
    RoundRobin(Option<u64>),
    /// The weight of a node for this client and service.
    HighestWeight(&'a dyn Fn(&NodeId) -> u64),
}

/// Takes out the provider to call next, of those with the best health.
pub(crate) fn take_next(candidates: &mut Vec<Candidate>, rule: Rule<'_>) -> Option<Candidate> {
    choose(candidates, rule).map(|chosen| candidates.swap_remove(chosen))
}

fn choose(candidates: &[Candidate], rule: Rule<'_>) -> Option<usize> {
    if candidates.len() <= 1 {
        return (!candidates.is_empty()).then_some(0);
    }
    // A client that sticks to a node that is not connected has it dialled.
    let rank = |candidate: &Candidate| match rule {
        Rule::HighestWeight(_) => candidate.health.rank().max(Health::Dialable.rank()),
        _ => candidate.health.rank(),
    };
    let best = candidates.iter().map(rank).min()?;
    let best: Vec<usize> = (0..candidates.len()).filter(|&at| rank(&candidates[at]) == best).collect();
    let node = |&&at: &&usize| candidates[at].node;
    let chosen = match rule {
        Rule::PowerOfTwoChoices(random) => power_of_two_choices(candidates, &best, random),
        Rule::RoundRobin(last) => {
            let later = best.iter().filter(|at| last.is_none_or(|last| position(&node(at)) > last)).min_by_key(node);
            *later.or(best.iter().min_by_key(node))?
        }
        Rule::HighestWeight(weight) => *best.iter().max_by_key(|at| (weight(&node(at)), node(at)))?,
    };
    Some(chosen)
}

/// The place of a node in the round: the first eight bytes of its id, which order nodes as their ids do.
fn position(node: &NodeId) -> u64 {
    node.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The provider of one service that was called last.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    /// Its position; zero at the beginning.
    last: AtomicU64,
}

impl RoundRobin {
    /// Takes out the provider whose turn it is. Of several callers at once each gets a turn of its own.
    pub(crate) fn take_next(&self, candidates: &mut Vec<Candidate>) -> Option<Candidate> {
        loop {
            let last = self.last.load(Ordering::Relaxed);
            let chosen = choose(candidates, Rule::RoundRobin((last > 0).then_some(last)))?;
            let next = position(&candidates[chosen].node);
            if self.last.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Some(candidates.swap_remove(chosen));
            }
        }
    }
}

fn power_of_two_choices(candidates: &[Candidate], best: &[usize], random: &mut dyn FnMut(usize) -> usize) -> usize {
    let first = random(best.len());
    if best.len() == 1 {
        return best[first];
    }
    let second = (first + 1 + random(best.len() - 1)) % best.len();
    let cost = |at: usize| candidates[best[at]].health.cost();
    best[if cost(second) < cost(first) { second } else { first }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(n: u8, health: Health) -> Candidate {
        Candidate { node: NodeId::from_digest([n; 32]), idempotent: false, health }
    }

    fn up(n: u8, in_flight: usize, latency_us: u64) -> Candidate {
        candidate(n, Health::Connected { in_flight, latency: Duration::from_micros(latency_us) })
    }

    /// The second draw is among the others, so that two different candidates are compared whatever is drawn.
    #[test]
    fn two_different_candidates_are_compared() {
        let candidates = [up(1, 1, 10), up(2, 2, 10), up(3, 3, 10)];
        for first in 0..3 {
            for second in 0..2 {
                let mut draws = [(3, first), (2, second)].into_iter();
                let chosen = power_of_two_choices(&candidates, &[0, 1, 2], &mut |below| {
                    let (expected, drawn) = draws.next().expect("two draws");
                    assert_eq!(below, expected);
                    drawn
                });
                let other = (first + 1 + second) % 3;
                assert_eq!(chosen, first.min(other), "{first} and {other}");
            }
        }
    }

    fn order(mut candidates: Vec<Candidate>, mut random: impl FnMut(usize) -> usize) -> Vec<u8> {
        let next = || take_next(&mut candidates, Rule::PowerOfTwoChoices(&mut random));
        std::iter::from_fn(next).map(|it| it.node.as_bytes()[0]).collect()
    }

    #[test]
    fn a_connected_provider_is_called_before_one_that_must_be_dialled() {
        let candidates = vec![candidate(1, Health::Failing), candidate(2, Health::Dialable), up(3, 1_000, 1_000_000)];
        assert_eq!(order(candidates, |_| 0), [3, 2, 1]);
    }

    #[test]
    fn of_two_the_one_with_less_to_do_is_called() {
        assert_eq!(order(vec![up(1, 3, 100), up(2, 2, 100)], |_| 0), [2, 1]);
        assert_eq!(order(vec![up(1, 0, 900), up(2, 2, 100)], |_| 0), [2, 1], "latency counts as well");
        assert_eq!(order(vec![up(1, 0, 200), up(2, 2, 100)], |_| 0), [1, 2]);
    }

    #[test]
    fn every_provider_is_called_once_whatever_the_random_numbers() {
        for dice in 0..5 {
            let mut asked = order((1..=5).map(|n| up(n, n.into(), 100)).collect(), |below| dice % below);
            asked.sort_unstable();
            assert_eq!(asked, [1, 2, 3, 4, 5]);
        }
    }

    /// The worst of many is never asked while it is one of two: so load evens out.
    #[test]
    fn the_busiest_is_never_chosen() {
        for first in 0..4 {
            for second in 0..3 {
                let mut dice = [first, second].into_iter();
                let mut candidates = vec![up(1, 9, 100), up(2, 0, 100), up(3, 0, 100), up(4, 0, 100)];
                let mut roll = |_| dice.next().unwrap_or_default();
                let chosen = take_next(&mut candidates, Rule::PowerOfTwoChoices(&mut roll));
                assert_ne!(chosen.map(|it| it.node), Some(NodeId::from_digest([1; 32])));
            }
        }
    }

    #[test]
    fn every_provider_has_its_turn() {
        let (round, mut called) = (RoundRobin::default(), Vec::new());
        for _ in 0..6 {
            // One that is not connected has no turn while others are.
            let mut candidates = vec![up(3, 9, 900), up(1, 0, 1), candidate(4, Health::Dialable), up(2, 5, 5)];
            called.extend(round.take_next(&mut candidates).map(|it| it.node.as_bytes()[0]));
            assert_eq!(candidates.len(), 3);
        }
        assert_eq!(called, [1, 2, 3, 1, 2, 3]);
        // A provider that joins or leaves in between gives none two turns.
        let next = |mut candidates: Vec<Candidate>| round.take_next(&mut candidates).map(|it| it.node.as_bytes()[0]);
        assert_eq!(next(vec![up(1, 0, 1), up(2, 0, 1)]), Some(1));
        assert_eq!(next(vec![up(1, 0, 1), up(2, 0, 1), up(9, 0, 1)]), Some(2));
        assert_eq!(next(Vec::new()), None);
    }

    /// Callers on several threads at once: the turns stay even.
    #[test]
    fn callers_at_once_each_take_a_turn() {
        let round = RoundRobin::default();
        let turns = std::thread::scope(|scope| {
            let call = || {
                let take = |_| round.take_next(&mut vec![up(1, 0, 1), up(2, 0, 1), up(3, 0, 1)]);
                (0..3_000).filter_map(take).map(|it| it.node.as_bytes()[0]).collect::<Vec<_>>()
            };
            let callers: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
            callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
        });
        for node in 1..=3 {
            assert_eq!(turns.iter().filter(|&&turn| turn == node).count(), 4_000);
        }
    }

    #[test]
    fn a_client_leaves_its_provider_only_when_that_goes() {
        let weight = |node: &NodeId| [0, 10, 30, 20][usize::from(node.as_bytes()[0])];
        let next = |candidates: &[Candidate]| {
            take_next(&mut candidates.to_vec(), Rule::HighestWeight(&weight)).map(|it| it.node.as_bytes()[0])
        };
        assert_eq!(next(&[up(1, 0, 1), up(2, 99, 9_999), up(3, 0, 1)]), Some(2), "however busy it is");
        assert_eq!(next(&[up(1, 0, 1), candidate(2, Health::Dialable), up(3, 0, 1)]), Some(2), "it is dialled");
        assert_eq!(next(&[up(1, 0, 1), candidate(2, Health::Failing), up(3, 0, 1)]), Some(3));
        assert_eq!(next(&[up(1, 0, 1), up(3, 0, 1)]), Some(3));
    }
}
