use proptest::prelude::*;

use super::books::{AdvertisementLimits, Books};
use super::*;

fn limits() -> AdvertisementLimits {
    use plimsoll::bounded::Rate;
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
    Subscribe(usize),
    Unsubscribe(usize),
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
        4 => (0_usize..16).prop_map(Op::Subscribe),
        2 => (0_usize..16).prop_map(Op::Unsubscribe),
        1 => Just(Op::Sweep),
        4 => (1_u64..2_000).prop_map(Op::Advance),
    ]
}

fn name(n: u8) -> ServiceName {
    format!("service-{n}").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// M-9, M-13, M-14, M-19: whatever clients do in whatever order, each advertisement and each subscription belongs to a
    /// client that is in, all go in one step and its calls end with it, a lease that ran out is not listed, and what left
    /// twice takes out nothing of somebody else.
    #[test]
    fn clients_and_what_they_have_agree(ops in prop::collection::vec(op(), 1..60)) {
        let subscriptions = ResourceCaps { total: Cap::of::<3>(), per_client: Cap::of::<2>() };
        let mut books = Books::new(2, subscriptions, &limits());
        let leases = books.leases();
        // The ends of calls, by client; subscriptions with their client and their end.
        let mut streams: Vec<CancellationToken> = Vec::new();
        let mut subscribed: Vec<(usize, ResourceKey, CancellationToken)> = Vec::new();
        let mut unsubscribed = Vec::new();
        let (mut now, mut keys) = (Instant::now(), Vec::new());
        // Who is in, and until when each advertises what.
        let mut model: Vec<Option<Vec<(u8, Instant)>>> = Vec::new();
        for op in ops {
            match op {
                Op::Enter => {
                    let full = model.iter().flatten().count() == 4;
                    let end = CancellationToken::new();
                    let entered = books.enter(keys.len() as u64, end.clone());
                    prop_assert_eq!(entered.is_err(), full);
                    if let Ok(session) = entered {
                        keys.push(session);
                        streams.push(end);
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
                Op::Subscribe(n) if !keys.is_empty() => {
                    let (at, end) = (n % keys.len(), CancellationToken::new());
                    let live: Vec<_> = subscribed.iter().filter(|(_, _, end)| !end.is_cancelled()).collect();
                    let room = live.len() < 3 && live.iter().filter(|(client, ..)| *client == at).count() < 2;
                    let result = books.subscribe(keys[at], end.clone());
                    prop_assert_eq!(result.is_ok(), room && model[at].is_some());
                    if let Ok(key) = result {
                        subscribed.push((at, key, end));
                    }
                }
                Op::Unsubscribe(n) if !subscribed.is_empty() => {
                    // Some of them for the second time, or after their client.
                    let (client, key, end) = subscribed[n % subscribed.len()].clone();
                    books.unsubscribe(key);
                    if !end.is_cancelled() {
                        subscribed.retain(|(_, other, _)| *other != key);
                        unsubscribed.push((client, key, end));
                    } else if let Some((_, key, _)) = unsubscribed.last() {
                        books.unsubscribe(*key);
                    }
                }
                Op::Sweep => books.sweep(now),
                Op::Advance(millis) => now += Duration::from_millis(millis),
                Op::Subscribe(_) | Op::Unsubscribe(_) | Op::Leave(_) | Op::Advertise { .. } | Op::Withdraw { .. } => {}
            }
            books.check_law();
            let live = model.iter().flatten().flatten().filter(|(_, ends)| *ends > now);
            let names: std::collections::BTreeSet<_> = live.map(|(n, _)| name(*n)).collect();
            prop_assert_eq!(super::books::names(&leases, now), names.into_iter().collect::<Vec<_>>());
            for (client, (end, held)) in streams.iter().zip(&model).enumerate() {
                prop_assert_eq!(end.is_cancelled(), held.is_none());
                let of_it = |(at, ..): &&(usize, ResourceKey, CancellationToken)| *at == client;
                prop_assert!(subscribed.iter().filter(of_it).all(|(_, _, end)| end.is_cancelled() == held.is_none()));
            }
            prop_assert!(unsubscribed.iter().all(|(_, _, end)| !end.is_cancelled()), "what had left before is not ended");
            let live = subscribed.iter().filter(|(_, _, end)| !end.is_cancelled()).count();
            prop_assert_eq!(books.sizes(), (model.iter().flatten().count(), live));
        }
    }
}
