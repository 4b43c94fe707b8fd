//! The address at which others reach this node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::NodeError;

/// The address that is advertised: the one that is set, else the one that is listened on, else, when that is every
/// address of this machine, its `own`.
///
/// # Errors
/// [`NodeError::NoAddress`] and [`NodeError::BadAdvertise`]: no address is advertised that others cannot dial.
pub(super) fn advertised(
    set: Option<SocketAddr>,
    bound: SocketAddr,
    own: impl Fn(SocketAddr) -> Option<IpAddr>,
) -> Result<SocketAddr, NodeError> {
    match set {
        Some(set) if set.ip().is_unspecified() => Err(NodeError::BadAdvertise(set)),
        Some(set) if set.port() == 0 => Ok(SocketAddr::new(set.ip(), bound.port())),
        Some(set) => Ok(set),
        None if bound.ip().is_unspecified() => {
            own(bound).map(|ip| SocketAddr::new(ip, bound.port())).ok_or(NodeError::NoAddress(bound))
        }
        None => Ok(bound),
    }
}

/// The address from which this machine reaches others, by its routes: of IPv6 first where `bound` takes both.
pub(super) fn own(bound: SocketAddr) -> Option<IpAddr> {
    // Addresses for documentation (RFC 3849, RFC 5737). Connecting a UDP socket looks up a route and sends nothing.
    let v6 = || source(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    let v4 = || source(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    if bound.is_ipv6() { v6().or_else(v4) } else { v4() }
}

fn source(any: IpAddr, somewhere: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((somewhere, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    // The address of a link means something on that link only.
    let local = matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
    (!own.is_unspecified() && !local).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_address_that_others_can_dial_is_advertised_or_the_node_does_not_start() {
        let own = |_| Some(IpAddr::from([10, 0, 0, 7]));
        let advertise =
            |set: Option<&str>, bound| advertised(set.map(at), at(bound), own).map_err(|error| error.to_string());
        assert_eq!(advertise(None, "127.0.0.1:4433"), Ok(at("127.0.0.1:4433")));
        assert_eq!(advertise(None, "0.0.0.0:4433"), Ok(at("10.0.0.7:4433")));
        assert_eq!(advertise(None, "[::]:4433"), Ok(at("10.0.0.7:4433")));
        assert_eq!(advertise(Some("192.0.2.9:1"), "0.0.0.0:4433"), Ok(at("192.0.2.9:1")));
        assert_eq!(advertise(Some("192.0.2.9:0"), "0.0.0.0:4433"), Ok(at("192.0.2.9:4433")));
        assert!(
            advertise(Some("0.0.0.0:1"), "0.0.0.0:4433").is_err_and(|words| words.contains("cannot dial 0.0.0.0:1"))
        );
        let none = advertised(None, at("0.0.0.0:4433"), |_| None).map_err(|error| error.to_string());
        assert!(none.is_err_and(|words| words.contains("0.0.0.0:4433") && words.contains("set advertise")));
    }

    #[test]
    fn a_machines_own_address_can_be_dialled() {
        // A machine without any route has none.
        for own in [own(at("0.0.0.0:1")), own(at("[::]:1"))].into_iter().flatten() {
            assert!(!own.is_unspecified());
            assert!(UdpSocket::bind((own, 0)).is_ok(), "{own} is not this machine's");
        }
    }
}
