//! The log of a node: lines on stderr that never wait for their reader, with a filter that can be changed while it runs.

use std::time::Duration;

use tracing::warn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

use crate::events::{self, Events};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::streams;

/// How often lost lines are reported.
const REPORTED_EVERY: Duration = Duration::from_secs(10);

/// The filter of the log.
pub(crate) struct Log(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Log {
    /// Starts the log as the settings say. From now on neither stderr nor stdout waits for its reader.
    ///
    /// # Errors
    /// Exit code 2: `log.filter` is not a filter. 1: the system starts no thread.
    pub(crate) fn start(settings: &Settings) -> Result<Self, Failure> {
        let filter = filter(settings)?;
        let writer =
            streams::detach(settings.log_json).map_err(|error| Failure::because(format!("no log: {error}")))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            // A line that cannot be written is lost. Reported on stderr, which is what failed, it would be a panic of the
            // code that logs: a supervisor, or the holder of a stream.
            .log_internal_errors(false);
        let lines = if settings.log_json { lines.json().boxed() } else { lines.boxed() };
        let (filter, handle) = reload::Layer::new(filter);
        let events = Events.with_filter(events::filter());
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(events).init();
        Ok(Self(Box::new(move |filter| handle.reload(filter))))
    }

    /// Takes the filter of these settings.
    ///
    /// # Errors
    /// Exit code 2: `log.filter` is not a filter; the one before stays.
    pub(crate) fn reload(&self, settings: &Settings) -> Result<(), Failure> {
        let filter = filter(settings)?;
        (self.0)(filter).map_err(Failure::because)
    }
}

fn filter(settings: &Settings) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(&settings.log)
        .map_err(|error| Failure::Usage(anyhow::anyhow!("log.filter = {:?}: {error}", settings.log)))
}

/// Reports how many lines were dropped in all, when there are new ones.
///
/// Cancel safe. Never ends by itself.
pub(crate) async fn report_dropped() {
    let mut reported = 0;
    loop {
        tokio::time::sleep(REPORTED_EVERY).await;
        let dropped = streams::dropped();
        if dropped > reported {
            warn!(target: "mesh_node", dropped, "log lines dropped, because nobody reads the log");
            // That line may have been dropped too.
            reported = dropped + 1;
        }
    }
}
