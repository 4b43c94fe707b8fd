//! Bytes allocated by the proxy, counted by its allocator.
//!
//! Resident memory does not show that: the C library keeps freed pages to allocate from them again.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated and not freed.
pub(crate) fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// what is held counts until it is dropped.
    #[test]
    fn a_buffer_counts_while_it_lives() {
        const SIZE: usize = 256 << 20;
        let before = held();
        let buffer = Vec::<u8>::with_capacity(SIZE);
        assert!(held() >= before + SIZE / 2);
        drop(buffer);
        assert!(held() < before + SIZE / 2);
    }
}
