//! The allocator that the program is linked with.

use std::process::{Command, Stdio};

use crate::harness::PROGRAM;

/// jemalloc gives memory back only as it is told to, and a setting that did not reach its build is missed by nobody.
#[test]
fn the_allocator_has_its_settings() {
    let output = Command::new(PROGRAM)
        .arg("--version")
        .env("_RJEM_MALLOC_CONF", "confirm_conf:true")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    for setting in ["background_thread:true", "dirty_decay_ms:1000", "muzzy_decay_ms:0"] {
        assert!(words.contains(&format!("Set conf value: {setting}")), "{words}");
    }
}
