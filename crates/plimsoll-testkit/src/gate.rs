//! Work that waits until the test lets it go.

use std::sync::Arc;

use tokio::sync::watch;

/// A gate: whoever passes waits until it opens, and the test can wait until a number of them wait. Cloning shares it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use plimsoll_testkit::gate::Gate;
///
/// let gate = Gate::closed();
/// let work = tokio::spawn({ let gate = gate.clone(); async move { gate.pass().await } });
/// gate.until_waiting(1).await;
/// gate.open();
/// work.await.unwrap();
/// assert_eq!(gate.waiting(), 0);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: usize,
}

impl Gate {
    /// A gate that is closed.
    pub fn closed() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Waits until the gate is open.
    ///
    /// Cancel safe: one who leaves no longer counts as waiting.
    pub async fn pass(&self) {
        struct Waiting<'a>(&'a watch::Sender<State>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|state| state.waiting -= 1);
            }
        }
        let mut changes = self.state.subscribe();
        self.state.send_modify(|state| state.waiting += 1);
        let _waiting = Waiting(&self.state);
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = changes.wait_for(|state| state.open).await;
    }

    /// Opens the gate, for those who wait and those who come later.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.state.borrow().waiting
    }

    /// Waits until exactly `n` wait.
    ///
    /// Cancel safe.
    pub async fn until_waiting(&self, n: usize) {
        let _ = self.state.subscribe().wait_for(|state| state.waiting == n).await;
    }
}
