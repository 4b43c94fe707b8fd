//! Which mechanisms are off in a build for proofs that mechanisms matter, with `--cfg plimsoll_controls`. No other build
//! contains this; the places where parts are wired together ask it.

/// Whether `mechanism` is in the comma-separated list of the environment variable `PLIMSOLL_CONTROLS_OFF`.
pub(crate) fn is_off(mechanism: &str) -> bool {
    static OFF: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| {
        let list = std::env::var("PLIMSOLL_CONTROLS_OFF").unwrap_or_default();
        list.split(',').map(|name| name.trim().to_owned()).collect()
    });
    off.iter().any(|name| name == mechanism)
}
