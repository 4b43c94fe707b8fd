//! Random trees and what happens to them.

use std::time::Duration;

use plimsoll::supervisor::{AutoShutdown, Restart, Shutdown, Strategy};

/// A small generator (SplitMix64), so that a case is its seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    Run,
    Fail,
    Ignore,
    Hang,
}

/// How the `n`-th start of `path` within one life of its supervisor goes: a function, so that the model and the world
/// need not talk.
pub fn begin(seed: u64, path: &str, life: u32, n: u32) -> Begin {
    let mut hash = seed ^ u64::from(life) << 32 ^ u64::from(n) << 48;
    for byte in path.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let mut random = Random(hash);
    let mut below_the_top = path.split('/').skip(2).peekable();
    let first_of_boot = life > 1 && below_the_top.peek().is_some() && below_the_top.all(|id| id == "a");
    let added_later = path.ends_with(char::is_numeric);
    match (n, random.below(100)) {
        // A boot does not hang, and fails at its first child or not at all: its roll-back has a test of its own.
        (0, 0..=9) if first_of_boot || added_later => Begin::Fail,
        (0, 10..=13) => Begin::Ignore,
        (0, _) => Begin::Run,
        (_, 0..=14) => Begin::Fail,
        (_, 15..=19) => Begin::Ignore,
        (_, 20..=26) => Begin::Hang,
        _ => Begin::Run,
    }
}

#[derive(Debug, Clone)]
pub struct SupPlan {
    pub strategy: Strategy,
    pub intensity: u32,
    pub period: u64,
    pub auto_shutdown: AutoShutdown,
    pub kids: Vec<KidPlan>,
}

#[derive(Debug, Clone)]
pub struct KidPlan {
    pub id: String,
    pub restart: Restart,
    pub significant: bool,
    pub shutdown: Shutdown,
    /// How long its stop hook takes, in ms.
    pub stop_takes: u64,
    /// The delay before its restart, in ms.
    pub backoff: u64,
    pub sup: Option<SupPlan>,
}

/// How a child is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Normal,
    Shutdown,
    Upgrade,
    Fail,
    Kill,
}

#[derive(Debug, Clone)]
pub enum Op {
    Start(KidPlan),
    Terminate(String),
    Restart(String),
    Delete(String),
}

pub fn sup(random: &mut Random, depth: u32) -> SupPlan {
    let auto_shutdown = random.pick(&[
        AutoShutdown::Never,
        AutoShutdown::Never,
        AutoShutdown::AnySignificant,
        AutoShutdown::AllSignificant,
    ]);
    let kids = 1 + random.below(if depth == 1 { 4 } else { 3 });
    SupPlan {
        strategy: random.pick(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]),
        intensity: random.pick(&[0, 1, 2, 3, 3, 5]),
        period: random.pick(&[1_000, 5_000, 5_000, 20_000]),
        auto_shutdown,
        kids: (0..kids).map(|n| kid(random, depth, auto_shutdown, format!("{}", (b'a' + n as u8) as char))).collect(),
    }
}

pub fn kid(random: &mut Random, depth: u32, auto_shutdown: AutoShutdown, id: String) -> KidPlan {
    let restart = random.pick(&[Restart::Permanent, Restart::Permanent, Restart::Transient, Restart::Temporary]);
    let nested = depth < 3 && random.one_in(3);
    let grace = Shutdown::After(Duration::from_millis(1_000));
    KidPlan {
        id,
        restart,
        significant: restart != Restart::Permanent && auto_shutdown != AutoShutdown::Never && random.one_in(2),
        shutdown: match nested {
            true => random.pick(&[Shutdown::Infinity, Shutdown::Infinity, Shutdown::Infinity, Shutdown::Brutal]),
            false => random.pick(&[grace, grace, Shutdown::Infinity, Shutdown::Brutal]),
        },
        stop_takes: if nested { 0 } else { random.pick(&[0, 0, 0, 310, 1_330]) },
        backoff: random.pick(&[0, 0, 170, 430]),
        sup: nested.then(|| sup(random, depth + 1)),
    }
}
