//! There is no public way to send round a bounded mailbox: its public functions are read, and compared with a list.

use std::fs;
use std::path::Path;

/// Every public function of `plimsoll::mailbox`. A new one must be shown to keep the bound: only `send`, `send_by`
/// and `send_timeout` put a message in, both with a credit, and only `spawn` and `spawn_linked` make a reference.
const PUBLIC: &[&str] = &[
    "builder.rs: pub async fn spawn<A: Actor<Msg = Bounded<M>>>(",
    "builder.rs: pub async fn spawn_linked<A: Actor<Msg = Bounded<M>>>(",
    "builder.rs: pub fn bytes(mut self, bytes: u64, weigh: impl Fn(&M) -> u64 + Send + Sync + 'static) -> Self",
    "builder.rs: pub fn messages(count: u32) -> Self",
    "builder.rs: pub fn overflow(mut self, overflow: Overflow) -> Self",
    "builder.rs: pub fn waiting(mut self, senders: u32) -> Self",
    "counters.rs: pub fn inspector(&self) -> Arc<dyn Inspect>",
    "delivery.rs: pub fn into_message(self) -> Option<M>",
    "delivery.rs: pub fn take(mut self) -> Option<Delivery<M>>",
    "sender.rs: pub async fn send_by(&self, message: M, deadline: impl Into<tokio::time::Instant>) -> Result<Sent, SendError<M>>",
    "sender.rs: pub async fn send_timeout(&self, message: M, timeout: Duration) -> Result<Sent, SendError<M>>",
    "sender.rs: pub fn actor(&self) -> ActorCell",
    "sender.rs: pub fn compact(&self, factor: usize) -> usize",
    "sender.rs: pub fn into_message(self) -> M",
    "sender.rs: pub fn send(&self, message: M) -> Result<Sent, SendError<M>>",
    "sender.rs: pub fn sender(&self) -> BoundedRef<M>",
    "sender.rs: pub fn set_pressure(&self, level: PressureLevel)",
];

fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mailbox");
    let mut sources: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    sources.sort();
    sources
}

#[test]
fn the_public_functions_of_the_mailbox_are_those_that_keep_the_bound() {
    let mut found = Vec::new();
    for (file, text) in sources() {
        for line in text.lines().map(str::trim) {
            if line.starts_with("pub fn ") || line.starts_with("pub async fn ") || line.starts_with("pub const fn ") {
                found.push(format!("{file}: {}", line.trim_end_matches(" {")));
            }
        }
    }
    found.sort();
    assert_eq!(found, PUBLIC);
}

/// What an actor is sent can be made in one place only, and neither it nor the actor's own reference is given out.
#[test]
fn nothing_public_makes_or_gives_out_what_would_go_round_the_bound() {
    let mut made = Vec::new();
    for (file, text) in sources() {
        assert!(!text.contains("pub core") && !text.contains("pub payload"), "{file}: a field is public");
        for (number, line) in text.lines().enumerate() {
            let makes = line.contains("Bounded { core") || line.contains("BoundedRef { core");
            if makes {
                made.push(format!("{file}:{}", line.trim()));
            }
            let public = line.trim_start().starts_with("pub fn") || line.trim_start().starts_with("pub async fn");
            assert!(
                !(public && line.contains("-> ActorRef")),
                "{file}:{}: gives the actor's reference out",
                number + 1
            );
        }
        assert!(!text.contains("impl<M> Clone for Bounded<M>"), "{file}: a delivery can be copied");
        assert!(!text.contains("for Bounded<M>") || file == "delivery.rs", "{file}");
    }
    made.sort();
    assert_eq!(
        made,
        [
            "builder.rs:Ok((BoundedRef { core }, ended))",
            "builder.rs:Ok((BoundedRef { core }, ended))",
            "delivery.rs:let bounded = Bounded { core: Arc::clone(self), payload };",
            "sender.rs:BoundedRef { core: Arc::clone(&self.core) }",
        ]
    );
}
