//! A mesh node: an HTTP/3 gateway, peers and supervised services in one process, and the commands to look into it.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 good, 1 it failed, 2 wrong use or configuration, 3 cannot tell.

mod cli;
mod command;
mod demo;
mod failure;
mod output;
mod panics;
mod services;
mod settings;
mod signals;

/// jemalloc gives memory back after a spike by itself, and a call costs many small allocations: it is freed on another
/// thread as cheaply as on its own. Its settings are in `.cargo/config.toml`; a test reads them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
