use proptest::prelude::*;

use super::*;

fn from(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn over_the_cap_a_responder_then_a_plain_refusal() {
    let admission = ClientAdmission::new(1, 1, &AdmissionLimits::default());
    let Decision::Admit(mut client) = admission.decide(from(1), true, b"a") else { panic!("a client slot is free") };
    client.settle(Outcome::Served);
    let Decision::Respond(mut responder, _) = admission.decide(from(2), true, b"b") else {
        panic!("a responder is free")
    };
    assert!(matches!(admission.decide(from(3), true, b"c"), Decision::Refuse(_)));
    assert!(matches!(admission.decide(from(3), true, b"c"), Decision::Repeated), "a repeated first packet counts once");
    responder.settle(Outcome::RefusedWithReason);
    drop(responder);
    let attempts = admission.attempts();
    assert_eq!(
        (attempts.offered, attempts.served, attempts.refused_with_reason, attempts.refused_without_reason),
        (3, 1, 1, 1)
    );
    assert_eq!((attempts.clients, attempts.responding), (1, 0));
    drop(client);
    assert!(matches!(admission.decide(from(4), true, b"d"), Decision::Admit(_)));
}

#[test]
fn a_slot_dropped_without_an_outcome_is_a_failed_handshake() {
    let admission = ClientAdmission::new(1, 1, &AdmissionLimits::default());
    drop(admission.decide(from(1), true, b"a"));
    assert_eq!(admission.attempts().failed_handshakes, 1);
    assert_eq!(admission.attempts().clients, 0);
}

proptest! {
    /// In any order of operations the counters balance after each step and no cap is exceeded.
    #[test]
    fn the_counters_always_balance(steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>()), 0..200)) {
        let admission = ClientAdmission::new(3, 2, &AdmissionLimits::default());
        let mut held: Vec<AdmissionSlot> = Vec::new();
        for (n, (step, which)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => match admission.decide(from(n as u16), true, b"id") {
                    Decision::Admit(slot) | Decision::Respond(slot, _) => held.push(slot),
                    Decision::Refuse(_) | Decision::Retry => {}
                    Decision::Repeated => prop_assert!(false, "every attempt is a new one"),
                },
                _ if held.is_empty() => {}
                5 => drop(held.swap_remove(which.index(held.len()))),
                settle => {
                    let slot = which.get_mut(&mut held);
                    slot.settle([Outcome::Served, Outcome::Peer, Outcome::RefusedWithReason][usize::from(settle) - 2]);
                }
            }
            let attempts = admission.attempts();
            prop_assert!(attempts.balanced(), "{attempts:?}");
            prop_assert!(attempts.clients <= 3 && attempts.responding <= 2);
            prop_assert_eq!(attempts.clients + attempts.responding, held.len() as u64);
        }
        held.clear();
        let attempts = admission.attempts();
        prop_assert_eq!((attempts.clients, attempts.responding, attempts.pending), (0, 0, 0));
        prop_assert!(attempts.balanced());
    }
}
