//! OTP's gen_server, case by case: `docs/semantics.md`, section "Calls".

mod circles;
#[path = "../common/mod.rs"]
mod common;
mod ends;
mod obeys;
mod replies;
mod turns;
