//! Promises 1, 2, 6 and 9 once more: random calls in one thread, and after every one of them the
//! collector, or the link set, must look exactly as the oracle says.

use super::common::choices::Choices;
use super::common::collector_calls::{Call, Session, Setup};
use super::common::link_set_calls::{SetCall, SetSession};
use super::common::oracle::Policy;
use super::common::{Random, step};

#[test]
fn collector_matches_oracle() {
    for seed in 0..500 {
        let mut random = Random(seed);
        let mut session = Session::new(Setup::choose(&mut random));
        for number in 0..400 {
            step(seed, number, Call::choose(&mut random), |call| session.call(call));
        }
        session.end();
    }
}

#[test]
fn link_set_matches_oracle() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let most = Choices::below(&mut random, 200) + 1;
        let policy = Policy::choose(&mut random, most);
        let spans = 1 + Choices::below(&mut random, 2 * most);
        let mut session = SetSession::new(policy, Choices::below(&mut random, 41) as u32);
        for number in 0..1000 {
            step(seed, number, SetCall::choose(&mut random, spans), |call| session.call(call));
        }
        session.finish();
    }
}
