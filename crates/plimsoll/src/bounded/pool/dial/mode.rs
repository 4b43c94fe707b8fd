//! What a lease holds of a handle.

/// What a lease holds: a clone of the handle ([`Shared`]) or the handle itself ([`Exclusive`]). Sealed.
pub trait LeaseMode<H>: sealed::Sealed + Send + Sync + 'static {
    /// What the pool keeps of a handle.
    type Stored: Send;

    /// What the pool keeps of a new handle.
    fn store(handle: H) -> Self::Stored;

    /// What a lease holds of it, if it is not lent whole.
    fn lend(stored: &mut Self::Stored) -> Option<H>;

    /// What goes back to the pool of what a lease held.
    fn returned(handle: H) -> Option<H>;

    /// Puts it back.
    fn restore(stored: &mut Self::Stored, handle: H);

    /// The handle, to be closed.
    fn into_handle(stored: Self::Stored) -> Option<H>;
}

/// Leases hold a clone of the handle.
#[derive(Debug)]
pub enum Shared {}

/// Leases hold the handle itself.
#[derive(Debug)]
pub enum Exclusive {}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Shared {}
    impl Sealed for super::Exclusive {}
}

impl<H: Clone + Send + 'static> LeaseMode<H> for Shared {
    type Stored = H;

    fn store(handle: H) -> H {
        handle
    }

    fn lend(stored: &mut H) -> Option<H> {
        Some(stored.clone())
    }

    fn returned(_handle: H) -> Option<H> {
        None
    }

    fn restore(_stored: &mut H, _handle: H) {}

    fn into_handle(stored: H) -> Option<H> {
        Some(stored)
    }
}

impl<H: Send + 'static> LeaseMode<H> for Exclusive {
    type Stored = Option<H>;

    fn store(handle: H) -> Option<H> {
        Some(handle)
    }

    fn lend(stored: &mut Option<H>) -> Option<H> {
        stored.take()
    }

    fn returned(handle: H) -> Option<H> {
        Some(handle)
    }

    fn restore(stored: &mut Option<H>, handle: H) {
        *stored = Some(handle);
    }

    fn into_handle(stored: Option<H>) -> Option<H> {
        stored
    }
}
