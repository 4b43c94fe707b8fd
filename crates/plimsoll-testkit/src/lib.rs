//! plimsoll-testkit
