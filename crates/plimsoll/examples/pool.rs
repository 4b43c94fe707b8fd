//! A pool of TCP connections: each is leased to one task at a time, and used again.
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use plimsoll::BoxError;
use plimsoll::bounded::pool::{Connect, DialPool, PoolSettings, WhenFull};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Tcp;

impl Connect<SocketAddr> for Tcp {
    type Handle = TcpStream;
    type Error = io::Error;

    async fn connect(&self, server: &SocketAddr) -> io::Result<TcpStream> {
        println!("connect");
        TcpStream::connect(server).await
    }

    async fn close(&self, _: &SocketAddr, mut stream: TcpStream) -> io::Result<()> {
        println!("close");
        stream.shutdown().await
    }
}

/// Sends back what it receives.
async fn echo(listener: TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(echo(listener));
    let pool = DialPool::exclusive(PoolSettings::default(), Tcp);
    for word in ["one", "two"] {
        let mut lease = pool.lease_within(&address, WhenFull::Wait, Duration::from_secs(5)).await?;
        lease.write_all(word.as_bytes()).await?;
        let mut reply = [0; 3];
        lease.read_exact(&mut reply).await?;
        println!("reply: {}", String::from_utf8_lossy(&reply));
    }
    pool.close().await;
    Ok(server.await??)
}
