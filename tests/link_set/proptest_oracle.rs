//! The calls of `tests/oracle.rs`, chosen by proptest: new ones in every run, and a sequence that
//! fails is cut down to the few calls that matter and printed.
//!
//! No regression files: what fails becomes a test by name, made of the calls that were printed.

use super::common::choices::Bytes;
use super::common::collector_calls::{Call, Session, Setup};
use super::common::link_set_calls::{SetCall, SetSession};
use super::common::oracle::Policy;
use proptest::collection::vec;
use proptest::prelude::*;

/// Anything that can be chosen by up to so many bytes.
fn chosen<T: std::fmt::Debug>(
    bytes: usize,
    choose: fn(&mut Bytes<'_>) -> T,
) -> impl Strategy<Value = T> {
    vec(any::<u8>(), 0..=bytes).prop_map(move |bytes| choose(&mut Bytes(&bytes)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn collector_agrees_with_oracle(
        setup in chosen(8, |choices| Setup::choose(choices)),
        calls in vec(chosen(64, |choices| Call::choose(choices)), 0..200),
    ) {
        let mut session = Session::new(setup);
        calls.iter().for_each(|call| session.call(call));
        session.end();
    }

    #[test]
    fn link_set_agrees_with_oracle(
        policy in chosen(8, |choices| Policy::choose(choices, 20)),
        shift in 0..=40_u32,
        calls in vec(chosen(8, |choices| SetCall::choose(choices, 30)), 0..200),
    ) {
        let mut session = SetSession::new(policy, shift);
        calls.iter().for_each(|call| session.call(call));
        session.finish();
    }
}
