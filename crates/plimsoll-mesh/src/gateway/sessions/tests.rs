use proptest::prelude::*;

use super::books::{AdvertisementLimits, Books};
use super::*;

fn limits() -> AdvertisementLimits {
    use plimsoll::bounded::{Cap, Rate};
    AdvertisementLimits {
        total: Cap::of::<6>(),
        per_client: Cap::of::<3>(),
        rate: Rate { per_second: Cap::of::<10>(), burst: Cap::of::<5>() },
        ..AdvertisementLimits::default()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Enter,
    Leave(usize),
    Advertise { client: usize, name: u8, ttl_ms: u64 },
    Withdraw { client: usize, name: u8 },
    Sweep,
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Enter),
        2 => (0_usize..16).prop_map(Op::Leave),
        8 => (0_usize..16, 0_u8..4, 1_u64..9_000)
            .prop_map(|(client, name, ttl_ms)| Op::Advertise { client, name, ttl_ms }),
        2 => (0_usize..16, 0_u8..4).prop_map(|(client, name)| Op::Withdraw { client, name }),
        1 => Just(Op::Sweep),
        4 => (1_u64..2_000).prop_map(Op::Advance),
    ]
}

fn name(n: u8) -> ServiceName {
    format!("service-{n}").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// M-9, M-13, M-14, M-19: whatever clients do in whatever order, each advertisement belongs to a client that is in, both go
    /// in one step, one whose lease ran out is not listed, and who left twice takes out nothing of somebody else.
    #[test]
    fn clients_and_what_they_advertise_agree(ops in prop::collection::vec(op(), 1..60)) {
        let mut books = Books::new(2, &limits());
        let (mut now, mut keys) = (Instant::now(), Vec::new());
        // Who is in, and until when each advertises what.
        let mut model: Vec<Option<Vec<(u8, Instant)>>> = Vec::new();
        for op in ops {
            match op {
                Op::Enter => {
                    let full = model.iter().flatten().count() == 4;
                    let entered = books.enter(keys.len() as u64, "127.0.0.1:1".parse().unwrap());
                    prop_assert_eq!(entered.is_err(), full);
                    if let Ok(session) = entered {
                        keys.push(session);
                        model.push(Some(Vec::new()));
                    }
                }
                Op::Leave(n) if !keys.is_empty() => {
                    books.leave(keys[n % keys.len()]);
                    model[n % keys.len()] = None;
                }
                Op::Advertise { client, name: n, ttl_ms } if !keys.is_empty() => {
                    let at = client % keys.len();
                    let result = books.advertise(keys[at], name(n), Some(Duration::from_millis(ttl_ms)), now);
                    model.iter_mut().flatten().for_each(|held| held.retain(|(_, ends)| *ends > now));
                    let total: usize = model.iter().flatten().map(Vec::len).sum();
                    let ends = now + Duration::from_millis(ttl_ms.clamp(1_000, 300_000));
                    match (&mut model[at], &result) {
                        (None, result) => prop_assert_eq!(result, &Err(SessionRefusal::Ended.into())),
                        (_, Err(Refused::Registry(RegistryRefusal::RateLimited { .. }))) => {}
                        (Some(held), result) => {
                            let full = held.len() == 3 || total == 6;
                            match held.iter_mut().find(|(known, _)| *known == n) {
                            Some(known) => {
                                prop_assert_eq!(result, &Ok(false));
                                known.1 = ends;
                            }
                            None if full => prop_assert!(result.is_err()),
                            None => {
                                prop_assert_eq!(result, &Ok(true));
                                held.push((n, ends));
                            }
                        }}
                    }
                }
                Op::Withdraw { client, name: n } if !keys.is_empty() => {
                    let at = client % keys.len();
                    books.sweep(now);
                    let held = model[at].iter_mut().flat_map(|held| held.iter());
                    let there = held.into_iter().any(|(known, ends)| *known == n && *ends > now);
                    prop_assert_eq!(books.withdraw(keys[at], &name(n)), there);
                    model[at].iter_mut().for_each(|held| held.retain(|(known, _)| *known != n));
                }
                Op::Sweep => books.sweep(now),
                Op::Advance(millis) => now += Duration::from_millis(millis),
                Op::Leave(_) | Op::Advertise { .. } | Op::Withdraw { .. } => {}
            }
            books.check_law();
            let live = model.iter().flatten().flatten().filter(|(_, ends)| *ends > now);
            let names: std::collections::BTreeSet<_> = live.map(|(n, _)| name(*n)).collect();
            prop_assert_eq!(books.names(now), names.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(books.sizes().0, model.iter().flatten().count());
        }
    }
}
