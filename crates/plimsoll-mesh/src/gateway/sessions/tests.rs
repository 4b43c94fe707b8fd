use proptest::prelude::*;

use super::table::{AdvertisementLimits, SessionTable};
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
    Open,
    Close(usize),
    Advertise { client: usize, name: u8, ttl_ms: u64 },
    Withdraw { client: usize, name: u8 },
    Subscribe(usize),
    Unsubscribe(usize),
    Sweep,
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Open),
        2 => (0_usize..16).prop_map(Op::Close),
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

    /// M-9, M-13, M-14, M-19: in any order of operations each advertisement and each subscription belongs to an open session,
    /// all are removed with it in one step and its calls end, an expired lease is not listed, and a second removal affects
    /// nothing else.
    #[test]
    fn sessions_and_their_resources_agree(ops in prop::collection::vec(op(), 1..60)) {
        let subscriptions = ResourceCaps { total: Cap::of::<3>(), per_client: Cap::of::<2>() };
        let mut table = SessionTable::new(2, subscriptions, &limits());
        let leases = table.leases();
        // The ends of calls, by client; subscriptions with their client and their end.
        let mut streams: Vec<CancellationToken> = Vec::new();
        let mut subscribed: Vec<(usize, ResourceKey, CancellationToken)> = Vec::new();
        let mut unsubscribed = Vec::new();
        let (mut now, mut keys) = (Instant::now(), Vec::new());
        // The open sessions, with the lease of each advertisement.
        let mut model: Vec<Option<Vec<(u8, Instant)>>> = Vec::new();
        for op in ops {
            match op {
                Op::Open => {
                    let full = model.iter().flatten().count() == 4;
                    let end = CancellationToken::new();
                    let opened = table.open(keys.len() as u64, end.clone());
                    prop_assert_eq!(opened.is_err(), full);
                    if let Ok(session) = opened {
                        keys.push(session);
                        streams.push(end);
                        model.push(Some(Vec::new()));
                    }
                }
                Op::Close(n) if !keys.is_empty() => {
                    table.close(keys[n % keys.len()]);
                    model[n % keys.len()] = None;
                }
                Op::Advertise { client, name: n, ttl_ms } if !keys.is_empty() => {
                    let at = client % keys.len();
                    let result = table.advertise(keys[at], name(n), Some(Duration::from_millis(ttl_ms)), now);
                    model.iter_mut().flatten().for_each(|held| held.retain(|(_, ends)| *ends > now));
                    let total: usize = model.iter().flatten().map(Vec::len).sum();
                    let ends = now + Duration::from_millis(ttl_ms.clamp(1_000, 300_000));
                    match (&mut model[at], &result) {
                        (None, result) => prop_assert_eq!(result, &Err(SessionRefusal::Ended.into())),
                        (_, Err(SessionError::Registry(RegistryRefusal::RateLimited { .. }))) => {}
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
                    table.sweep(now);
                    let held = model[at].iter_mut().flat_map(|held| held.iter());
                    let there = held.into_iter().any(|(known, ends)| *known == n && *ends > now);
                    prop_assert_eq!(table.withdraw(keys[at], &name(n)), there);
                    model[at].iter_mut().for_each(|held| held.retain(|(known, _)| *known != n));
                }
                Op::Subscribe(n) if !keys.is_empty() => {
                    let (at, end) = (n % keys.len(), CancellationToken::new());
                    let live: Vec<_> = subscribed.iter().filter(|(_, _, end)| !end.is_cancelled()).collect();
                    let room = live.len() < 3 && live.iter().filter(|(client, ..)| *client == at).count() < 2;
                    let result = table.subscribe(keys[at], end.clone());
                    prop_assert_eq!(result.is_ok(), room && model[at].is_some());
                    if let Ok(key) = result {
                        subscribed.push((at, key, end));
                    }
                }
                Op::Unsubscribe(n) if !subscribed.is_empty() => {
                    // Some of them for the second time, or after their client.
                    let (client, key, end) = subscribed[n % subscribed.len()].clone();
                    table.unsubscribe(key);
                    if !end.is_cancelled() {
                        subscribed.retain(|(_, other, _)| *other != key);
                        unsubscribed.push((client, key, end));
                    } else if let Some((_, key, _)) = unsubscribed.last() {
                        table.unsubscribe(*key);
                    }
                }
                Op::Sweep => table.sweep(now),
                Op::Advance(millis) => now += Duration::from_millis(millis),
                Op::Subscribe(_) | Op::Unsubscribe(_) | Op::Close(_) | Op::Advertise { .. } | Op::Withdraw { .. } => {}
            }
            table.check_law();
            let live = model.iter().flatten().flatten().filter(|(_, ends)| *ends > now);
            let names: std::collections::BTreeSet<_> = live.map(|(n, _)| name(*n)).collect();
            prop_assert_eq!(super::table::names(&leases, now), names.into_iter().collect::<Vec<_>>());
            for (client, (end, held)) in streams.iter().zip(&model).enumerate() {
                prop_assert_eq!(end.is_cancelled(), held.is_none());
                let of_it = |(at, ..): &&(usize, ResourceKey, CancellationToken)| *at == client;
                prop_assert!(subscribed.iter().filter(of_it).all(|(_, _, end)| end.is_cancelled() == held.is_none()));
            }
            prop_assert!(unsubscribed.iter().all(|(_, _, end)| !end.is_cancelled()), "a subscription removed before is not ended again");
            let live = subscribed.iter().filter(|(_, _, end)| !end.is_cancelled()).count();
            prop_assert_eq!(table.sizes(), (model.iter().flatten().count(), live));
        }
    }
}
