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

fn main() -> std::process::ExitCode {
    cli::main()
}
