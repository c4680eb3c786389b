//! Each example does what it says: the spans, links, attributes and statuses that it exports are
//! looked at from outside, in what the built binary prints as JSON. `worker_pool` has a file of its
//! own, and so has the package `examples/http`.

#[cfg(feature = "processor")]
mod batch_service;
mod etl;
mod exported;
mod fan_in;
mod flags;
mod message_queue;
#[cfg(feature = "processor")]
mod order_processing;
mod retry;
mod saga;
