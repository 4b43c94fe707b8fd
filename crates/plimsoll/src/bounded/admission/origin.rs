//! The origin of an attempt: the prefix of its address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address prefix. One user can have many addresses, but hardly many prefixes.
///
/// ```
/// use plimsoll::bounded::Origin;
///
/// let origin = Origin::of("203.0.113.9".parse()?, 24, 56);
/// assert_eq!(origin.to_string(), "203.0.113.0/24");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    network: IpAddr,
    length: u8,
}

impl Origin {
    /// The prefix of `address`, of `ipv4` or `ipv6` bits. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn of(address: IpAddr, ipv4: u8, ipv6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let length = ipv4.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self { network: Ipv4Addr::from_bits(address.to_bits() & mask).into(), length }
            }
            IpAddr::V6(address) => {
                let length = ipv6.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self { network: Ipv6Addr::from_bits(address.to_bits() & mask).into(), length }
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_prefix() {
        let origin = |address: &str| Origin::of(address.parse().unwrap(), 24, 56).to_string();
        assert_eq!(origin("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(origin("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(origin("2001:db8:1:2ff:3::4"), "2001:db8:1:200::/56");
        assert_eq!(Origin::of("192.0.2.77".parse().unwrap(), 0, 0).to_string(), "0.0.0.0/0");
        assert_eq!(Origin::of("192.0.2.77".parse().unwrap(), 99, 0).to_string(), "192.0.2.77/32");
    }
}
