//! `call`: one call over HTTP/3, from outside.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use plimsoll_mesh::client::{self, Call, Client, Response};
use plimsoll_mesh::names::{NodeId, ServiceName};
use plimsoll_mesh::problem::Code;
use serde_json::json;

use super::happy_eyeballs;
use super::read::snapshot;
use crate::args::Place;
use crate::failure::Failure;
use crate::output;
use crate::streams::{self, say};

/// Arguments of `call`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mesh-node call echo 'hello'\n  \
    mesh-node call hash @Cargo.toml\n  \
    mesh-node call --to 127.0.0.1:4433 --pin NODE_ID time\n\n\
    Exit codes: 0 success, 1 refused or failed, 2 usage error, 3 unknown: the call may have run.")]
pub(crate) struct CallArgs {
    /// The service.
    service: ServiceName,
    /// The body: text, - for stdin, @FILE for a file.
    #[arg(default_value = "", hide_default_value = true)]
    body: OsString,
    /// Call through the node at this address instead of the one on this machine; all addresses of a host are tried.
    #[arg(long, value_name = "HOST:PORT", requires = "pin")]
    to: Option<String>,
    /// The id that the node must prove.
    #[arg(long, value_name = "NODE_ID", requires = "to")]
    pin: Option<NodeId>,
    /// Give up after so many milliseconds; the node clamps it to a minute.
    #[arg(long, value_name = "MS", value_parser = milliseconds_from_1)]
    deadline: Option<u64>,
    /// Print JSON: status, body, problem and times.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

fn milliseconds_from_1(value: &str) -> Result<u64, String> {
    match value.parse() {
        Ok(0) | Err(_) => Err("a whole number of milliseconds from 1 is needed".to_owned()),
        Ok(milliseconds) => Ok(milliseconds),
    }
}

/// The largest value of `gateway.max_body`.
const LARGEST_BODY: usize = client::MAX_RESPONSE;

pub(crate) async fn run(args: CallArgs) -> Result<(), Failure> {
    let body = body(&args.body)?;
    let (addresses, pin) = target(&args).await?;
    let mut call = Call::new(args.service.clone(), body);
    if let Some(deadline) = args.deadline {
        call = call.deadline(Duration::from_millis(deadline));
    }
    let began = Instant::now();
    let (endpoint, client) = connect(&addresses, pin).await?;
    let connected = began.elapsed();
    let response = client.call(call).await.map_err(|error| Failure::Unknown(Some(error.into())))?;
    let responded = began.elapsed() - connected;
    client.close();
    endpoint.wait_idle().await;
    show(&args, &response, connected, responded)
}

/// Connects to the first of these addresses that works.
async fn connect(addresses: &[SocketAddr], pin: NodeId) -> Result<(quinn::Endpoint, Client), Failure> {
    let attempt = async |address| {
        let endpoint = client::endpoint(address).context("no UDP socket")?;
        let client = Client::connect(&endpoint, address, pin).await?;
        Ok::<_, anyhow::Error>((endpoint, client))
    };
    happy_eyeballs::connect(addresses, attempt).await.map_err(|mut failed| match failed.len() {
        1 => Failure::Failed(failed.pop().map(|(_, error)| error)),
        _ => {
            let failed: Vec<_> = failed.iter().map(|(address, error)| format!("{address}: {error:#}")).collect();
            Failure::because(format!("no address could be connected to: {}", failed.join("; ")))
        }
    })
}

/// All addresses of the node that is meant, and its id.
async fn target(args: &CallArgs) -> Result<(Vec<SocketAddr>, NodeId), Failure> {
    let (Some(to), Some(pin)) = (&args.to, args.pin) else {
        let node = snapshot(&args.place.data()?).await?;
        return Ok((vec![from_here(node.address)], node.node));
    };
    let found = tokio::net::lookup_host(to).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => Failure::Usage(anyhow::anyhow!("--to {to:?}: an address is HOST:PORT")),
        _ => Failure::because(format!("--to {to:?} does not resolve: {error}")),
    })?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() { Err(Failure::because(format!("{to} has no address"))) } else { Ok((addresses, pin)) }
}

/// Where a node of this machine is reached: one that listens on every address also listens on loopback.
fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// The body as given: its bytes, those of stdin or those of a file. Neither text nor path need be UTF-8.
fn body(given: &OsStr) -> Result<Bytes, Failure> {
    let bytes = given.as_bytes();
    let read = match bytes.strip_prefix(b"@") {
        Some(path) => File::open(OsStr::from_bytes(path)).and_then(capped),
        None if bytes == b"-" => capped(io::stdin().lock()),
        None => return Ok(bytes.to_owned().into()),
    };
    read.map_err(|error| Failure::Usage(anyhow::anyhow!("the body {}: {error}", given.display())))
}

/// Reads no more than any node can be set to take.
fn capped(source: impl Read) -> io::Result<Bytes> {
    let mut body = Vec::new();
    source.take(LARGEST_BODY as u64 + 1).read_to_end(&mut body)?;
    if body.len() > LARGEST_BODY {
        return Err(io::Error::other(format!("a body is at most {}MiB", LARGEST_BODY >> 20)));
    }
    Ok(body.into())
}

fn show(args: &CallArgs, response: &Response, connected: Duration, responded: Duration) -> Result<(), Failure> {
    let good = response.status.is_success();
    let problem = response.problem();
    if args.json {
        let text = std::str::from_utf8(&response.body).ok().filter(|_| problem.is_none());
        let raw = (text.is_none() && problem.is_none()).then(|| hex::encode(&response.body));
        let line = json!({
            "schema": 1,
            "service": args.service,
            "status": response.status.as_u16(),
            "content_type": response.content_type(),
            "body": text,
            "body_hex": raw,
            "problem": problem,
            "connect_ms": milliseconds(connected),
            "call_ms": milliseconds(responded),
        });
        output::print(&format!("{line}\n"));
    } else if good {
        let end: &[u8] = if response.body.ends_with(b"\n") { b"" } else { b"\n" };
        streams::write(&response.body).and_then(|()| streams::write(end)).context("cannot write to stdout")?;
    } else {
        match &problem {
            Some(problem) => {
                let place = problem.node.map(|node| format!(" (on node {})", node.short())).unwrap_or_default();
                let (status, code) = (response.status.as_u16(), problem.code.as_str());
                say(format_args!("{status} {code}: {}{place}", problem.detail));
            }
            None => {
                let code = response.headers.get("plimsoll-problem").and_then(|code| code.to_str().ok());
                let code = code.or(response.status.canonical_reason()).unwrap_or_default();
                let body = String::from_utf8_lossy(&response.body);
                say(format_args!("{} {code}: {body}", response.status.as_u16()));
            }
        }
    }
    match problem {
        _ if good => Ok(()),
        Some(problem) if may_have_run(problem.code) => Err(Failure::Unknown(None)),
        _ => Err(Failure::Failed(None)),
    }
}

/// Whether a call with this problem may have run, in whole or in part, without a response that says so.
fn may_have_run(code: Code) -> bool {
    matches!(code, Code::Deadline | Code::ShuttingDown | Code::ProviderDied | Code::WorkerDied)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
