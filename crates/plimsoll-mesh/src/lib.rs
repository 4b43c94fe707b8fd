//! A service mesh on [`plimsoll`]: clients over HTTP/3, peers over mutually authenticated QUIC.
//!
//! Every edge ends in one `Request -> Response` trait, [`service::Dispatch`]: the gateway and the peers hand requests to
//! it, the router implements it.

pub mod identity;
pub mod names;
pub mod problem;
pub mod service;
