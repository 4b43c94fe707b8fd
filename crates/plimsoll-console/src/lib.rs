//! plimsoll-console
