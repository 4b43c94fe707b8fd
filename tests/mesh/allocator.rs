//! The allocator that the program is linked with.

use std::process::Command;

use crate::harness::{PROGRAM, run};

/// jemalloc returns memory as its settings say; without this test a setting that did not reach its build would go unnoticed.
#[test]
fn the_allocator_has_its_settings() {
    let (_, words) = run(Command::new(PROGRAM).arg("--version").env("_RJEM_MALLOC_CONF", "confirm_conf:true"));
    for setting in ["background_thread:true", "dirty_decay_ms:1000", "muzzy_decay_ms:0"] {
        assert!(words.contains(&format!("Set conf value: {setting}")), "{words}");
    }
}
