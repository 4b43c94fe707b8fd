//! The bounded parts that hold payloads, against models that are obviously right.

mod byte_cache;
mod fanout;
mod history;
mod task_pool;
mod tee;

/// Operation sequences of each property.
const SEQUENCES: u32 = 10_000;

fn config() -> proptest::test_runner::Config {
    proptest::test_runner::Config { cases: SEQUENCES, failure_persistence: None, ..Default::default() }
}
