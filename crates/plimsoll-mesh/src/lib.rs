//! A service mesh on [`plimsoll`]: clients over HTTP/3, peers over mutually authenticated QUIC.
//!
//! Every edge ends in one `Request -> Response` trait, [`service::Dispatch`]: the gateway and the peers hand requests to
//! it, the router implements it.

#![allow(clippy::result_large_err, reason = "a refusal carries its problem whole; refusing is the rare path")]

pub mod client;
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
