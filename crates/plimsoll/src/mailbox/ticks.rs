//! The coarse clock.

/// Nanoseconds since some moment in the past, never backwards, true to the kernel's tick (1 to 10 ms). A reading costs a
/// fifth of one of the precise clock.
#[cfg(target_os = "linux")]
pub(crate) fn ticks() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    // The kernel has had this clock since 2.6.32; without it nothing would take any time.
    match clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) {
        Ok(time) => time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned(),
        Err(_) => 0,
    }
}

/// The same where there is no such clock: the precise one.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ticks() -> u64 {
    use std::sync::LazyLock;
    use std::time::Instant;
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whole milliseconds from one reading to another, the nearest.
pub(crate) fn millis_between(then: u64, now: u64) -> u64 {
    match now.saturating_sub(then) {
        // As most are, and a division is not for nothing.
        0 => 0,
        ns => (ns + 500_000) / 1_000_000,
    }
}
