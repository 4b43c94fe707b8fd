//! The counters of a bounded part, readable at any time without a message to its owner.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

use super::log_throttle::LogThrottle;
use super::{ByteCap, Cap};
use crate::inspect::{Details, Inspect, Metric};

/// The events that one kind of part counts, including its refusals by reason.
///
/// In the snapshot a name follows the part's own; names of refusals begin with `refused_`.
pub trait Event: Copy + Send + Sync + 'static {
    /// Every event's name, in the order of [`Event::index`].
    const NAMES: &'static [&'static str];

    /// Its place in [`Event::NAMES`].
    fn index(self) -> usize;
}

/// Declares an enum whose variants are [`Event`]s: `Variant = "name"`.
macro_rules! events {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        $vis enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $crate::bounded::Event for $name {
            const NAMES: &'static [&'static str] = &[$($text),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use events;

/// One reading of a [`Gauge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct GaugeReading {
    /// In use now.
    pub used: u64,
    /// The cap in force.
    pub cap: u64,
    /// The most that was in use at any time.
    pub high_water: u64,
}

/// What is in use of something, its cap, and its high-water mark.
#[derive(Debug)]
pub struct Gauge {
    used: AtomicU64,
    cap: AtomicU64,
    high_water: AtomicU64,
}

impl Gauge {
    fn new(cap: u64) -> Self {
        Self { used: AtomicU64::new(0), cap: AtomicU64::new(cap), high_water: AtomicU64::new(0) }
    }

    // ORDERING: relaxed, as nothing else is published through a gauge. A budget decides by the value of its gauge alone.

    /// Sets what is in use. For parts with one writer, which know their own size.
    pub fn set(&self, used: u64) {
        self.used.store(used, Relaxed);
        if used > self.high_water.load(Relaxed) {
            self.high_water.fetch_max(used, Relaxed);
        }
    }

    /// Adds to what is in use. For parts that several tasks change.
    pub fn add(&self, n: u64) {
        let used = self.used.fetch_add(n, Relaxed) + n;
        self.high_water.fetch_max(used, Relaxed);
    }

    /// Adds to what is in use if that stays within the cap; otherwise returns what is in use.
    pub(crate) fn try_add(&self, n: u64) -> Result<(), u64> {
        let cap = self.cap.load(Relaxed);
        let within = |used: u64| used.checked_add(n).filter(|sum| *sum <= cap);
        let before = self.used.fetch_update(Relaxed, Relaxed, within)?;
        self.high_water.fetch_max(before + n, Relaxed);
        Ok(())
    }

    /// Takes from what is in use as much as was added before.
    pub fn sub(&self, n: u64) {
        self.used.fetch_sub(n, Relaxed);
    }

    /// Changes the cap that is shown.
    pub fn set_cap(&self, cap: u64) {
        self.cap.store(cap, Relaxed);
    }

    /// The figures.
    pub fn read(&self) -> GaugeReading {
        GaugeReading {
            used: self.used.load(Relaxed),
            cap: self.cap.load(Relaxed),
            high_water: self.high_water.load(Relaxed),
        }
    }
}

/// The counters of one bounded part: entries, bytes where it holds payloads, and its events. Cloning shares them.
///
/// A refusal is logged as a warning with the part's name and the reason: the first one, then one in ten seconds with the
/// number suppressed.
///
/// The owner of the part writes; any task reads, also while the owner is busy or blocked. As an [`Inspect`] it shows
/// `<name>_used`, `<name>_cap`, `<name>_high_water`, the same with `_bytes_`, and `<name>_<event>`.
///
/// ```
/// use plimsoll::bounded::{Cap, Counters, Event};
/// use plimsoll::inspect::Inspect;
///
/// #[derive(Clone, Copy)]
/// enum Shelf { RefusedFull }
///
/// impl Event for Shelf {
///     const NAMES: &'static [&'static str] = &["refused_full"];
///     fn index(self) -> usize { self as usize }
/// }
///
/// let counters = Counters::<Shelf>::new("shelf", Cap::of::<10>());
/// counters.entries().set(3);
/// counters.count(Shelf::RefusedFull);
/// assert_eq!(counters.inspect().counters["shelf_used"], 3);
/// assert_eq!(counters.inspect().counters["shelf_refused_full"], 1);
/// ```
pub struct Counters<E> {
    inner: Arc<CountersInner>,
    events: PhantomData<fn(E)>,
}

struct CountersInner {
    name: Box<str>,
    entries: Gauge,
    bytes: Option<Gauge>,
    counts: Box<[AtomicU64]>,
    refusal_log_disabled: AtomicBool,
    refusals: Mutex<LogThrottle>,
}

impl CountersInner {
    /// Logs that the part refuses, unless that is throttled.
    #[cold]
    fn log_refusal(&self, reason: &'static str) {
        if self.refusal_log_disabled.load(Relaxed) {
            return;
        }
        let suppressed = self.refusals.lock().record(Instant::now());
        if let Some(suppressed) = suppressed {
            let GaugeReading { used, cap, .. } = self.entries.read();
            tracing::warn!(target: "plimsoll::bounded", part = &*self.name, reason, used, cap, suppressed, "refused");
        }
    }
}

/// How the names of refusals begin.
const REFUSED: &str = "refused_";

impl<E: Event> Counters<E> {
    /// The counters of a part called `name` that holds at most `cap` entries.
    pub fn new(name: &str, cap: Cap) -> Self {
        Self::build(name, cap, None)
    }

    /// The counters of a part that is capped in bytes as well.
    pub fn with_bytes(name: &str, cap: Cap, bytes: ByteCap) -> Self {
        Self::build(name, cap, Some(Gauge::new(bytes.get())))
    }

    fn build(name: &str, cap: Cap, bytes: Option<Gauge>) -> Self {
        let counts = E::NAMES.iter().map(|_| AtomicU64::new(0)).collect();
        let inner = CountersInner {
            name: name.into(),
            entries: Gauge::new(cap.get() as u64),
            bytes,
            counts,
            refusal_log_disabled: AtomicBool::new(false),
            refusals: Mutex::default(),
        };
        Self { inner: Arc::new(inner), events: PhantomData }
    }

    /// Refusals are not logged from now on: the owner logs them itself.
    pub fn disable_refusal_log(&self) {
        self.inner.refusal_log_disabled.store(true, Relaxed);
    }

    /// The name of the part.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Entries in use.
    pub fn entries(&self) -> &Gauge {
        &self.inner.entries
    }

    /// Bytes in use, where the part holds payloads.
    pub fn bytes(&self) -> Option<&Gauge> {
        self.inner.bytes.as_ref()
    }

    /// Counts one event.
    pub fn count(&self, event: E) {
        self.count_many(event, 1);
    }

    /// Counts an event that happened `n` times.
    #[inline]
    pub fn count_many(&self, event: E, n: u64) {
        if let Some(count) = self.inner.counts.get(event.index()) {
            count.fetch_add(n, Relaxed);
        }
        self.log_if_refusal(event);
    }

    /// Counts one event of a part with one writer, at the cost of a plain addition: of two concurrent counts of the same event,
    /// one may be lost.
    #[inline]
    pub fn count_by_owner(&self, event: E) {
        if let Some(count) = self.inner.counts.get(event.index()) {
            count.store(count.load(Relaxed) + 1, Relaxed);
        }
        self.log_if_refusal(event);
    }

    #[inline]
    fn log_if_refusal(&self, event: E) {
        if let Some(reason) = E::NAMES.get(event.index()).and_then(|name| name.strip_prefix(REFUSED)) {
            self.inner.log_refusal(reason);
        }
    }

    /// How often `event` happened.
    pub fn counted(&self, event: E) -> u64 {
        self.inner.counts.get(event.index()).map_or(0, |count| count.load(Relaxed))
    }

    /// All refusals together, whatever their reason.
    pub fn refused(&self) -> u64 {
        let refusals = E::NAMES.iter().zip(&self.inner.counts).filter(|(name, _)| name.starts_with(REFUSED));
        refusals.map(|(_, count)| count.load(Relaxed)).sum()
    }

    /// Adds the figures to those of the owner.
    pub fn add_to(&self, details: &mut Details) {
        let inner = &*self.inner;
        let mut show = |what: &str, metric: Metric| details.counters.insert(format!("{}_{what}", inner.name), metric);
        let level = inner.entries.read();
        show("used", Metric::gauge(level.used));
        show("cap", Metric::gauge(level.cap));
        show("high_water", Metric::gauge(level.high_water));
        if let Some(bytes) = inner.bytes.as_ref().map(Gauge::read) {
            show("bytes_used", Metric::gauge(bytes.used).bytes());
            show("bytes_cap", Metric::gauge(bytes.cap).bytes());
            show("bytes_high_water", Metric::gauge(bytes.high_water).bytes());
        }
        for (name, count) in E::NAMES.iter().zip(&inner.counts) {
            show(name, Metric::counter(count.load(Relaxed)));
        }
    }
}

impl<E: Event> Inspect for Counters<E> {
    fn inspect(&self) -> Details {
        let mut details = Details::default();
        self.add_to(&mut details);
        details
    }
}

impl<E> Clone for Counters<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), events: PhantomData }
    }
}

