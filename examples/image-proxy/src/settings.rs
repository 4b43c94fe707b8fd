//! The command line of the proxy. Every limit is a number; there is none that means "no limit".

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use plimsoll::bounded::{ByteCap, Cap};

/// A caching image proxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "image-proxy", version)]
pub(crate) struct Settings {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The origin to fetch from
    #[arg(long)]
    pub(crate) origin: SocketAddr,
    /// The folder that is the second store
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// Images kept in that folder
    #[arg(long, default_value = "10000")]
    pub(crate) stored: Cap,
    /// How much longer each write to the folder is to take, to try a slow one
    #[arg(long, default_value = "0")]
    store_delay_ms: u64,
    /// Clients of the origin, one a tenant, kept open
    #[arg(long, default_value = "100")]
    pub(crate) pool: Cap,
    /// How long a client of the origin is kept unused
    #[arg(long, default_value = "3600000")]
    pool_idle_ms: u64,
    /// Bytes of images kept in memory
    #[arg(long, default_value = "16 MiB")]
    pub(crate) cache: ByteCap,
    /// The largest image that is kept
    #[arg(long, default_value = "1 MiB")]
    pub(crate) image: ByteCap,
    /// How long an image in memory is good
    #[arg(long, default_value = "3600000")]
    image_ttl_ms: u64,
    /// Requests being worked on
    #[arg(long, default_value = "1024")]
    pub(crate) requests: Cap,
    /// Connections of clients
    #[arg(long, default_value = "1024")]
    pub(crate) connections: Cap,
    /// Bytes that the kernel is asked to hold at most for a connection, each way: no more of an image waits there for a
    /// slow reader
    #[arg(long, default_value = "64 KiB")]
    pub(crate) socket: ByteCap,
    /// How long the origin may be silent, and an image be fetched for another client before it is fetched apart
    #[arg(long, default_value = "2000")]
    patience_ms: u64,
    /// How long a client may take nothing of its answer
    #[arg(long, default_value = "5000")]
    client_patience_ms: u64,
}

impl Settings {
    /// [`socket`](Self::socket) as sockets take it.
    pub(crate) fn socket_bytes(&self) -> u32 {
        u32::try_from(self.socket.get()).unwrap_or(u32::MAX)
    }

    pub(crate) fn store_delay(&self) -> Duration {
        Duration::from_millis(self.store_delay_ms)
    }

    pub(crate) fn pool_idle(&self) -> Duration {
        Duration::from_millis(self.pool_idle_ms)
    }

    pub(crate) fn image_ttl(&self) -> Duration {
        Duration::from_millis(self.image_ttl_ms)
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    pub(crate) fn client_patience(&self) -> Duration {
        Duration::from_millis(self.client_patience_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Settings, String> {
        let required = ["image-proxy", "--origin", "[::1]:8080", "--store", "/tmp"];
        Settings::try_parse_from(required.iter().chain(flags)).map_err(|error| error.to_string())
    }

    /// the pool's defaults are 100 clients and an hour.
    #[test]
    fn the_pool_has_the_limits_of_the_analysis() {
        let settings = parse(&[]).unwrap();
        assert_eq!((settings.pool.get(), settings.pool_idle()), (100, Duration::from_secs(3600)));
    }

    /// M-1: no flag takes zero or "unlimited" for a limit.
    #[test]
    fn no_limit_can_be_disabled() {
        for flag in ["--pool", "--cache", "--image", "--requests", "--connections", "--stored", "--socket"] {
            for value in ["0", "unlimited", "-1"] {
                assert!(parse(&[&format!("{flag}={value}")]).is_err(), "{flag} {value}");
            }
        }
    }

    /// addresses are parsed by those who know how, IPv6 among them.
    #[test]
    fn an_ipv6_origin_is_an_address() {
        assert_eq!(parse(&[]).unwrap().origin.port(), 8080);
        assert!(parse(&["--listen", "::1:80:80:80"]).is_err());
    }
}
