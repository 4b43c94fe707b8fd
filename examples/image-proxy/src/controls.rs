//! Which of the eight fixes are off: the proxy as it would be without them, for the table of before and after.
//!
//! Only a build with `--cfg plimsoll_controls` can switch anything off; no other contains what the fixes replace.

/// Whether `fix` stands in the comma-separated list of the environment variable `PLIMSOLL_CONTROLS_OFF`.
#[cfg(plimsoll_controls)]
pub(crate) fn switched_off(fix: &str) -> bool {
    static OFF: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| {
        let list = std::env::var("PLIMSOLL_CONTROLS_OFF").unwrap_or_default();
        list.split(',').map(|name| name.trim().to_owned()).collect()
    });
    off.iter().any(|name| name == fix)
}

/// Nothing can be switched off in this build.
#[cfg(not(plimsoll_controls))]
pub(crate) const fn switched_off(_fix: &str) -> bool {
    false
}
