//! A mesh node: an HTTP/3 gateway, peers and supervised services in one process, and commands to inspect it.
//!
//! Data goes to stdout, messages to stderr. Exit codes: 0 success, 1 failure, 2 usage or configuration error, 3 unknown: the
//! command may have had its effect.

mod args;
mod cli;
mod command;
mod demo;
mod events;
mod failure;
mod log;
mod output;
mod panics;
mod services;
mod settings;
mod signals;
mod streams;
mod tied;

/// jemalloc returns memory to the system after a spike by itself, and frees on another thread as cheaply as on its own; a call
/// makes many small allocations. Its settings are in `.cargo/config.toml`; a test reads them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
