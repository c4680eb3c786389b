//! Models of the protocol, on the public interface. See `src/lib.rs` of this package.
#![cfg(batchlink_loom)]

mod closing;
mod dropping;
mod flushing;
mod policies;
mod replies;
mod ring;
mod trigger;
mod waiters;
mod waking;
