//! `BatchProcessor` in one thread, by random calls: answers, batches, counters and spans must be what the
//! oracle says.
#![cfg(feature = "processor")]

mod common;
#[path = "common/exported.rs"]
mod exported;
#[path = "common/processor_calls.rs"]
mod processor_calls;

use common::{Random, step, watchdog};
use processor_calls::{Call, End, Session, Setup};

#[test]
fn a_processor_does_what_the_oracle_does() {
    let _watchdog = watchdog();
    for seed in 0..500 {
        let mut random = Random(seed);
        let mut session = Session::new(Setup::choose(&mut random));
        for number in 0..200 {
            step(seed, number, Call::choose(&mut random), |call| session.call(call));
        }
        step(seed, 200, End::choose(&mut random), |end| session.end(*end));
    }
}
