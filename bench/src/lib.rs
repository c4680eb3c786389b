//! batchlink beside the others: the same work, the same result, timed side by side.
//!
//! [`contest`] says what the work is, [`roster`] what does it, [`runs`] how it is timed.

pub mod alloc;
pub mod async_lock;
pub mod contest;
pub mod dedup;
pub mod items;
pub mod locks;
pub mod ours;
pub mod plots;
pub mod processor;
pub mod queues;
pub mod report;
pub mod results;
pub mod roster;
pub mod rounds;
pub mod runs;
pub mod source;
pub mod targets;
