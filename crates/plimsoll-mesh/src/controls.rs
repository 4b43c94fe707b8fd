//! Switches for proofs: which named mechanisms are off.
//!
//! A proof that a mechanism matters needs a program without it. Such a program is a second build of the same sources
//! with `--cfg plimsoll_controls`; in any other build nothing can be switched off and none of the names below exist in
//! the binary.

/// Whether `mechanism` stands in the comma-separated list of the environment variable `PLIMSOLL_CONTROLS_OFF`.
#[cfg(plimsoll_controls)]
pub(crate) fn switched_off(mechanism: &str) -> bool {
    static OFF: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| {
        let list = std::env::var("PLIMSOLL_CONTROLS_OFF").unwrap_or_default();
        list.split(',').map(|name| name.trim().to_owned()).collect()
    });
    off.iter().any(|name| name == mechanism)
}

/// Nothing can be switched off in this build.
#[cfg(not(plimsoll_controls))]
pub(crate) const fn switched_off(_mechanism: &str) -> bool {
    false
}
