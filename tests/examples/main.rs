//! Each example does what it says: the spans, links, attributes and statuses that it exports are looked
//! at from outside, in what the built binary prints as JSON. `worker_pool` has a file of its own.

mod etl;
mod exported;
mod fan_in;
mod flags;
mod retry;
mod saga;
