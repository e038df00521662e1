//! What a confined thread is called in messages about it.

use std::cell::Cell;

/// The longest role that is kept.
pub(crate) const ROLE_LEN: usize = 31;

thread_local! {
    /// Its length, and its bytes. Without a destructor, so that a signal handler may read it.
    static ROLE: Cell<(u8, [u8; ROLE_LEN])> = const { Cell::new((0, [0; ROLE_LEN])) };
}

pub(crate) fn set_role(role: &str) {
    let mut bytes = [0; ROLE_LEN];
    let len = role.len().min(ROLE_LEN);
    bytes[..len].copy_from_slice(&role.as_bytes()[..len]);
    ROLE.set((len as u8, bytes));
}

/// The calling thread's role, if it has confined itself: bytes and their number. May be called in a signal handler.
pub(crate) fn role() -> Option<([u8; ROLE_LEN], usize)> {
    let (len, bytes) = ROLE.get();
    (len > 0).then_some((bytes, len.into()))
}
