use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::bounded::linked_list::visits;

fn settings(clients: usize, per_origin: usize, half_open: usize) -> AdmissionSettings {
    AdmissionSettings {
        clients: Cap::new(clients).unwrap(),
        per_origin: Cap::new(per_origin).unwrap(),
        half_open: Cap::new(half_open).unwrap(),
        rate: Rate { per_second: Cap::of::<10>(), burst: Cap::of::<4>() },
        origin_rate: Rate { per_second: Cap::of::<5>(), burst: Cap::of::<2>() },
        origins: Cap::of::<2>(),
        remembered: Cap::of::<64>(),
        ..AdmissionSettings::default()
    }
}

fn address(origin: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, origin, 1).into()
}

#[derive(Debug, Clone)]
enum Op {
    Admit { origin: u8, attempt: u8 },
    Establish(usize),
    Release(usize),
    Advance(u64),
    SetClients(usize),
    SetOpen(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0_u8..4, any::<u8>()).prop_map(|(origin, attempt)| Op::Admit { origin, attempt }),
        3 => (0_usize..16).prop_map(Op::Establish),
        4 => (0_usize..16).prop_map(Op::Release),
        3 => (1_u64..600).prop_map(Op::Advance),
        1 => (1_usize..8).prop_map(Op::SetClients),
        1 => prop_oneof![Just(true), Just(true), Just(false)].prop_map(Op::SetOpen),
    ]
}

/// Plain counts, and each rate as the list of what was admitted: a token is there when the bucket, filled up between
/// those, holds one.
#[derive(Default)]
struct Model {
    clients: Vec<(u8, bool)>,
    all: Vec<Instant>,
    by_origin: HashMap<u8, Vec<Instant>>,
    /// Origins without a client, idle for longest first; the rate of others is forgotten.
    idle: Vec<u8>,
    refusals: BTreeMap<u8, &'static str>,
}

fn has_token(admitted: &[Instant], rate: Rate, now: Instant) -> bool {
    let token = 1_000_000_000 / rate.per_second.get() as u128;
    let full = token * rate.burst.get() as u128;
    let mut filled = full;
    let mut at = admitted.first().copied().unwrap_or(now);
    for taken in admitted {
        filled = (filled + (*taken - at).as_nanos()).min(full) - token;
        at = *taken;
    }
    (filled + (now - at).as_nanos()).min(full) >= token
}

impl Model {
    fn admit(&mut self, origin: u8, settings: &AdmissionSettings, open: bool, now: Instant) -> &'static str {
        let of_origin = self.clients.iter().filter(|(o, _)| *o == origin).count();
        let times = self.by_origin.entry(origin).or_default();
        if !open {
            "shutting_down"
        } else if self.clients.len() >= settings.clients.get() {
            "max_clients"
        } else if of_origin >= settings.per_origin.get() {
            "origin_full"
        } else if self.clients.iter().filter(|(_, half_open)| *half_open).count() >= settings.half_open.get() {
            "half_open"
        } else if !has_token(&self.all, settings.rate, now) {
            "rate"
        } else if !has_token(times, settings.origin_rate, now) {
            "origin_rate"
        } else {
            times.push(now);
            self.all.push(now);
            self.clients.push((origin, true));
            self.idle.retain(|o| *o != origin);
            "admitted"
        }
    }

    fn release(&mut self, at: usize, settings: &AdmissionSettings) {
        let (origin, _) = self.clients.remove(at);
        if self.clients.iter().all(|(o, _)| *o != origin) {
            self.idle.push(origin);
            if self.idle.len() > settings.origins.get() {
                self.by_origin.remove(&self.idle.remove(0));
            }
        }
    }
}

