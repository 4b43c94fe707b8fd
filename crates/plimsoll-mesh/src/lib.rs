//! A service mesh on [`plimsoll`]: clients over HTTP/3, peers over mutually authenticated QUIC.
//!
//! - [`node`]: a whole node, from its settings to one supervision tree.
//! - [`gateway`]: clients over HTTP/3: admission, sessions, requests and their limits. [`http3`] is its adapter to h3.
//! - [`client`]: a client of the gateway.
//! - [`identity`]: the key of a node, TLS, and the nodes that it trusts.
//! - [`peers`]: one connection to each other node, for calls and gossip.
//! - [`directory`]: which nodes there are and which services they offer, by gossip.
//! - [`services`]: the services that this node offers.
//! - [`rpc`]: the router, which serves a call here or at another node.
//! - [`pubsub`]: topics, on one node.
//! - [`service`]: the types and traits between these parts. The gateway passes calls of clients to [`service::Dispatch`], the
//!   peers pass those of other nodes to [`service::ServePeer`]; the router implements both.
//! - [`problem`], [`events`], [`names`]: refusals as RFC 9457 problems, what happened lately, names with their rules.
//!
//! # Example
//!
//! A node that offers one service:
//!
//! ```no_run
//! use plimsoll::BoxError;
//! use plimsoll::call::{CallContext, Service};
//! use plimsoll_mesh::node::{Node, NodeConfig, Offer};
//! use plimsoll_mesh::service::{ApplicationError, Request, Response};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     type Request = Request;
//!     type Reply = Response;
//!     type Error = ApplicationError;
//!
//!     async fn call(&self, _: CallContext, request: Request) -> Result<Response, ApplicationError> {
//!         Ok(Response { content_type: "text/plain".into(), body: request.body })
//!     }
//! }
//!
//! # async fn run() -> Result<(), BoxError> {
//! let config = NodeConfig::new("data".into(), "127.0.0.1:4433".parse()?);
//! let node = Node::builder(config).service(Offer::new("echo".parse()?, Echo)).start().await?;
//! println!("{} listens on {}", node.id(), node.address());
//! let report = node.wait().await?; // until its tree gives up; `stop` stops it in order
//! println!("{report}");
//! # Ok(())
//! # }
//! ```

#![allow(clippy::result_large_err, reason = "a refusal carries its problem whole; refusing is the rare path")]

pub mod client;
#[cfg(plimsoll_controls)]
mod controls;
pub mod directory;
pub mod events;
pub mod gateway;
pub mod http3;
pub mod identity;
pub mod names;
pub mod node;
mod owned_task;
pub mod peers;
pub mod problem;
pub mod pubsub;
mod regular_file;
pub mod rpc;
pub mod service;
pub mod services;
