//! Rules that can be broken on purpose, to see that the tests notice.
//!
//! Only a build with `--cfg plimsoll_controls` has the switch (`just mutants-supervisor`); in every other the answer is a
//! constant and nothing of it is left.

/// The rules that can be broken.
#[cfg(plimsoll_controls)]
pub(crate) const RULES: [&str; 16] = [
    "window_exclusive",
    "one_restart_too_many",
    "stop_in_start_order",
    "group_stops_in_start_order",
    "transient_restarted_on_shutdown",
    "temporary_sibling_kept",
    "rest_covers_all",
    "absorbed_failure_handled",
    "retry_not_charged",
    "any_significant_is_enough",
    "permanent_normal_not_reported",
    "kill_after_grace_not_reported",
    "group_leaves_vacant_children",
    "wider_restart_takes_nothing_over",
    "no_delay_before_restart",
    "terminated_sibling_started_again",
];

/// Whether this rule is to be broken.
#[cfg(plimsoll_controls)]
pub(crate) fn broken(rule: &str) -> bool {
    static BROKEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(RULES.contains(&rule), "{rule}");
    BROKEN.get_or_init(|| std::env::var("PLIMSOLL_BROKEN_RULE").ok()).as_deref() == Some(rule)
}

/// Whether this rule is to be broken: never.
#[cfg(not(plimsoll_controls))]
pub(crate) const fn broken(_rule: &str) -> bool {
    false
}

// An ordinary build has no switch to look at.
#[cfg(not(plimsoll_controls))]
const _: () = assert!(!broken("window_exclusive"));
