//! The fuzz targets' work on their input; see README.md.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/exported.rs"]
mod exported;
#[path = "../../tests/common/operations_calls.rs"]
mod operations_calls;
#[path = "../../tests/common/processor_calls.rs"]
mod processor_calls;
#[path = "../../tests/common/w3c.rs"]
mod w3c;
#[path = "../../tests/common/xray.rs"]
mod xray;

mod carrier;
mod config;
mod json;
mod record;
pub mod seeds;

pub use carrier::carrier;
pub use config::config;
pub use json::json;
pub use record::record;

use common::choices::{Bytes, Choices, Item, one_of};
use common::collector_calls::{Call, Session, Setup};
use common::link_set_calls::{SetCall, SetSession};
use common::oracle::Policy;
use operations_calls::{AttemptsSession, FanSession, How};

/// Any calls on a collector of any (small) size, until there is no more input. What is then still
/// in its rings is dropped, boxes and all.
pub fn collector_ops(data: &[u8]) {
    let choices = &mut Bytes(data);
    let mut session = Session::new(Setup::choose(choices));
    while !choices.0.is_empty() {
        session.call(&Call::choose(choices));
    }
}

/// Batch after batch through one link set, of any policy and bound.
pub fn dedup_truncation(data: &[u8]) {
    let choices = &mut Bytes(data);
    let most = one_of(choices, &[4, 8, 33, 129, 256]);
    let policy = Policy::choose(choices, most);
    let spans = one_of(choices, &[4, 16, 64, 250, 1000]);
    let mut session = SetSession::new(policy, choices.below(41) as u32);
    while !choices.0.is_empty() {
        session.call(&SetCall::choose(choices, spans));
    }
    session.finish();
}

/// Any calls on a batch processor, its submitters, callers and batches. All that is left then comes
/// to its end.
pub fn processor(data: &[u8]) {
    let choices = &mut Bytes(data);
    let end = processor_calls::End::choose(choices);
    let mut session = processor_calls::Session::new(processor_calls::Setup::choose(choices));
    while !choices.0.is_empty() {
        session.call(&processor_calls::Call::choose(choices));
    }
    session.end(&end);
}

/// Attempts, a fan-out or a saga, whose operations end in any order.
pub fn operations(data: &[u8]) {
    let choices = &mut Bytes(data);
    let pattern = choices.below(4);
    // The SDK keeps 128 links of a span; with so many a run takes long.
    let most = one_of(choices, &[1, 2, 3, 8, 40]);
    let policy = Policy::choose(choices, most);
    match pattern {
        0 => {
            let mut session = AttemptsSession::new(&policy, choices.below(40) as u32);
            let spans = one_of(choices, &[16, 10_000]);
            while !choices.0.is_empty() {
                session.call(&operations_calls::Call::choose(choices, spans));
            }
            session.end();
        }
        1 => {
            let mut session = FanSession::new(&policy, &Item::choose(choices, 16));
            let how = How::choose(choices);
            while !choices.0.is_empty() {
                session.call(&operations_calls::Call::choose(choices, 16));
            }
            session.end(&how);
        }
        _ => {
            let count = choices.below(40);
            let mut step =
                || (Item::choose(choices, 16), How::choose(choices), choices.below(2) == 0);
            let steps: Vec<_> = (0..count).map(|_| step()).collect();
            operations_calls::saga(&steps, pattern == 2);
        }
    }
}
