//! One typed, versioned snapshot of the whole runtime.
//!
//! A part with counters implements [`Inspect`], and its start function passes that to the supervisor with the
//! [`Child`](crate::supervisor::Child). Reading sends no message to any actor: it works while an actor is stuck.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Deref;
use std::time::SystemTime;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// Version of the snapshot's JSON; it rises when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Something that can describe itself at any time, without blocking.
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use plimsoll::inspect::{Details, Inspect, Metric};
///
/// #[derive(Default)]
/// struct Requests(AtomicU64);
///
/// impl Inspect for Requests {
///     fn inspect(&self) -> Details {
///         let requests = self.0.load(Ordering::Relaxed);
///         Details { counters: [("requests", Metric::counter(requests))].into(), ..Details::default() }
///     }
/// }
///
/// assert_eq!(Requests::default().inspect().counters["requests"], 0);
/// ```
pub trait Inspect: Send + Sync + 'static {
    /// Its counters and, for whatever has children, the nodes below it.
    fn inspect(&self) -> Details;
}

/// Whether a metric only rises, or moves in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetricKind {
    /// It only rises while the process lives: how often something happened, or a sum of it.
    #[default]
    Counter,
    /// It rises and falls: what is in use now, a limit, a high-water mark.
    Gauge,
}

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unit {
    /// Things or events.
    #[default]
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Nanoseconds,
    /// Milliseconds.
    Milliseconds,
}

/// One figure with its kind and unit.
///
/// ```
/// use plimsoll::inspect::{Metric, MetricKind, Unit};
///
/// let held = Metric::gauge(4_096).bytes();
/// assert_eq!((held.value, held.kind, held.unit), (4_096, MetricKind::Gauge, Unit::Bytes));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The figure.
    pub value: u64,
    /// Whether it only rises.
    pub kind: MetricKind,
    /// What it counts.
    pub unit: Unit,
}

impl Metric {
    /// A figure that only rises.
    pub const fn counter(value: u64) -> Self {
        Self { value, kind: MetricKind::Counter, unit: Unit::Count }
    }

    /// A figure that rises and falls.
    pub const fn gauge(value: u64) -> Self {
        Self { value, kind: MetricKind::Gauge, unit: Unit::Count }
    }

    /// The same figure in another unit.
    #[must_use]
    pub const fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// The same figure in bytes.
    #[must_use]
    pub const fn bytes(self) -> Self {
        self.unit(Unit::Bytes)
    }
}

/// Metrics by name, for instance `in_flight`.
///
/// It reads like the map of the values that it dereferences to; [`metric`](Self::metric) returns kind and unit as well. In JSON
/// the values are the object `counters`; `gauges` lists the names of those that are gauges, and `units` has the unit of those that
/// are not plain counts.
///
/// ```
/// use plimsoll::inspect::{Metric, MetricKind, Metrics};
///
/// let metrics: Metrics = [("served", Metric::counter(7)), ("in_flight", Metric::gauge(2))].into_iter().collect();
/// assert_eq!((metrics["served"], metrics.get("in_flight")), (7, Some(&2)));
/// assert_eq!(metrics.metric("in_flight").unwrap().kind, MetricKind::Gauge);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    values: BTreeMap<String, u64>,
    /// Of those that are no plain counters.
    types: BTreeMap<String, (MetricKind, Unit)>,
}

impl Metrics {
    /// Adds a metric. One of the same name is replaced.
    pub fn insert(&mut self, name: impl Into<String>, metric: Metric) {
        let Metric { value, kind, unit } = metric;
        let name = name.into();
        match (kind, unit) {
            (MetricKind::Counter, Unit::Count) => {
                self.types.remove(&name);
            }
            other => {
                self.types.insert(name.clone(), other);
            }
        }
        self.values.insert(name, value);
    }

    /// The metric of this name.
    pub fn metric(&self, name: &str) -> Option<Metric> {
        let value = *self.values.get(name)?;
        let (kind, unit) = self.types.get(name).copied().unwrap_or_default();
        Some(Metric { value, kind, unit })
    }

    /// All metrics, by name.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, Metric)> {
        self.values.keys().filter_map(|name| Some((name.as_str(), self.metric(name)?)))
    }
}

impl Deref for Metrics {
    type Target = BTreeMap<String, u64>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl From<Metrics> for BTreeMap<String, u64> {
    fn from(metrics: Metrics) -> Self {
        metrics.values
    }
}

impl<'a> IntoIterator for &'a Metrics {
    type Item = (&'a String, &'a u64);
    type IntoIter = btree_map::Iter<'a, String, u64>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.iter()
    }
}

impl IntoIterator for Metrics {
    type Item = (String, Metric);
    type IntoIter = IntoMetrics;

    fn into_iter(self) -> IntoMetrics {
        IntoMetrics { values: self.values.into_iter(), types: self.types }
    }
}

/// The metrics of a [`Metrics`], by name.
#[derive(Debug)]
pub struct IntoMetrics {
    values: btree_map::IntoIter<String, u64>,
    types: BTreeMap<String, (MetricKind, Unit)>,
}

impl Iterator for IntoMetrics {
    type Item = (String, Metric);

    fn next(&mut self) -> Option<(String, Metric)> {
        let (name, value) = self.values.next()?;
        let (kind, unit) = self.types.get(&name).copied().unwrap_or_default();
        Some((name, Metric { value, kind, unit }))
    }
}

