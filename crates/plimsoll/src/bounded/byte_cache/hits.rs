//! A count that threads do not contend for.
//!
//! A hit takes 25 ns; one shared counter would add 40 to that as soon as two threads look up at the same time. So each
//! thread adds to a cell of its own, as far as there are cells, and whoever reads collects them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const CELLS: usize = 8;

/// Hits not collected yet, in cells that share no cache line.
#[derive(Debug, Default)]
pub(super) struct Hits {
    cells: [Padded; CELLS],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

thread_local! {
    static CELL: Cell<usize> = const { Cell::new(CELLS) };
}

impl Hits {
    pub(super) fn one(&self) {
        // ORDERING: relaxed, as for every counter: nothing else is published through it.
        self.cells[cell()].0.fetch_add(1, Relaxed);
    }

    /// What has come since the last time.
    pub(super) fn collect(&self) -> u64 {
        self.cells.iter().map(|cell| cell.0.swap(0, Relaxed)).sum()
    }
}

/// This thread's cell: threads take them in turn.
fn cell() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    CELL.with(|cell| {
        if cell.get() == CELLS {
            cell.set(NEXT.fetch_add(1, Relaxed) % CELLS);
        }
        cell.get()
    })
}
