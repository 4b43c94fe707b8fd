//! Parsers of single values. The error of each says what is expected.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use plimsoll::bounded::{ByteCap, Cap, Rate};
use plimsoll_mesh::client;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::names::ServiceName;
use plimsoll_mesh::peers::{Seed, SeedAddress};
use plimsoll_mesh::rpc::ProviderChoice;

use crate::services::Builtin;

/// How much memory the node plans with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// A share of what there is.
    Percent(u8),
}

/// The longest time of any setting.
const LONGEST: Duration = Limits::MAX_IDLE_TIMEOUT;

type Read<T> = Result<T, String>;

pub(crate) fn text(value: &str) -> Read<String> {
    Ok(value.to_owned())
}

/// All addresses of a host, at least one.
pub(crate) fn addresses(value: &str) -> Read<Vec<SocketAddr>> {
    let found = value.to_socket_addrs().map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => "an address is HOST:PORT".to_owned(),
        _ => format!("the host does not resolve: {error}"),
    })?;
    let found: Vec<_> = found.collect();
    if found.is_empty() { Err("the host has no address".into()) } else { Ok(found) }
}

/// An address of one machine, or nothing.
pub(crate) fn advertised(value: &str) -> Read<Option<SocketAddr>> {
    if value.is_empty() {
        return Ok(None);
    }
    match addresses(value)?[0] {
        every if every.ip().is_unspecified() => Err("others cannot dial every address; name the one to dial".into()),
        one => Ok(Some(one)),
    }
}

pub(crate) fn name(value: &str) -> Read<ServiceName> {
    value.parse().map_err(|error: plimsoll_mesh::names::InvalidName| error.to_string())
}

pub(crate) fn builtin(value: &str) -> Read<Builtin> {
    value.parse()
}

pub(crate) fn seed(value: &str) -> Read<Seed> {
    let (node, place) = match value.split_once('@') {
        Some((node, place)) => (Some(node.parse().map_err(|_| "a node id is 64 hexadecimal digits")?), place),
        None => (None, value),
    };
    // A host name is looked up while the node runs.
    let address: SeedAddress =
        place.parse().map_err(|error: plimsoll_mesh::peers::InvalidSeedAddress| error.to_string())?;
    Ok(Seed { node, address })
}

pub(crate) fn choice(value: &str) -> Read<ProviderChoice> {
    match value {
        "better-of-two" => Ok(ProviderChoice::PowerOfTwoChoices),
        "round-robin" => Ok(ProviderChoice::RoundRobin),
        "sticky" => Ok(ProviderChoice::Sticky),
        _ => Err("better-of-two, round-robin or sticky is needed".into()),
    }
}

pub(crate) fn flag(value: &str) -> Read<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false is needed".into()),
    }
}

pub(crate) fn cap(value: &str) -> Read<usize> {
    match value.parse() {
        Ok(0) | Err(_) => Err("a cap is a whole number from 1; nothing here is unlimited".into()),
        Ok(cap) => Ok(cap),
    }
}

/// The most entries that something holds.
pub(crate) fn entries(value: &str) -> Read<Cap> {
    Cap::new(cap(value)?).map_err(|error| error.to_string())
}

/// The most entries that something holds, or nothing.
pub(crate) fn entries_if_any(value: &str) -> Read<Option<Cap>> {
    if value.is_empty() { Ok(None) } else { entries(value).map(Some) }
}

/// So many a second, and as many at once.
pub(crate) fn rate(value: &str) -> Read<Rate> {
    entries(value).map(Rate::per_second)
}

pub(crate) fn small_cap(value: &str) -> Read<u32> {
    u32::try_from(cap(value)?).map_err(|_| format!("a cap here is at most {}", u32::MAX))
}

/// Requests in flight of one client: no more than it may have streams.
pub(crate) fn requests_per_client(value: &str) -> Read<u32> {
    let streams = Limits::default().bidi_streams;
    match small_cap(value)? {
        requests if requests > streams => Err(format!("a connection has {streams} streams, so at most {streams}")),
        requests => Ok(requests),
    }
}

