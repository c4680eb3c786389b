//! `BatchProcessor` in one thread, by random calls: answers, batches, counters and spans must be
//! what the oracle says.

use super::common::{Random, step, watchdog};
use super::processor_calls::{Call, End, Seen, Session, Setup};

#[test]
fn processor_matches_oracle() {
    let _watchdog = watchdog();
    let mut seen = Vec::new();
    for seed in 0..500 {
        let mut random = Random(seed);
        let mut session = Session::new(Setup::choose(&mut random));
        for number in 0..200 {
            step(seed, number, Call::choose(&mut random), |call| session.call(call));
        }
        step(seed, 200, End::choose(&mut random), |end| seen.push(session.end(end)));
    }
    // It all happened, and often.
    let sum = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>();
    let happened = [
        ("accepted", sum(|seen| seen.accepted), 10_000),
        ("refused, since it was full", sum(|seen| seen.full), 5_000),
        ("refused, since it was closed", sum(|seen| seen.closed), 2_000),
        ("batches", sum(|seen| seen.batches), 5_000),
        ("batches in the end", sum(|seen| seen.last_batches), 1_000),
        ("items of run_each", sum(|seen| seen.items), 1_000),
        ("of these linked though invalid", sum(|seen| seen.invalid_links), 100),
        ("of these dropped in flight", sum(|seen| seen.cancelled), 100),
        ("batches without a span", sum(|seen| seen.suppressed_batches), 100),
        ("items dropped, since their callers had left", sum(|seen| seen.canceled), 500),
        ("items that shared an answer", sum(|seen| seen.coalesced), 1_000),
        ("of these linked by the span of an item", sum(|seen| seen.coalesced_links), 100),
        ("calls linked to their batch", sum(|seen| seen.back_links), 2_000),
        ("of these without an answer yet", sum(|seen| seen.early_links), 300),
        ("batches with the only request as parent", sum(|seen| seen.only_parents), 500),
        ("batches with the first of several as parent", sum(|seen| seen.first_parents), 500),
        ("failed batches with a status of the user's", sum(|seen| seen.marked), 100),
    ];
    for (what, count, least) in happened {
        println!("{what}: {count}");
        assert!(count >= least, "{what}: {count}, fewer than {least}");
    }
}