impl<N: Into<String>> Extend<(N, Metric)> for Metrics {
    fn extend<I: IntoIterator<Item = (N, Metric)>>(&mut self, metrics: I) {
        metrics.into_iter().for_each(|(name, metric)| self.insert(name, metric));
    }
}

impl<N: Into<String>> FromIterator<(N, Metric)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (N, Metric)>>(metrics: I) -> Self {
        let mut all = Self::default();
        all.extend(metrics);
        all
    }
}

impl<N: Into<String>, const LEN: usize> From<[(N, Metric); LEN]> for Metrics {
    fn from(metrics: [(N, Metric); LEN]) -> Self {
        metrics.into_iter().collect()
    }
}

/// What an [`Inspect`] adds to its place in the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "DetailsJson")]
pub struct Details {
    /// Counters and gauges by name.
    pub counters: Metrics,
    /// Children, in start order.
    pub children: Vec<TreeNode>,
}

/// The fields of [`Details`] in JSON.
#[derive(Deserialize)]
struct DetailsJson {
    counters: BTreeMap<String, u64>,
    #[serde(default)]
    gauges: BTreeSet<String>,
    #[serde(default)]
    units: BTreeMap<String, Unit>,
    children: Vec<TreeNode>,
}

impl From<DetailsJson> for Details {
    fn from(json: DetailsJson) -> Self {
        let DetailsJson { counters, gauges, units, children } = json;
        let counters = counters.into_iter().map(|(name, value)| {
            let kind = if gauges.contains(&name) { MetricKind::Gauge } else { MetricKind::Counter };
            let unit = units.get(&name).copied().unwrap_or_default();
            (name, Metric { value, kind, unit })
        });
        Self { counters: counters.collect(), children }
    }
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let types = || self.counters.types.iter();
        let gauges: Vec<_> =
            types().filter(|(_, (kind, _))| *kind == MetricKind::Gauge).map(|(name, _)| name).collect();
        let units: BTreeMap<_, _> =
            types().filter(|(_, (_, unit))| *unit != Unit::Count).map(|(name, (_, unit))| (name, unit)).collect();
        let mut fields = serializer.serialize_struct("Details", 4)?;
        fields.serialize_field("counters", &self.counters.values)?;
        if !gauges.is_empty() {
            fields.serialize_field("gauges", &gauges)?;
        }
        if !units.is_empty() {
            fields.serialize_field("units", &units)?;
        }
        fields.serialize_field("children", &self.children)?;
        fields.end()
    }
}

/// What a place in the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A supervisor.
    Supervisor,
    /// Any other actor, or a task child.
    Worker,
}

/// The state of a child as its supervisor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Starting for the first time.
    Starting,
    /// Running.
    Running,
    /// Waiting for its restart.
    Restarting,
    /// Being stopped.
    Stopping,
    /// No child: ended, ignored or terminated; the spec is kept.
    Stopped,
}

/// One place in the supervision tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// The child's id within its supervisor.
    pub id: String,
    /// Supervisor or worker.
    pub kind: Kind,
    /// How its supervisor sees it.
    pub status: Status,
    /// The actor's id, while there is one.
    pub actor: Option<String>,
    /// How often it was restarted.
    pub restarts: u64,
    /// Counters, gauges and children.
    #[serde(flatten)]
    pub details: Details,
}

/// The whole runtime at one moment.
/// ```
/// use plimsoll::inspect::Snapshot;
/// use plimsoll::supervisor::{BoxError, Supervisor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let tree = Supervisor::builder("app").start().await?;
/// assert_eq!(Snapshot::of(tree.inspect()).tree.id, "app");
/// # tree.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Milliseconds since the Unix epoch.
    pub taken_at_ms: u64,
    /// The supervision tree from its root.
    pub tree: TreeNode,
}

impl Snapshot {
    /// A snapshot of `tree`, taken now.
    pub fn of(tree: TreeNode) -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { schema: SCHEMA, taken_at_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX), tree }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details() -> Details {
        let counters = Metrics::from([
            ("served", Metric::counter(7)),
            ("in_flight", Metric::gauge(2)),
            ("sent", Metric::counter(9).bytes()),
            ("held", Metric::gauge(4).bytes()),
        ]);
        Details { counters, children: Vec::new() }
    }

    #[test]
    fn kind_and_unit_of_a_metric_survive_json() {
        let json = serde_json::to_value(details()).unwrap();
        let expected = serde_json::json!({
            "counters": {"served": 7, "in_flight": 2, "sent": 9, "held": 4},
            "gauges": ["held", "in_flight"],
            "units": {"held": "bytes", "sent": "bytes"},
            "children": [],
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Details>(json).unwrap(), details());
    }

    #[test]
    fn a_snapshot_without_kinds_is_read_as_counters() {
        let old = serde_json::json!({"counters": {"held": 4}, "children": []});
        let read: Details = serde_json::from_value(old).unwrap();
        assert_eq!(read.counters.metric("held"), Some(Metric::counter(4)));
    }

    #[test]
    fn a_metric_that_is_replaced_takes_the_new_kind_and_unit() {
        let mut metrics = details().counters;
        metrics.insert("held", Metric::counter(1));
        metrics.extend([("served", Metric::gauge(3).unit(Unit::Nanoseconds))]);
        assert_eq!(metrics.metric("held"), Some(Metric::counter(1)));
        assert_eq!(metrics.metric("served"), Some(Metric::gauge(3).unit(Unit::Nanoseconds)));
        assert_eq!(metrics.clone().into_iter().collect::<Metrics>(), metrics);
        assert_eq!(metrics.metrics().count(), 4);
    }
}
