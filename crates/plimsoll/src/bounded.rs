//! Parts to build services from, none of which grows without a limit.
//!
//! Each has a [`Cap`] in entries, and a [`ByteCap`] where it holds payloads; a typed refusal at the cap, or a rule that
//! removes an entry to make room; and [`Counters`] that can be read at any time. [`Tee`] and [`Scratch`] belong to one reader
//! or actor: they have a limit in bytes and show their figures to it. Entries of clients and actors have an owner or an
//! expiry. Parts with a table implement [`Compact`], which releases the capacity that a load spike left unused. Most are plain
//! structures that take the time as an argument, so an actor has one as its state and a test needs no clock. Those that tasks
//! share ([`DialPool`], [`Fanout`], [`ByteCache`], [`TaskPool`], [`ActorRegistry`]) read tokio's clock, so paused time pauses
//! them too.
//!
//! | part | bounds | at the cap |
//! |---|---|---|
//! | [`Admission`] | clients, handshakes, rates, by origin | refuses |
//! | [`ByteCache`] | payloads in bytes | evicts (S3-FIFO) |
//! | [`Deduplicator`] | keys within a window | forgets the least recently seen |
//! | [`DialPool`], [`LruPool`] | open handles, by key | closes the least recently used idle handle, or refuses |
//! | [`Fanout`] | subscribers and their backlogs | disconnects the heaviest or slow consumers |
//! | [`History`] | events, by key and in bytes | removes the oldest |
//! | [`Scratch`] | capacity between two messages | releases it |
//! | [`Sessions`] | clients and their resources | refuses |
//! | [`TaskPool`] | background jobs and their time | refuses |
//! | [`Tee`] | the copy of a stream | drops the copy |
//! | [`TtlRegistry`], [`ActorRegistry`] | providers by name and owner | refuses |
//!
//! Durations that are settings have no maximum: one of a hundred years or more, such as
//! [`Duration::MAX`](std::time::Duration::MAX), means "never".
//!
//! There is no cap that means "unlimited": zero and values above [`Cap::MAX`] are rejected when the cap is made, which is
//! when the configuration is read.

mod admission;
mod byte_cache;
mod cap;
mod compact;
mod counters;
mod deduplicator;
mod fanout;
mod history;
mod linked_list;
mod log_throttle;
mod lru_map;
pub mod pool;
pub mod registry;
mod scratch;
pub mod sessions;
mod task_pool;
mod tee;
mod time;
mod token_bucket;

pub use admission::{Admission, AdmissionEvent, AdmissionRefusal, AdmissionSettings, Origin, Permit, Refused};
pub use byte_cache::{ByteCache, ByteCacheCaps, CacheEvent, Fill, FillError, Lookup, PayloadTooLarge, Wait};
pub use cap::{ByteCap, Cap, InvalidCap};
pub use compact::{Compact, CompactPolicy, Compacted, Footprint};
pub use counters::{Counters, Event, Gauge, GaugeReading};
pub use deduplicator::{Deduplicator, DeduplicatorCaps, DeduplicatorEvent};
pub use fanout::{
    BacklogBudget, BacklogEvent, Consumer, Delivery, Disconnected, Fanout, FanoutCaps, FanoutEvent, PublishError,
    Published, SubscribeError, Subscription,
};
pub use history::{EventTooLarge, History, HistoryCaps, HistoryEvent, HistoryIndex};
pub use log_throttle::LogThrottle;
pub use pool::{DialPool, LruPool, PoolSettings};
pub use registry::{ActorRegistry, RegistryRefusal, RegistrySettings, TtlRegistry};
pub use scratch::{Reusable, Scratch};
pub use sessions::{ResourceCaps, ResourceKind, SessionRefusal, SessionSettings, Sessions};
pub use task_pool::{JobEvent, JobRefused, TaskPool, TaskPoolCaps};
pub use tee::{Tee, TeeOutcome};
pub use token_bucket::{Rate, TokenBucket};

pub(crate) use counters::events;
