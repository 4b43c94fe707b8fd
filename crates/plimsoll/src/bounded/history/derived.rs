//! An index that is kept in step with the events.

/// Something computed from the events of a [`History`](super::History): counts by kind, the last event of each worker.
///
/// It hears of every event that comes and of every event that goes, in the step in which that happens. `()` derives
/// nothing.
pub trait Derived<K, E> {
    /// An event came in.
    fn added(&mut self, key: &K, event: &E);

    /// The same event is going out.
    fn removed(&mut self, key: &K, event: &E);
}

impl<K, E> Derived<K, E> for () {
    fn added(&mut self, _key: &K, _event: &E) {}

    fn removed(&mut self, _key: &K, _event: &E) {}
}
