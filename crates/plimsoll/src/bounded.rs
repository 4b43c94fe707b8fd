//! Parts to build services from, none of which grows without a limit.
//!
//! Each has a [`Cap`] in entries, and a [`ByteCap`] where it holds payloads; an owner or an expiry for every entry; a
//! typed refusal at the cap; [`Counters`] that can be read at any time; and [`Compact`], by which it gives back the
//! room that a spike left behind. They are plain structures that take the time as an argument, so that an actor owns
//! one as its state and a test needs no clock.
//!
//! Times that are settings have no such limit: one of a hundred years or more, [`Duration::MAX`](std::time::Duration::MAX)
//! among them, means "never".
//!
//! There is no value of a cap that means "unlimited": zero and whatever lies above [`Cap::MAX`] are refused when the cap
//! is made, which is when the configuration is read.

mod admission;
mod byte_cache;
mod cap;
mod compact;
mod counters;
mod fanout;
mod history;
mod list;
mod log_throttle;
mod lru_map;
pub mod pool;
pub mod registry;
mod scratch;
pub mod sessions;
mod task_pool;
mod tee;
mod time;

pub use admission::{Admission, AdmissionEvent, AdmissionRefusal, AdmissionSettings, Origin, Permit, Rate, Refused};
pub use byte_cache::{ByteCache, ByteCacheCaps, CacheEvent, Fill, FillError, Lookup, PayloadTooLarge, Wait};
pub use cap::{ByteCap, Cap, InvalidCap};
pub use compact::{Compact, CompactPolicy, Compacted, Footprint};
pub use counters::{Counters, Event, Gauge, GaugeReading};
pub use fanout::{
    BacklogBudget, BacklogEvent, Consumer, Delivery, Disconnected, Fanout, FanoutCaps, FanoutEvent, PublishError,
    Published, SubscribeError, Subscription,
};
pub use history::{Derived, EventTooLarge, History, HistoryCaps, HistoryEvent};
pub use log_throttle::LogThrottle;
pub use pool::{DialPool, LruPool, PoolSettings};
pub use registry::{RegistryRefusal, RegistrySettings, TtlRegistry};
pub use scratch::{Reusable, Scratch};
pub use sessions::{ResourceCaps, ResourceKind, SessionRefusal, SessionSettings, Sessions};
pub use task_pool::{JobEvent, Skipped, TaskPool, TaskPoolCaps};
pub use tee::{Copied, Tee};

pub(crate) use counters::events;
