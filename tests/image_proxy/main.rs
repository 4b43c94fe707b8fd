//! The image proxy as a process, between clients that hang up and an origin that stalls, fails and breaks off.
//!
//! `PLIMSOLL_E2E=full` sends 10,000 requests, otherwise a tenth. The figures go to `target/e2e/bounded.json`: each fix
//! with what becomes of its figure without it, and memory, latency and throughput before and after all eight.

mod caching;
mod clients;
mod faults;
mod origin;
mod process;
mod scenario;
