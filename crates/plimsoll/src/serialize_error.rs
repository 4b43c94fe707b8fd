//! Errors in JSON.
//!
//! Each public error of this crate is an object of `kind` (the name of the variant, of the type for structs, in snake case),
//! `message` (its text) and `sources` (the texts of its sources, the nearest first). The list is complete: a test of the test kit
//! compares it with the sources.

use std::error::Error;
use std::fmt::{self, Write};

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::bounded::pool::{LeaseError, PoolRefusal};
use crate::bounded::registry::AdvertiseError;
use crate::bounded::{
    AdmissionRefusal, Disconnected, EventTooLarge, FillError, InvalidCap, JobRefused, PayloadTooLarge, PublishError,
    Refused, RegistryRefusal, SessionRefusal, SubscribeError,
};
use crate::call::{CallError, Died, NotTaken, Overload};
use crate::mailbox::SendError;
use crate::server::{CastError, DownReason, MonitorsFull, TimersFull};
use crate::supervisor::{ChildError, Deadlock, HandleError, HandleSendError, SpecError, StartError};

macro_rules! serialize_errors {
    ($($error:ty,)+ ; $($generic:ident,)+) => {
        $(impl Serialize for $error {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self, serializer)
            }
        })+
        $(impl<T> Serialize for $generic<T>
        where
            Self: Error,
        {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self, serializer)
            }
        })+
    };
}

serialize_errors! {
    AdmissionRefusal,
    AdvertiseError,
    CastError,
    ChildError,
    Deadlock,
    Died,
    Disconnected,
    DownReason,
    EventTooLarge,
    FillError,
    HandleError,
    InvalidCap,
    JobRefused,
    MonitorsFull,
    Overload,
    PayloadTooLarge,
    PoolRefusal,
    PublishError,
    Refused,
    RegistryRefusal,
    SessionRefusal,
    SpecError,
    StartError,
    SubscribeError,
    TimersFull,
    ;
    CallError,
    HandleSendError,
    LeaseError,
    NotTaken,
    SendError,
}

fn serialize<E: Error, S: Serializer>(error: &E, serializer: S) -> Result<S::Ok, S::Error> {
    let mut kind = Kind::default();
    // Ends with an error after the name, so that no field is formatted.
    let _ = write!(kind, "{error:?}");
    let sources: Vec<_> =
        std::iter::successors(error.source(), |&source| source.source()).map(ToString::to_string).collect();
    let mut fields = serializer.serialize_struct("Error", 3)?;
    fields.serialize_field("kind", &kind.0)?;
    fields.serialize_field("message", &format_args!("{error}"))?;
    fields.serialize_field("sources", &sources)?;
    fields.end()
}

/// Takes the name at the beginning of a `Debug` text, in snake case.
#[derive(Default)]
struct Kind(String);

impl fmt::Write for Kind {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if !c.is_ascii_alphanumeric() {
                return Err(fmt::Error);
            }
            if c.is_ascii_uppercase() && !self.0.is_empty() {
                self.0.push('_');
            }
            self.0.push(c.to_ascii_lowercase());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{json, to_value};

    use super::*;
    use crate::exit::ExitReason;

    #[test]
    fn an_error_has_its_kind_its_text_and_its_sources() {
        let failed = StartError::FailedToStart { id: "db".into(), reason: Box::new(SpecError::ZeroPeriod.into()) };
        let expected = json!({
            "kind": "failed_to_start",
            "message": "child `db` failed to start: the restart period is zero",
            "sources": ["the restart period is zero"],
        });
        assert_eq!(to_value(failed).unwrap(), expected);
        let ignored = to_value(ChildError::Start(StartError::Ignored)).unwrap();
        assert_eq!(ignored["kind"], "start");
        assert_eq!(to_value(Deadlock).unwrap()["kind"], "deadlock");
    }

    #[test]
    fn the_chain_of_sources_is_complete() {
        let connect = Arc::new(FillError::Failed(Arc::new(StartError::Spec(SpecError::ZeroPeriod))));
        let json = to_value(LeaseError::Connect(connect)).unwrap();
        assert_eq!(json["kind"], "connect");
        assert_eq!(json["sources"], json!(["the fill failed", "the restart period is zero"]));
    }

    #[test]
    fn an_error_that_returns_a_message_does_not_show_it() {
        let full = SendError::TimedOut("secret".to_owned());
        assert_eq!(
            to_value(full).unwrap(),
            json!({"kind": "timed_out", "message": "no room by the deadline", "sources": []})
        );
        let app: CallError<HandleError> = CallError::App(HandleError::Restarting);
        assert_eq!(to_value(app).unwrap()["sources"], json!(["the child is restarting"]));
        let died: CallError<HandleError> = Died::Exit(ExitReason::Killed).into();
        assert_eq!(to_value(died).unwrap()["kind"], "died");
    }
}
