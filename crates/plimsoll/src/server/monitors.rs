//! A server's monitors of other actors (OTP's `erlang:monitor/2`).

use std::collections::HashMap;

use ractor::{ActorCell, ActorId};

use crate::exit::ExitReason;

/// Names a monitor of one server, for ever: that of a monitor whose `down` has run names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MonitorRef(u64);

/// The server has as many monitors as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} monitors are set already")]
pub struct MonitorsFull {
    /// How many there may be.
    pub limit: u32,
}

/// A monitored actor has exited (OTP's `'DOWN'` message).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Down {
    /// The monitor, as [`Context::monitor`](super::Context::monitor) returned it.
    pub monitor: MonitorRef,
    /// The actor that has exited.
    pub actor: ActorCell,
    /// Why.
    pub reason: DownReason,
}

/// Why a monitored actor is down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// It exited with this reason.
    #[error("{0}")]
    Exit(ExitReason),
    /// It had exited before it was monitored.
    #[error("no process")]
    NoProcess,
}

#[derive(Debug)]
struct Entry {
    actor: ActorCell,
    /// Set when the actor has exited and `down` has not run yet.
    down: Option<DownReason>,
}

/// The monitors of one server. Pure rules; each monitor is announced at most once.
#[derive(Debug)]
pub(crate) struct MonitorTable {
    limit: u32,
    next: u64,
    /// The server has ended: nothing is kept any more.
    closed: bool,
    entries: HashMap<MonitorRef, Entry>,
    /// The monitors of each actor that has not exited.
    by_actor: HashMap<ActorId, Vec<MonitorRef>>,
}

impl MonitorTable {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, next: 0, closed: false, entries: HashMap::new(), by_actor: HashMap::new() }
    }

    /// Adds a monitor; none that lasts when the server has ended. The flag says whether it is the first of `actor`: then the actor must be monitored.
    pub(crate) fn add(&mut self, actor: &ActorCell) -> Result<(MonitorRef, bool), MonitorsFull> {
        if self.entries.len() >= self.limit as usize {
            return Err(MonitorsFull { limit: self.limit });
        }
        let monitor = MonitorRef(self.next);
        self.next += 1;
        if self.closed {
            return Ok((monitor, false));
        }
        self.entries.insert(monitor, Entry { actor: actor.clone(), down: None });
        let of_actor = self.by_actor.entry(actor.get_id()).or_default();
        of_actor.push(monitor);
        Ok((monitor, of_actor.len() == 1))
    }

    /// Removes a monitor. The flag says whether it was the last of an actor that has not exited.
    pub(crate) fn remove(&mut self, monitor: MonitorRef) -> Option<(ActorCell, bool)> {
        let entry = self.entries.remove(&monitor)?;
        let id = entry.actor.get_id();
        let last = self.by_actor.get_mut(&id).is_some_and(|of_actor| {
            of_actor.retain(|other| *other != monitor);
            of_actor.is_empty()
        });
        if last {
            self.by_actor.remove(&id);
        }
        Some((entry.actor, last))
    }

    /// An actor has exited. Returns its monitors, to be announced; none when that was known.
    pub(crate) fn exited(&mut self, actor: ActorId, reason: &DownReason) -> Vec<MonitorRef> {
        let monitors = self.by_actor.remove(&actor).unwrap_or_default();
        for monitor in &monitors {
            if let Some(entry) = self.entries.get_mut(monitor) {
                entry.down = Some(reason.clone());
            }
        }
        monitors
    }

    /// Takes an announced monitor; `None` when it was removed meanwhile.
    pub(crate) fn take_down(&mut self, monitor: MonitorRef) -> Option<Down> {
        self.entries.get(&monitor)?.down.as_ref()?;
        let Entry { actor, down } = self.entries.remove(&monitor)?;
        down.map(|reason| Down { monitor, actor, reason })
    }

    /// The server has ended: removes all monitors and returns the actors that have not exited.
    pub(crate) fn close(&mut self) -> Vec<ActorCell> {
        self.closed = true;
        let live = self.entries.drain().filter(|(_, entry)| entry.down.is_none()).map(|(_, entry)| entry.actor);
        let live = live.collect();
        self.by_actor.clear();
        live
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr, ActorRef};

    use super::*;

    struct Idle;

    impl Actor for Idle {
        type Msg = ();
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn monitors_of_one_actor_are_independent_and_announced_once() {
        let (actor, _) = Actor::spawn(None, Idle, ()).await.unwrap();
        let cell = actor.get_cell();
        let mut table = MonitorTable::new(3);
        let (first, watch) = table.add(&cell).unwrap();
        let (second, again) = table.add(&cell).unwrap();
        let (third, _) = table.add(&cell).unwrap();
        assert_eq!((watch, again), (true, false));
        assert_eq!(table.add(&cell), Err(MonitorsFull { limit: 3 }));
        assert_eq!(table.remove(first).map(|(_, last)| last), Some(false));
        assert!(table.take_down(second).is_none(), "it has not exited");
        let reason = DownReason::Exit(ExitReason::Normal);
        assert_eq!(table.exited(cell.get_id(), &reason), [second, third]);
        assert!(table.exited(cell.get_id(), &DownReason::NoProcess).is_empty(), "the first event counts");
        assert_eq!(table.remove(third).map(|(_, last)| last), Some(false), "nothing to demonitor any more");
        assert_eq!(table.take_down(second).map(|down| down.reason), Some(reason));
        assert!(table.take_down(third).is_none());
        assert_eq!(table.len(), 0);
        let (last, watch) = table.add(&cell).unwrap();
        assert!(watch, "monitored anew");
        assert_eq!(table.remove(last).map(|(_, last)| last), Some(true));
        table.add(&cell).unwrap();
        assert_eq!((table.close().len(), table.len()), (1, 0));
        assert!(table.add(&cell).is_ok_and(|(_, watch)| !watch), "a handler may run on when its server is killed");
        assert_eq!(table.len(), 0);
    }
}
