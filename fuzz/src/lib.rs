//! What the fuzz targets do with their input. See README.md.

#[path = "../../tests/common/mod.rs"]
mod common;
mod config;
mod record;

pub use config::config;
pub use record::record;

use common::choices::{Bytes, Choices, one_of};
use common::collector_calls::{Call, Session, Setup};
use common::link_set_calls::{SetCall, SetSession};
use common::oracle::Policy;

/// Any calls on a collector of any (small) size, until there is no more input. What is then still in
/// its rings is dropped, boxes and all.
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
    let policy = choose_policy(choices);
    let spans = one_of(choices, &[4, 16, 64, 250, 1000]);
    let mut session = SetSession::new(policy, choices.below(41) as u32);
    while !choices.0.is_empty() {
        session.call(&SetCall::choose(choices, spans));
    }
    session.finish();
}

fn choose_policy(choices: &mut Bytes<'_>) -> Policy {
    let most = one_of(choices, &[4, 8, 33, 129, 256]);
    Policy::choose(choices, most)
}
