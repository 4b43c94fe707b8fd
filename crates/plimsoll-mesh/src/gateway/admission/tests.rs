use proptest::prelude::*;

use super::*;

fn from(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn over_the_cap_comes_the_desk_and_over_the_desk_the_street() {
    let door = Door::new(1, 1, &AdmissionLimits::default());
    let Arrival::Client(mut client) = door.arrive(from(1), b"a") else { panic!("a client place was free") };
    client.settle(Outcome::Served);
    let Arrival::Desk(mut desk) = door.arrive(from(2), b"b") else { panic!("a desk place was free") };
    assert!(matches!(door.arrive(from(3), b"c"), Arrival::TurnAway));
    assert!(matches!(door.arrive(from(3), b"c"), Arrival::Repeated), "a repeated first packet counts once");
    desk.settle(Outcome::Told);
    drop(desk);
    let attempts = door.attempts();
    assert_eq!((attempts.offered, attempts.served, attempts.told, attempts.turned_away), (3, 1, 1, 1));
    assert_eq!((attempts.clients, attempts.at_desk), (1, 0));
    drop(client);
    assert!(matches!(door.arrive(from(4), b"d"), Arrival::Client(_)));
}

#[test]
fn a_place_given_back_without_a_word_is_a_failed_handshake() {
    let door = Door::new(1, 1, &AdmissionLimits::default());
    drop(door.arrive(from(1), b"a"));
    assert_eq!(door.attempts().failed_handshakes, 1);
    assert_eq!(door.attempts().clients, 0);
}

proptest! {
    /// Whatever happens in whichever order, the ledger balances after each step and no cap is passed.
    #[test]
    fn the_ledger_always_balances(steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>()), 0..200)) {
        let door = Door::new(3, 2, &AdmissionLimits::default());
        let mut held: Vec<Place> = Vec::new();
        for (n, (step, which)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => match door.arrive(from(n as u16), b"id") {
                    Arrival::Client(place) | Arrival::Desk(place) => held.push(place),
                    Arrival::TurnAway => {}
                    Arrival::Repeated => prop_assert!(false, "every attempt is another"),
                },
                _ if held.is_empty() => {}
                5 => drop(held.swap_remove(which.index(held.len()))),
                settle => {
                    let place = which.get_mut(&mut held);
                    place.settle([Outcome::Served, Outcome::Peer, Outcome::Told][usize::from(settle) - 2]);
                }
            }
            let attempts = door.attempts();
            prop_assert!(attempts.balanced(), "{attempts:?}");
            prop_assert!(attempts.clients <= 3 && attempts.at_desk <= 2);
            prop_assert_eq!(attempts.clients + attempts.at_desk, held.len() as u64);
        }
        held.clear();
        let attempts = door.attempts();
        prop_assert_eq!((attempts.clients, attempts.at_desk, attempts.deciding), (0, 0, 0));
        prop_assert!(attempts.balanced());
    }
}
