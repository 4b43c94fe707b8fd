//! Mailboxes with a bound, for ordinary ractor actors.
//!
//! ractor's own mailboxes have none, so senders enforce the bound. The actor's message type is [`Bounded<M>`], which only a
//! [`BoundedRef<M>`] can make: no message bypasses the bound. Each message gets in with a credit, in
//! messages and in bytes, and its credit comes back when it is taken or dropped, also from the full mailbox of an actor
//! that was killed. A delivery that is handed on untaken, to another actor or elsewhere, keeps its credit of the
//! mailbox that it was sent to. A stop, a kill and pressure always get through.
//!
//! ```
//! use plimsoll::mailbox::{Bounded, MailboxBuilder};
//! use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef};
//!
//! struct Printer;
//!
//! impl Actor for Printer {
//!     type Msg = Bounded<String>;
//!     type State = ();
//!     type Arguments = ();
//!
//!     async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
//!         Ok(())
//!     }
//!
//!     async fn handle(
//!         &self,
//!         _: ActorRef<Self::Msg>,
//!         bounded: Bounded<String>,
//!         (): &mut (),
//!     ) -> Result<(), ActorProcessingErr> {
//!         if let Some(line) = bounded.into_message() {
//!             println!("{line}");
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (printer, ended) = MailboxBuilder::messages(100).spawn(None, Printer, ()).await?;
//! printer.send("hello".to_owned())?;
//! printer.actor().drain()?;
//! ended.await?;
//! # Ok(())
//! # }
//! ```

mod builder;
mod counters;
mod delivery;
mod sender;
mod waiting_time;

pub use builder::MailboxBuilder;
pub use delivery::{Bounded, Delivery, Overflow, PressureLevel};
pub use sender::{BoundedRef, SendError, Sent};
