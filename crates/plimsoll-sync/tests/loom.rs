//! Runs the loom models and holds the number of executions of each against `tests/loom/expected.txt`, so that an empty or
//! shrunken run fails. Only under `--cfg plimsoll_loom`: use `scripts/loom`.

#[cfg(plimsoll_loom)]
mod loom {
    mod cell;
    mod counters;
    mod mailbox;
    mod permits;
    pub(crate) mod run;

    pub(crate) const MODELS: &[run::Model] = &[
        ("cell_reply_timeout_died", cell::reply_timeout_died),
        ("cell_reply_drop_timeout", cell::reply_drop_timeout),
        ("cell_reply_shutdown_begin", cell::reply_shutdown_begin),
        ("cell_waiting_caller_is_woken", cell::waiting_caller_is_woken),
        ("cell_abandoned_worker_is_told", cell::abandoned_worker_is_told),
        ("cell_overrunning_is_counted_and_uncounted", cell::overrunning_is_counted_and_uncounted),
        ("cell_ended_worker_is_not_abandoned", cell::ended_worker_is_not_abandoned),
        ("permits_try_and_release", permits::try_and_release),
        ("permits_cancel_while_waiting", permits::cancel_while_waiting),
        ("permits_no_wake_is_lost", permits::no_wake_is_lost),
        ("permits_bytes_and_count_together", permits::bytes_and_count_together),
        ("permits_lowered_limit", permits::lowered_limit),
        ("permits_raised_limit", permits::raised_limit),
        ("mailbox_push_and_close", mailbox::push_and_close),
        ("mailbox_push_and_pop_at_full", mailbox::push_and_pop_at_full),
        ("mailbox_drop_oldest_and_pop", mailbox::drop_oldest_and_pop),
        ("mailbox_high_water", mailbox::high_water),
        ("mailbox_retract_and_drop_oldest", mailbox::retract_and_drop_oldest),
        ("mailbox_announcements", mailbox::announcements_are_those_of_messages),
        ("level_latest_is_taken_once_notified", counters::latest_level_is_taken),
        ("level_nobody_admits_after_critical", counters::nobody_admits_after_critical),
        ("occupancy_never_over_its_limit", counters::occupancy_never_over_its_limit),
        ("occupancy_sums_hold_in_every_reading", counters::occupancy_sums_hold),
        ("occupancy_refuses_only_when_full", counters::occupancy_refuses_only_when_full),
    ];
}

#[cfg(plimsoll_loom)]
fn main() -> std::process::ExitCode {
    loom::run::all(loom::MODELS)
}

#[cfg(not(plimsoll_loom))]
fn main() {}
