//! Caps: the limits of bounded parts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The maximum number of entries of a part: 1 to [`Cap::MAX`].
///
/// In a configuration it is a number, or a text with digits (`"10_000"`); zero, `"unlimited"` and the like are refused.
///
/// ```
/// use plimsoll::bounded::{Cap, InvalidCap};
///
/// const CLIENTS: Cap = Cap::of::<10_000>();
/// assert_eq!(CLIENTS.get(), 10_000);
/// assert_eq!(Cap::new(0), Err(InvalidCap::Zero));
/// assert!("unlimited".parse::<Cap>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Cap(u32);

/// The maximum number of bytes of a part: 1 to [`ByteCap::MAX`].
///
/// In a configuration it is a number of bytes, or a text with a unit (`"64 MiB"`); zero, `"unlimited"` and the like are
/// refused.
///
/// ```
/// use plimsoll::bounded::ByteCap;
///
/// const BACKLOG: ByteCap = ByteCap::of::<{ 1024 * 1024 }>();
/// assert_eq!("1 MiB".parse(), Ok(BACKLOG));
/// assert!(ByteCap::new(u64::MAX).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ByteCap(u64);

/// A value that is no valid cap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCap {
    /// Zero: the part could hold nothing.
    #[error("a cap is at least 1; zero means neither \"off\" nor \"unlimited\"")]
    Zero,
    /// So large that it would limit nothing.
    #[error("a cap of {given} limits nothing; the largest is {largest}")]
    TooLarge {
        /// The given value.
        given: u64,
        /// The largest cap of this kind.
        largest: u64,
    },
    /// Not a number, for instance `unlimited`.
    #[error("{given:?} is not a cap: a number is required, there is no \"unlimited\"")]
    NotANumber {
        /// The given text, cut to 40 characters.
        given: String,
    },
}

impl Cap {
    /// The largest cap: a thousand million entries.
    pub const MAX: usize = 1_000_000_000;

    /// A cap of `entries`.
    ///
    /// # Errors
    /// [`InvalidCap`] when it is zero or above [`Cap::MAX`].
    pub const fn new(entries: usize) -> Result<Self, InvalidCap> {
        if entries == 0 {
            Err(InvalidCap::Zero)
        } else if entries > Self::MAX {
            Err(InvalidCap::TooLarge { given: entries as u64, largest: Self::MAX as u64 })
        } else {
            Ok(Self(entries as u32))
        }
    }

    /// A cap known when compiling, as defaults are; a wrong one does not compile.
    pub const fn of<const ENTRIES: usize>() -> Self {
        const { assert!(ENTRIES > 0 && ENTRIES <= Self::MAX) };
        Self(ENTRIES as u32)
    }

    /// The number of entries.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The number of entries as the slot tables take it.
    pub(crate) const fn slots(self) -> u32 {
        self.0
    }
}

impl ByteCap {
    /// The largest cap: 1 TiB.
    pub const MAX: u64 = 1 << 40;

    /// A cap of `bytes`.
    ///
    /// # Errors
    /// [`InvalidCap`] when it is zero or above [`ByteCap::MAX`].
    pub const fn new(bytes: u64) -> Result<Self, InvalidCap> {
        if bytes == 0 {
            Err(InvalidCap::Zero)
        } else if bytes > Self::MAX {
            Err(InvalidCap::TooLarge { given: bytes, largest: Self::MAX })
        } else {
            Ok(Self(bytes))
        }
    }