pub(crate) fn bytes(value: &str) -> Read<usize> {
    const WANTED: &str = "a size is a number from 1 with B, KiB, MiB or GiB; nothing here is unlimited";
    let (number, unit) = split(value).ok_or(WANTED)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(WANTED.into()),
    };
    usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|&size| size > 0)
        .ok_or(WANTED.into())
}

/// The size of a body: what this program's own client reads back, and what the requests of one client may hold.
pub(crate) fn body(value: &str) -> Read<usize> {
    let largest = client::MAX_RESPONSE.min(Limits::default().all_bodies_bytes / Limits::SHARES);
    let size = bytes(value)?;
    if size > largest { Err(format!("a body is at most {}MiB", largest >> 20)) } else { Ok(size) }
}

/// What unread responses may hold, where one client may hold its share and a body be as large as `max_body`.
pub(crate) fn responses(value: &str, max_body: usize) -> Read<usize> {
    let size = bytes(value)?;
    ByteCap::new(size as u64).map_err(|error| error.to_string())?;
    match max_body.saturating_mul(Limits::SHARES) {
        least if size < least => Err(format!(
            "one client may hold a quarter of it, which has to take a body of gateway.max_body: at least {least} bytes \
             are needed"
        )),
        _ => Ok(size),
    }
}

/// What may wait for one subscriber: no more than the largest body.
pub(crate) fn backlog(value: &str) -> Read<ByteCap> {
    const LARGEST: usize = 16 << 20;
    match bytes(value)? {
        size if size > LARGEST => Err(format!("a backlog is at most {}MiB", LARGEST >> 20)),
        size => ByteCap::new(size as u64).map_err(|error| error.to_string()),
    }
}

/// What may wait for all subscribers: as much as for one, at least.
pub(crate) fn all_backlogs(value: &str, backlog: ByteCap) -> Read<ByteCap> {
    match ByteCap::new(bytes(value)? as u64).map_err(|error| error.to_string())? {
        all if all < backlog => Err(format!("at least pubsub.backlog, {} bytes, is needed", backlog.get())),
        all => Ok(all),
    }
}

pub(crate) fn duration(value: &str) -> Read<Duration> {
    const WANTED: &str = "a time is a number from 1 with ms, s or min; nothing here waits for ever";
    let (number, unit) = split(value).ok_or(WANTED)?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "min" => Duration::from_secs(number.checked_mul(60).ok_or(WANTED)?),
        _ => return Err(WANTED.into()),
    };
    match duration {
        Duration::ZERO => Err(WANTED.into()),
        duration if duration > LONGEST => Err(format!("a time here is at most {}min", LONGEST.as_secs() / 60)),
        duration => Ok(duration),
    }
}

/// A deadline: no longer than a call may name itself.
pub(crate) fn deadline(value: &str) -> Read<Duration> {
    let longest = Limits::default().longest_deadline;
    let deadline = duration(value)?;
    if deadline > longest { Err(format!("a deadline is at most {}s", longest.as_secs())) } else { Ok(deadline) }
}

/// A lease: short enough that the services of a silent node go, long enough that they can be renewed.
pub(crate) fn lease(value: &str) -> Read<Duration> {
    let lease = duration(value)?;
    if (Duration::from_secs(1)..=Duration::from_secs(300)).contains(&lease) {
        Ok(lease)
    } else {
        Err("a time from 1s to 300s is needed".into())
    }
}

pub(crate) fn budget(value: &str) -> Read<Budget> {
    match value.strip_suffix('%') {
        Some(share) => match share.trim().parse() {
            Ok(percent @ 1..=100) => Ok(Budget::Percent(percent)),
            _ => Err("a share is 1% to 100%".into()),
        },
        None => bytes(value).map(|bytes| Budget::Bytes(bytes as u64)),
    }
}

fn split(value: &str) -> Option<(u64, &str)> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    Some((value[..digits].parse().ok()?, value[digits..].trim_start()))
}