impl<E: Event> fmt::Debug for Counters<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.inspect().counters).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    events! {
        enum Test {
            RefusedFull = "refused_full",
            RefusedRate = "refused_rate",
            Evicted = "evicted",
        }
    }

    /// M-19: size, cap, high-water mark and refusals by reason are in the snapshot.
    #[test]
    fn a_part_shows_its_figures() {
        let counters = Counters::<Test>::with_bytes("pool", Cap::of::<10>(), ByteCap::of::<100>());
        counters.entries().set(7);
        counters.entries().set(2);
        counters.bytes().unwrap().add(30);
        counters.bytes().unwrap().sub(10);
        counters.count(Test::RefusedFull);
        counters.count_many(Test::RefusedRate, 2);
        counters.count(Test::Evicted);
        let shown = counters.clone().inspect().counters;
        let figures: Vec<_> = shown.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(
            figures,
            [
                ("pool_bytes_cap", 100),
                ("pool_bytes_high_water", 30),
                ("pool_bytes_used", 20),
                ("pool_cap", 10),
                ("pool_evicted", 1),
                ("pool_high_water", 7),
                ("pool_refused_full", 1),
                ("pool_refused_rate", 2),
                ("pool_used", 2),
            ]
        );
        assert_eq!(counters.refused(), 3);
    }

    /// M-20: a bounded part logs a warning when it begins to refuse, with its name and the reason, and not at each
    /// refusal; other events are not logged.
    #[test]
    fn a_part_warns_when_it_begins_to_refuse() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let counters = Counters::<Test>::new("shelf", Cap::of::<10>());
            counters.count(Test::Evicted);
            assert_eq!(log.lines(), Vec::<String>::new());
            for _ in 0..1_000 {
                counters.count(Test::RefusedFull);
                counters.count_by_owner(Test::RefusedRate);
            }
            let quiet = Counters::<Test>::new("quiet", Cap::of::<10>());
            quiet.disable_refusal_log();
            quiet.count(Test::RefusedFull);
        });
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        for word in ["WARN", "plimsoll::bounded", "part=\"shelf\"", "reason=\"full\"", "cap=10", "suppressed=0"] {
            assert!(lines[0].contains(word), "{word}: {lines:?}");
        }
    }

    #[derive(Debug, Default, Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
