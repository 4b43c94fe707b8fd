//! The servers of a run: started, troubled, replaced, and their books added up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::call::{CallClient, CallServer, Protocol, StartedServer, Worker};
use plimsoll::inspect::Inspect;
use plimsoll::server::{self, ServerProtocol, ServerRef};
use plimsoll_testkit::ledger::Ledger;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use super::fates::{Served, Worked};
use crate::common::{assert_nothing_left, calls_balance};

pub struct Stage {
    pub ledger: Arc<Ledger>,
    places: Vec<Place>,
    /// All servers that have ended. Callers may still hold clients of them, whose calls are counted there.
    past: Mutex<Vec<Arc<dyn Inspect>>>,
    pub over: AtomicBool,
}

pub enum Client {
    Worked(CallClient<Worked>),
    Served(ServerRef<Served>),
}

enum Place {
    Worked(Worker, Mutex<Option<StartedServer<Worked>>>),
    Served(Mutex<Option<StartedServer<ServerProtocol<Served>>>>),
}

const DEADLINE: Duration = Duration::from_millis(6);

impl Stage {
    pub async fn start(seed: u64) -> Self {
        let places = vec![
            Place::Worked(Worker::Actor, Mutex::default()),
            Place::Worked(Worker::Task, Mutex::default()),
            Place::Worked(Worker::Task, Mutex::default()),
            Place::Served(Mutex::default()),
            Place::Served(Mutex::default()),
        ];
        let stage = Self { ledger: Arc::default(), places, past: Mutex::default(), over: AtomicBool::new(false) };
        for place in 0..stage.places.len() {
            stage.fill(place, seed).await;
        }
        stage
    }

    /// A client of the server in one of the places, wherever there is one.
    pub fn client(&self, random: &mut StdRng) -> Option<Client> {
        match &self.places[random.random_range(0..self.places.len())] {
            Place::Worked(_, server) => server.lock().as_ref().map(|server| Client::Worked(server.client())),
            Place::Served(server) => server.lock().as_ref().map(|server| Client::Served(server.client())),
        }
    }

    /// One server after the other is killed, stopped or drained, and followed by another; those that failed as well. Until
    /// it is over, and then to the end of a round: a server that is being ended belongs to no place and to no past.
    pub async fn trouble(self: Arc<Self>, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
        while !self.over.load(Ordering::Relaxed) {
            sleep(Duration::from_micros(random.random_range(500..8_000))).await;
            let place = random.random_range(0..self.places.len());
            self.clear(place, random.random_range(0..3)).await;
            self.fill(place, random.random()).await;
        }
    }

    /// The books of every server that runs balance at this moment.
    pub fn check_books(&self) {
        for place in &self.places {
            let inspector = match place {
                Place::Worked(_, server) => server.lock().as_ref().map(StartedServer::inspector),
                Place::Served(server) => server.lock().as_ref().map(StartedServer::inspector),
            };
            if let Some(inspector) = inspector {
                calls_balance(&inspector.inspect().counters);
            }
        }
    }

    /// Ends all servers and compares both sides.
    pub async fn end(&self) -> String {
        for place in 0..self.places.len() {
            self.clear(place, 0).await;
        }
        let balance = self.ledger.balance().unwrap_or_else(|wrong| panic!("{wrong}"));
        let past = self.sums();
        let refused_before: usize = balance.outcomes.get("nobody there").copied().unwrap_or(0);
        let started = usize::try_from(past["started"]).unwrap_or(usize::MAX);
        assert_eq!(balance.issued, started + refused_before, "every call that was made was started at one server");
        assert_eq!(past["started"], past["settled"]);
        for word in ["reply", "app_error", "timeout", "died", "overloaded", "deadlock"] {
            let seen = balance.outcomes.get(word).copied().unwrap_or(0) as u64;
            let settled = past[&format!("settled_{word}")];
            assert!(seen <= settled, "{word}: seen {seen} times, settled {settled} times");
        }
        let late = past["late_replies"];
        format!("{:?}, late replies {late}, servers {}", balance.outcomes, self.past.lock().len())
    }

    async fn fill(&self, place: usize, seed: u64) {
        let cap = 8 + u32::try_from(seed % 64).unwrap_or(0);
        match &self.places[place] {
            Place::Worked(worker, server) => {
                let service = Worked(Arc::clone(&self.ledger));
                let builder = CallServer::builder(service).worker(*worker).deadline(DEADLINE);
                let builder = builder.max_in_flight(cap).queue(cap / 2).serve_queued_on_stop(seed.is_multiple_of(2));
                let started = builder.start().await.unwrap();
                *server.lock() = Some(started);
            }
            Place::Served(server) => {
                let builder = server::builder(Served(Arc::clone(&self.ledger))).mailbox(cap).deadline(DEADLINE);
                let started = builder.queue(cap / 2).start().await.unwrap();
                *server.lock() = Some(started);
            }
        }
    }

    async fn clear(&self, place: usize, how: u32) {
        match &self.places[place] {
            Place::Worked(_, server) => {
                let taken = server.lock().take();
                self.end_one(taken, how).await;
            }
            Place::Served(server) => {
                let taken = server.lock().take();
                self.end_one(taken, how).await;
            }
        }
    }

    async fn end_one<P: Protocol>(&self, server: Option<StartedServer<P>>, how: u32) {
        let Some(mut server) = server else { return };
        match how {
            0 => server.actor().kill(),
            1 => server.actor().stop(Some("shutdown".to_owned())),
            _ => drop(server.actor().drain()),
        }
        if timeout(Duration::from_millis(4), server.ended()).await.is_err() {
            server.actor().kill();
            server.ended().await;
        }
        // Workers and reply handles that are elsewhere end in turns of their own.
        for _ in 0..100 {
            if server.inspector().inspect().counters["workers"] == 0 {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        assert_nothing_left(&server.inspector().inspect().counters);
        self.past.lock().push(server.inspector());
    }

    /// The counters of all servers together.
    fn sums(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for inspector in self.past.lock().iter() {
            let counters = inspector.inspect().counters;
            assert_nothing_left(&counters);
            for (name, count) in counters {
                *sums.entry(name).or_default() += count.value;
            }
        }
        sums
    }
}
