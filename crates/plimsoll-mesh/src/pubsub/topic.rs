//! Topics, and filters over them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most levels of a topic or filter.
pub const MAX_LEVELS: usize = 8;

/// The longest topic or filter, in bytes.
pub const MAX_TOPIC: usize = 128;

/// Where a message is published: one to eight levels of `[a-z0-9_-]+`, separated by full stops.
///
/// ```
/// use plimsoll_mesh::pubsub::Topic;
///
/// assert!("weather.oslo".parse::<Topic>().is_ok());
/// assert!("weather.*".parse::<Topic>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic(Arc<str>);

/// The topics of a subscription: levels as in a [`Topic`], or `*` for any one level; `**` as the last one stands for any
/// number of further levels, none included.
///
/// ```
/// use plimsoll_mesh::pubsub::Filter;
///
/// let filter: Filter = "weather.**".parse()?;
/// assert!(filter.matches(&"weather.oslo.harbour".parse()?));
/// assert!(!filter.matches(&"news.oslo".parse()?));
/// # Ok::<(), plimsoll_mesh::pubsub::InvalidTopic>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter(Arc<str>);

/// A topic or filter that breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not valid: 1 to {MAX_LEVELS} levels of a-z, 0-9, '_', '-', separated by '.', {MAX_TOPIC} bytes at most; \
     in a filter a level may be '*', and the last one '**'"
)]
pub struct InvalidTopic {
    /// What was given, cut to 40 characters.
    pub given: String,
}

impl Topic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl Filter {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the filter matches `topic`.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut topic = topic.levels();
        for level in self.levels() {
            match (level, topic.next()) {
                ("**", _) => return true,
                ("*", Some(_)) => {}
                (level, Some(given)) if level == given => {}
                _ => return false,
            }
        }
        topic.next().is_none()
    }

    pub(super) fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

fn is_plain(level: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    !level.is_empty() && level.bytes().all(plain)
}

fn check(given: &str, is_level: impl Fn(&str, bool) -> bool) -> Result<Arc<str>, InvalidTopic> {
    let levels = given.split('.').count();
    let good = |(at, level)| is_level(level, at + 1 == levels);
    if given.len() <= MAX_TOPIC && levels <= MAX_LEVELS && given.split('.').enumerate().all(good) {
        Ok(given.into())
    } else {
        Err(InvalidTopic { given: given.chars().take(40).collect() })
    }
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(topic: &str) -> Result<Self, InvalidTopic> {
        check(topic, |level, _| is_plain(level)).map(Self)
    }
}

impl FromStr for Filter {
    type Err = InvalidTopic;

    fn from_str(filter: &str) -> Result<Self, InvalidTopic> {
        check(filter, |level, last| level == "*" || level == "**" && last || is_plain(level)).map(Self)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_filters_have_rules() {
        let long = "x".repeat(129);
        let deep = ["a"; 9].join(".");
        for bad in ["", ".", "a.", ".a", "a..b", "A", "a b", "ä", "a.**.b", "a*", "***", &long, &deep] {
            assert!(bad.parse::<Topic>().is_err() && bad.parse::<Filter>().is_err(), "{bad:?}");
        }
        for good in ["a", "a.b-c.d_e.0", &["a"; 8].join(".")] {
            assert!(good.parse::<Topic>().is_ok() && good.parse::<Filter>().is_ok(), "{good:?}");
        }
        for filter in ["*", "**", "a.*.b", "a.**", "*.*"] {
            assert!(filter.parse::<Topic>().is_err() && filter.parse::<Filter>().is_ok(), "{filter:?}");
        }
    }

    #[test]
    fn a_star_is_one_level_and_two_are_the_rest() {
        let matches = |filter: &str, topic: &str| filter.parse::<Filter>().unwrap().matches(&topic.parse().unwrap());
        assert!(matches("a.*", "a.b") && !matches("a.*", "a") && !matches("a.*", "a.b.c"));
        assert!(matches("a.**", "a") && matches("a.**", "a.b.c") && !matches("a.**", "b"));
        assert!(matches("**", "a.b") && matches("*.b", "a.b") && !matches("a.b", "a.b.c"));
    }
}
