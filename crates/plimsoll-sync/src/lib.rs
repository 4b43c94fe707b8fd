//! plimsoll-sync