fn word(refusal: &AdmissionRefusal) -> &'static str {
    match refusal {
        AdmissionRefusal::MaxClientsReached { .. } => "max_clients",
        AdmissionRefusal::OriginFull { .. } => "origin_full",
        AdmissionRefusal::HalfOpen { .. } => "half_open",
        AdmissionRefusal::RateLimited { .. } => "rate",
        AdmissionRefusal::OriginRateLimited { .. } => "origin_rate",
        AdmissionRefusal::ShuttingDown => "shutting_down",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// M-6, M-7, F-30, F-31: every attempt is admitted or refused for the reason that plain counts and lists of times give,
    /// each is counted once however often it is repeated, and the table of origins stays bounded.
    #[test]
    fn an_admission_does_what_the_naive_model_does(
        (clients, per_origin, half_open) in (1_usize..6, 1_usize..5, 1_usize..5),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut settings = settings(clients, per_origin, half_open);
        let admission = Admission::<u8>::new(settings.clone());
        let (mut model, mut permits, mut now, mut open) = (Model::default(), Vec::new(), Instant::now(), true);
        for op in ops {
            match op {
                Op::Admit { origin, attempt } => match admission.admit(address(origin), Some(attempt), now) {
                    Ok(permit) => {
                        prop_assert_eq!(model.refusals.get(&attempt), None, "a refused attempt stays refused");
                        prop_assert_eq!(model.admit(origin, &settings, open, now), "admitted");
                        permits.push(permit);
                    }
                    Err(Refused { refusal, repeated: true }) => {
                        prop_assert_eq!(model.refusals.get(&attempt), Some(&word(&refusal)));
                    }
                    Err(Refused { refusal, repeated: false }) => {
                        prop_assert_eq!(model.admit(origin, &settings, open, now), word(&refusal));
                        prop_assert_eq!(model.refusals.insert(attempt, word(&refusal)), None);
                        // A client that waits for `retry_after` finds a token.
                        if let AdmissionRefusal::RateLimited { retry_after } = refusal {
                            prop_assert!(has_token(&model.all, settings.rate, now + retry_after));
                        }
                    }
                },
                Op::Establish(n) if !permits.is_empty() => {
                    let n = n % permits.len();
                    permits[n].establish();
                    model.clients[n].1 = false;
                }
                Op::Release(n) if !permits.is_empty() => {
                    let n = n % permits.len();
                    drop(permits.remove(n));
                    model.release(n, &settings);
                }
                Op::Advance(millis) => now += Duration::from_millis(millis),
                Op::SetClients(cap) => {
                    settings.clients = Cap::new(cap).unwrap();
                    admission.set_clients(settings.clients);
                }
                Op::SetOpen(set) => {
                    open = set;
                    if open { admission.open() } else { admission.close() }
                }
                Op::Establish(_) | Op::Release(_) => {}
            }
            prop_assert_eq!(admission.clients(), model.clients.len());
            prop_assert_eq!(admission.half_open(), model.clients.iter().filter(|(_, half_open)| *half_open).count());
            admission.inner.table.lock().check_invariants();
        }
        drop(permits);
        prop_assert_eq!((admission.clients(), admission.half_open()), (0, 0));
        admission.inner.table.lock().check_invariants();
    }
}

/// M-7: the refusal at the cap says `max_clients_reached`, the cap and when to try again.
#[test]
fn a_client_over_the_cap_is_refused_with_the_reason() {
    let settings = AdmissionSettings { clients: Cap::of::<1>(), ..AdmissionSettings::default() };
    let admission = Admission::<()>::new(settings);
    let permit = admission.admit(address(0), None, Instant::now()).unwrap();
    let refused = admission.admit(address(1), None, Instant::now()).unwrap_err();
    assert_eq!(refused.refusal.code(), "max_clients_reached");
    assert_eq!(refused.refusal.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(refused.to_string(), "all 1 places for clients are taken; try again in 1s");
    drop(permit);
    assert!(admission.admit(address(1), None, Instant::now()).is_ok());
}

/// M-6, F-30: 11,000 attempts of sixteen origins from several threads on a cap of 10,000: exactly 10,000 are admitted, each
/// refused one is counted once although all repeat their first packet, and every place comes back.
#[test]
fn a_storm_is_counted_exactly() {
    let settings = AdmissionSettings {
        half_open: Cap::of::<10_000>(),
        rate: Rate::per_second(Cap::of::<100_000>()),
        origin_rate: Rate::per_second(Cap::of::<100_000>()),
        ..AdmissionSettings::default()
    };
    let admission = Admission::<u32>::new(settings);
    let now = Instant::now();
    let permits: Vec<_> = thread::scope(|scope| {
        let admission = &admission;
        let storm = |from: u32| {
            move || -> Vec<_> {
                (from..11_000)
                    .step_by(4)
                    .filter_map(|n| {
                        let origin = address((n % 16) as u8);
                        let first = admission.admit(origin, Some(n), now);
                        assert!(first.is_ok() || admission.admit(origin, Some(n), now).unwrap_err().repeated);
                        first.ok()
                    })
                    .collect()
            }
        };
        let threads: Vec<_> = (0..4).map(|from| scope.spawn(storm(from))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(permits.len(), 10_000);
    let counters = admission.counters();
    assert_eq!(counters.counted(AdmissionEvent::Offered), 11_000);
    assert_eq!(counters.counted(AdmissionEvent::RefusedMaxClients), 1_000);
    assert_eq!(counters.counted(AdmissionEvent::Repeated), 1_000);
    assert_eq!(admission.inspect().counters["clients_high_water"], 10_000);
    drop(permits);
    assert_eq!(admission.clients(), 0);
    admission.inner.table.lock().check_invariants();
}

/// M-4: admitting and releasing visits as many rows among 10,000 origins as among 10.
#[test]
fn cost_does_not_depend_on_the_number_of_clients() {
    let visited = |clients: u32| {
        let admission = Admission::<()>::new(AdmissionSettings {
            rate: Rate::per_second(Cap::of::<1_000_000>()),
            half_open: Cap::of::<10_000>(),
            ..AdmissionSettings::default()
        });
        let now = Instant::now();
        let from = |n: u32| IpAddr::from(Ipv4Addr::from_bits(n << 8));
        let permits: Vec<_> = (0..clients).map(|n| admission.admit(from(n), None, now).unwrap()).collect();
        let visits = visits::during(|| drop(admission.admit(from(clients + 1), None, now)));
        drop(permits);
        visits
    };
    assert_eq!(visited(10), visited(9_000));
}
