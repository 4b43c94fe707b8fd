//! `services`, `nodes`, `events` and `tree`: the snapshot of a running node, from its admin socket.

use std::path::Path;
use std::time::Duration;

use plimsoll_console::client;
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::node::{ADMIN_SOCKET, NodeSnapshot};
use serde::Serialize;
use serde_json::json;

use crate::args::{ReadArgs, TreeArgs};
use crate::failure::Failure;
use crate::output::{self, Paint};
use crate::streams::say;

/// How long a node may take to respond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Width of the tree, in characters.
const WIDTH: usize = 110;

/// Version of the JSON of these commands.
const SCHEMA: u32 = 1;

/// Reads the snapshot of the node whose data folder is `data`.
///
/// # Errors
/// Exit code 1: nothing listens, or the response has another form; 3: it listens and does not respond.
pub(crate) async fn snapshot(data: &Path) -> Result<NodeSnapshot, Failure> {
    let json =
        client::get(&data.join(ADMIN_SOCKET), "/v1/admin/snapshot", TIMEOUT).await.map_err(|error| match error {
            client::ClientError::Timeout(_) | client::ClientError::Response(_) => Failure::Unknown(Some(error.into())),
            _ => Failure::Failed(Some(error.into())),
        })?;
    let snapshot: NodeSnapshot = serde_json::from_slice(&json).map_err(|error| {
        Failure::because(format!("the response of the node has a form that this version does not know: {error}"))
    })?;
    Ok(snapshot)
}

pub(crate) async fn services(args: ReadArgs, paint: Paint) -> Result<(), Failure> {
    let snapshot = snapshot(&args.place.data()?).await?;
    if args.json {
        return print_json("services", &snapshot.services);
    }
    let rows: Vec<_> = snapshot
        .services
        .iter()
        .map(|service| {
            let here = |node: &NodeId| if *node == snapshot.node { "here".to_owned() } else { node.short() };
            let providers: Vec<_> = service.providers.iter().map(here).collect();
            vec![service.name.to_string(), providers.join(" "), yes(service.callable), yes(service.idempotent)]
        })
        .collect();
    output::print_read(&output::table(paint, &["SERVICE", "PROVIDERS", "CALLABLE", "IDEMPOTENT"], &rows));
    Ok(())
}

pub(crate) async fn nodes(args: ReadArgs, paint: Paint) -> Result<(), Failure> {
    let snapshot = snapshot(&args.place.data()?).await?;
    if args.json {
        return print_json("nodes", &snapshot.nodes);
    }
    let rows: Vec<_> = snapshot
        .nodes
        .iter()
        .map(|node| {
            let id = if node.this { format!("{} (this)", node.id.short()) } else { node.id.short() };
            let address = node.address.map_or("-".to_owned(), |address| address.to_string());
            vec![id, address, node.state.clone(), node.reason.clone().unwrap_or_default()]
        })
        .collect();
    output::print_read(&output::table(paint, &["NODE", "ADDRESS", "STATE", "REASON"], &rows));
    Ok(())
}

pub(crate) async fn events(args: ReadArgs, paint: Paint) -> Result<(), Failure> {
    let snapshot = snapshot(&args.place.data()?).await?;
    if args.json {
        return print_json("events", &snapshot.events);
    }
    let now = snapshot.runtime.taken_at_ms;
    let rows: Vec<_> = snapshot
        .events
        .iter()
        .map(|event| {
            let ago = output::ago(now.saturating_sub(event.at_ms));
            let peer = event.peer.map_or("-".to_owned(), |peer| peer.short());
            let mut reason = event.reason.clone().unwrap_or_default();
            if event.suppressed > 0 {
                reason += &format!(" (and {} more before)", event.suppressed);
            }
            vec![ago, event.kind.as_str().replace('_', " "), peer, reason]
        })
        .collect();
    if rows.is_empty() {
        say("no events so far");
    }
    output::print_read(&output::table(paint, &["AGO", "EVENT", "PEER", "REASON"], &rows));
    Ok(())
}

pub(crate) async fn tree(args: TreeArgs, paint: Paint) -> Result<(), Failure> {
    let TreeArgs { read: args, all } = args;
    let snapshot = snapshot(&args.place.data()?).await?;
    if args.json {
        return print_json("tree", &snapshot.runtime.tree);
    }
    output::print_read(&output::tree(paint, &snapshot.runtime.tree, (!all).then_some(WIDTH)));
    Ok(())
}

fn print_json(name: &str, value: &impl Serialize) -> Result<(), Failure> {
    output::print_read(&format!("{}\n", json!({ "schema": SCHEMA, name: value })));
    Ok(())
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
