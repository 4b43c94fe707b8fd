//! Which provider to ask: rules without I/O.

use std::time::Duration;

use crate::names::NodeId;

/// A provider on another node, as this node has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) idempotent: bool,
    pub(crate) standing: Standing,
}

/// How likely a provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Connected, with this node's own calls in flight there and how long an answer took of late.
    Up { in_flight: usize, latency: Duration },
    /// Not connected, and not known to fail.
    Promising,
    /// Refused, or failing.
    Doubtful,
}

impl Standing {
    fn rank(self) -> u8 {
        match self {
            Self::Up { .. } => 0,
            Self::Promising => 1,
            Self::Doubtful => 2,
        }
    }

    /// What one more call costs there: the better of two has less of it.
    fn cost(self) -> u128 {
        match self {
            Self::Up { in_flight, latency } => latency.as_micros().max(1) * (in_flight as u128 + 1),
            Self::Promising | Self::Doubtful => 0,
        }
    }
}

/// Takes out whom to ask next: of those that stand best, the better of two at random. Two random choices keep the load
/// nearly even without anybody's knowing it exactly (Mitzenmacher 2001), and do not send everybody to the same best.
///
/// `random` answers a number below its argument.
pub(crate) fn take_next(candidates: &mut Vec<Candidate>, mut random: impl FnMut(usize) -> usize) -> Option<Candidate> {
    if candidates.len() <= 1 {
        return candidates.pop();
    }
    let best = candidates.iter().map(|candidate| candidate.standing.rank()).min()?;
    let best: Vec<usize> = (0..candidates.len()).filter(|&at| candidates[at].standing.rank() == best).collect();
    let first = random(best.len());
    let chosen = if best.len() == 1 {
        first
    } else {
        let second = (first + 1 + random(best.len() - 1)) % best.len();
        let cost = |at: usize| candidates[best[at]].standing.cost();
        if cost(second) < cost(first) { second } else { first }
    };
    Some(candidates.swap_remove(best[chosen]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(n: u8, standing: Standing) -> Candidate {
        Candidate { node: NodeId::from_digest([n; 32]), idempotent: false, standing }
    }

    fn up(n: u8, in_flight: usize, latency_us: u64) -> Candidate {
        candidate(n, Standing::Up { in_flight, latency: Duration::from_micros(latency_us) })
    }

    fn order(mut candidates: Vec<Candidate>, mut random: impl FnMut(usize) -> usize) -> Vec<u8> {
        std::iter::from_fn(|| take_next(&mut candidates, &mut random)).map(|it| it.node.as_bytes()[0]).collect()
    }

    #[test]
    fn who_is_connected_is_asked_before_who_must_be_dialled() {
        let candidates =
            vec![candidate(1, Standing::Doubtful), candidate(2, Standing::Promising), up(3, 1_000, 1_000_000)];
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
                let chosen = take_next(&mut candidates, |_| dice.next().unwrap_or_default());
                assert_ne!(chosen.map(|it| it.node), Some(NodeId::from_digest([1; 32])));
            }
        }
    }
}
