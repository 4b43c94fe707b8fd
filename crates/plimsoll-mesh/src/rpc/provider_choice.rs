//! Which provider to ask: rules without I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::{NodeId, ServiceName};

/// A provider on another node, as this node has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) idempotent: bool,
    pub(crate) health: Health,
}

/// How likely a provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Connected, with this node's own calls in flight there and how long an answer took of late.
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

    /// What one more call costs there: the better of two has less of it.
    fn cost(self) -> u128 {
        match self {
            Self::Connected { in_flight, latency } => latency.as_micros().max(1) * (in_flight as u128 + 1),
            Self::Dialable | Self::Failing => 0,
        }
    }
}

/// Which of the providers on other nodes that stand best is asked. This node itself always comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderChoice {
    /// The better of two taken at random, by this node's own calls in flight there and how long an answer took of late.
    /// Two random choices keep the load nearly even without anybody's knowing it exactly (Mitzenmacher 2001), and do not
    /// send everybody to the same best. The default.
    #[default]
    PowerOfTwoChoices,
    /// One after the other, for each service by itself.
    RoundRobin,
    /// The same one for all calls of a client's connection to a service, as long as it can be reached. When a provider comes
    /// or goes, only the calls that it takes or leaves change their place (rendezvous hashing).
    Sticky,
}

/// A choice with what it goes by.
pub(crate) enum Rule<'a> {
    /// Answers a number below its argument.
    PowerOfTwoChoices(&'a mut dyn FnMut(usize) -> usize),
    /// Who was asked last.
    RoundRobin(Option<NodeId>),
    /// The weight of a node for this client and service.
    HighestWeight(&'a dyn Fn(&NodeId) -> u64),
}

/// Takes out whom to ask next, of those that stand best.
pub(crate) fn take_next(candidates: &mut Vec<Candidate>, rule: Rule<'_>) -> Option<Candidate> {
    if candidates.len() <= 1 {
        return candidates.pop();
    }
    // Who sticks to a node that must be dialled dials it.
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
            let later = best.iter().filter(|at| last.is_none_or(|last| node(at) > last)).min_by_key(node);
            *later.or(best.iter().min_by_key(node))?
        }
        Rule::HighestWeight(weight) => *best.iter().max_by_key(|at| (weight(&node(at)), node(at)))?,
    };
    Some(candidates.swap_remove(chosen))
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

/// Who was asked last for each service.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin(BTreeMap<ServiceName, NodeId>);

/// ServiceTable whose round_robin are remembered. There are seldom more; then all begin anew.
const MAX_SERVICES_REMEMBERED: usize = 10_000;

impl RoundRobin {
    /// Takes out whose turn it is.
    pub(crate) fn take_next(&mut self, service: &ServiceName, candidates: &mut Vec<Candidate>) -> Option<Candidate> {
        let next = take_next(candidates, Rule::RoundRobin(self.0.get(service).copied()))?;
        match self.0.get_mut(service) {
            Some(last) => *last = next.node,
            None => {
                if self.0.len() >= MAX_SERVICES_REMEMBERED {
                    self.0.clear();
                }
                self.0.insert(service.clone(), next.node);
            }
        }
        Some(next)
    }
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

    fn order(mut candidates: Vec<Candidate>, mut random: impl FnMut(usize) -> usize) -> Vec<u8> {
        let next = || take_next(&mut candidates, Rule::PowerOfTwoChoices(&mut random));
        std::iter::from_fn(next).map(|it| it.node.as_bytes()[0]).collect()
    }

    #[test]
    fn who_is_connected_is_asked_before_who_must_be_dialled() {
        let candidates = vec![candidate(1, Health::Failing), candidate(2, Health::Dialable), up(3, 1_000, 1_000_000)];
        assert_eq!(order(candidates, |_| 0), [3, 2, 1]);
    }

    #[test]
    fn of_two_the_one_with_less_to_do_is_asked() {
        assert_eq!(order(vec![up(1, 3, 100), up(2, 2, 100)], |_| 0), [2, 1]);
        assert_eq!(order(vec![up(1, 0, 900), up(2, 2, 100)], |_| 0), [2, 1], "latency counts as well");
        assert_eq!(order(vec![up(1, 0, 200), up(2, 2, 100)], |_| 0), [1, 2]);
    }

    #[test]
    fn everybody_is_asked_once_whatever_the_dice_say() {
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
    fn everybody_has_a_turn_for_each_service_by_itself() -> Result<(), crate::names::InvalidName> {
        let (mut round_robin, mut asked) = (RoundRobin::default(), Vec::new());
        let services = ["here".parse()?, "there".parse()?];
        for call in 0..12 {
            // One that must be dialled has no turn while others are connected.
            let mut candidates = vec![up(3, 9, 900), up(1, 0, 1), candidate(4, Health::Dialable), up(2, 5, 5)];
            let next = round_robin.take_next(&services[call % 2], &mut candidates).map(|it| it.node.as_bytes()[0]);
            asked.extend(next);
        }
        assert_eq!(asked, [1, 1, 2, 2, 3, 3, 1, 1, 2, 2, 3, 3]);
        // Who joins or leaves meanwhile does not give anybody two round_robin.
        let mut fewer = vec![up(1, 0, 1), up(2, 0, 1)];
        assert_eq!(round_robin.take_next(&services[0], &mut fewer).map(|it| it.node.as_bytes()[0]), Some(1));
        let mut more = vec![up(1, 0, 1), up(2, 0, 1), up(9, 0, 1)];
        assert_eq!(round_robin.take_next(&services[0], &mut more).map(|it| it.node.as_bytes()[0]), Some(2));
        Ok(())
    }

    /// M-20: what is remembered of services is bounded.
    #[test]
    fn turns_are_remembered_of_so_many_services_and_no_more() -> Result<(), crate::names::InvalidName> {
        let mut round_robin = RoundRobin::default();
        for service in 0..=MAX_SERVICES_REMEMBERED {
            round_robin.take_next(&format!("s{service}").parse()?, &mut vec![up(1, 0, 1), up(2, 0, 1)]);
        }
        assert_eq!(round_robin.0.len(), 1);
        Ok(())
    }

    #[test]
    fn who_sticks_to_a_provider_leaves_it_only_when_it_goes() {
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
