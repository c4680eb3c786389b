//! `Attempts`, `FanOut` and `Saga` by random calls: counts, spans and links must be what the oracle
//! says.

use super::common::choices::{Choices, Item, one_of};
use super::common::oracle::Policy;
use super::common::{Random, step};
use super::operations_calls::{AttemptsSession, Call, FanSession, How, saga};

fn choose_policy(random: &mut Random) -> Policy {
    let most = one_of(random, &[1, 2, 3, 4, 8]);
    Policy::choose(random, most)
}

#[test]
fn attempts_agree_with_oracle() {
    let mut truncated = 0;
    for seed in 0..1000 {
        let mut random = Random(seed);
        let policy = choose_policy(&mut random);
        let spans = one_of(&mut random, &[16, 10_000]);
        let mut session = AttemptsSession::new(&policy, Choices::below(&mut random, 60) as u32);
        for number in 0..60 {
            step(seed, number, Call::choose(&mut random, spans), |call| session.call(call));
        }
        step(seed, 60, policy, |_| truncated += session.end());
    }
    assert!(truncated > 7000, "{truncated} counts of missing links were compared");
}

#[test]
fn fan_out_agrees_with_oracle() {
    let mut truncated = 0;
    for seed in 0..1000 {
        let mut random = Random(seed);
        let policy = choose_policy(&mut random);
        let mut session = FanSession::new(&policy, &Item::choose(&mut random, 16));
        for number in 0..60 {
            step(seed, number, Call::choose(&mut random, 16), |call| session.call(call));
        }
        step(seed, 60, How::choose(&mut random), |how| truncated += session.end(how));
    }
    assert!(truncated > 500, "{truncated} counts of missing links were compared");
}

#[test]
fn saga_agrees_with_oracle() {
    for seed in 0..1000 {
        let mut random = Random(seed);
        let steps: Vec<_> = (0..Choices::below(&mut random, 12))
            .map(|_| {
                (Item::choose(&mut random, 16), How::choose(&mut random), random.next() % 2 == 0)
            })
            .collect();
        step(seed, 0, steps, |steps| saga(steps, seed % 2 == 0));
    }
}