    /// A cap known when compiling, as defaults are; a wrong one does not compile.
    pub const fn of<const BYTES: u64>() -> Self {
        const { assert!(BYTES > 0 && BYTES <= Self::MAX) };
        Self(BYTES)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<usize> for Cap {
    type Error = InvalidCap;

    fn try_from(entries: usize) -> Result<Self, InvalidCap> {
        Self::new(entries)
    }
}

impl TryFrom<u64> for ByteCap {
    type Error = InvalidCap;

    fn try_from(bytes: u64) -> Result<Self, InvalidCap> {
        Self::new(bytes)
    }
}

impl FromStr for Cap {
    type Err = InvalidCap;

    fn from_str(text: &str) -> Result<Self, InvalidCap> {
        Self::new(usize::try_from(number(text, text)?).unwrap_or(usize::MAX))
    }
}

impl FromStr for ByteCap {
    type Err = InvalidCap;

    fn from_str(text: &str) -> Result<Self, InvalidCap> {
        const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.trim_end().strip_suffix(unit)?, *bytes)));
        let (digits, bytes) = unit.unwrap_or((text, 1));
        Self::new(number(digits, text)?.saturating_mul(bytes))
    }
}

/// A number with `_` between its digits; `given` is what the error quotes.
fn number(digits: &str, given: &str) -> Result<u64, InvalidCap> {
    let digits: String = digits.trim().chars().filter(|c| *c != '_').collect();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidCap::NotANumber { given: given.chars().take(40).collect() });
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ByteCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = deserializer.deserialize_any(CapVisitor)?;
        match given {
            Number::Number(entries) => Self::new(usize::try_from(entries).unwrap_or(usize::MAX)),
            Number::Text(text) => text.parse(),
        }
        .map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ByteCap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = deserializer.deserialize_any(CapVisitor)?;
        match given {
            Number::Number(bytes) => Self::new(bytes),
            Number::Text(text) => text.parse(),
        }
        .map_err(de::Error::custom)
    }
}

enum Number {
    Number(u64),
    Text(String),
}

struct CapVisitor;

impl de::Visitor<'_> for CapVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cap: a number from 1, there is no \"unlimited\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number::Number(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
        let number = u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
        Ok(Number::Number(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        Ok(Number::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-1: neither zero nor anything that stands for "no limit" can become a cap.
    #[test]
    fn no_cap_means_unlimited() {
        assert_eq!(Cap::new(0), Err(InvalidCap::Zero));
        assert!(matches!(Cap::new(usize::MAX), Err(InvalidCap::TooLarge { .. })));
        assert!(matches!(ByteCap::new(u64::MAX), Err(InvalidCap::TooLarge { .. })));
        for text in ["unlimited", "none", "off", "-1", "", "1e9", "∞"] {
            assert!(matches!(text.parse::<Cap>(), Err(InvalidCap::NotANumber { .. })), "{text}");
            assert!(matches!(text.parse::<ByteCap>(), Err(InvalidCap::NotANumber { .. })), "{text}");
        }
        assert_eq!("0".parse::<Cap>(), Err(InvalidCap::Zero));
        assert_eq!("0 MiB".parse::<ByteCap>(), Err(InvalidCap::Zero));
    }

    /// M-1: a configuration with such a cap is refused with a message that says so.
    #[test]
    fn a_configuration_without_a_limit_is_refused() {
        let refusal = |json: &str| serde_json::from_str::<Cap>(json).unwrap_err().to_string();
        assert!(refusal("0").contains("at least 1"));
        assert!(refusal("-1").contains("no \"unlimited\""));
        assert!(refusal("\"unlimited\"").contains("no \"unlimited\""));
        assert!(refusal("null").contains("a number from 1"));
        assert!(refusal("18446744073709551615").contains("limits nothing"));
        assert!(serde_json::from_str::<ByteCap>("\"unlimited\"").is_err());
    }

    #[test]
    fn caps_are_parsed_with_units_and_separators() {
        assert_eq!("10_000".parse(), Ok(Cap::of::<10_000>()));
        assert_eq!(serde_json::from_str::<Cap>("7").unwrap().get(), 7);
        assert_eq!("64MiB".parse(), Ok(ByteCap::of::<{ 64 << 20 }>()));
        assert_eq!("512 B".parse(), Ok(ByteCap::of::<512>()));
        assert_eq!(serde_json::from_str::<ByteCap>("\"1 KiB\"").unwrap().get(), 1024);
        assert_eq!(serde_json::to_string(&Cap::of::<7>()).unwrap(), "7");
    }
}
