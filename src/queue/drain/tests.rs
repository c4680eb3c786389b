use super::*;
use crate::queue::Handle;

/// In nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

fn by_delay(size: u32) -> Rules {
    Rules { size, max_delay: HOUR, early: Early::Never }
}

/// Two shards; batches of `size`.
fn drain(size: u32) -> (Handle<()>, Drain<()>) {
    let (queue, consumers) = Queue::new(2, 8, size, 0);
    let drain = Drain::new(Arc::clone(queue.queue()), consumers, by_delay(size));
    (queue, drain)
}

/// A step at the present time.
fn step(drain: &mut Drain<()>) -> Action {
    let now = drain.queue().trigger.clock.now();
    drain.step(now)
}

fn push(queue: &Handle<()>, shard: usize) {
    queue.shard(shard).push(|| ()).expect("a free slot");
}

fn deadline(action: Action) -> u64 {
    let Action::Wait { deadline: Some(deadline) } = action else { panic!("{action:?}") };
    deadline
}

/// The delay of an entry does not begin while nothing is pending.
#[test]
fn idle_time_is_no_delay() {
    let (queue, mut drain) = drain(8);
    for _ in 0..3 {
        assert_eq!(step(&mut drain), Action::Wait { deadline: None });
        let before = queue.trigger.clock.now();
        push(&queue, 0);
        let due = deadline(step(&mut drain));
        assert!(due >= before + HOUR);
        assert_eq!(deadline(drain.step(due - 1)), due, "it does not move");
        assert_eq!(drain.step(due), Action::Take { count: 1, trigger: Trigger::Timeout });
        drain.take(1, |records| assert_eq!(records.count(), 1));
    }
}

/// What a batch leaves behind has the deadline of its own time, under lasting load, too.
#[test]
fn leftover_keeps_its_own_deadline() {
    let (queue, mut drain) = drain(2);
    push(&queue, 0);
    for _ in 0..5 {
        let before = queue.trigger.clock.now();
        push(&queue, 0);
        push(&queue, 0);
        assert_eq!(step(&mut drain), Action::Take { count: 2, trigger: Trigger::Size });
        drain.take(2, |records| assert_eq!(records.count(), 2));
        // Known to be later than the poll before the last.
        assert!(drain.shards[0].since < queue.trigger.clock.now());
        if drain.shards[0].checkpoint_at > before {
            assert!(deadline(step(&mut drain)) > HOUR);
        }
    }
    let since = drain.shards[0].since;
    let before = queue.trigger.clock.now();
    push(&queue, 0);
    assert_eq!(step(&mut drain), Action::Take { count: 2, trigger: Trigger::Size });
    drain.take(2, |records| assert_eq!(records.count(), 2));
    push(&queue, 0);
    assert!(deadline(step(&mut drain)) >= before + HOUR && since < before);
}

/// An entry that is due but unpublished makes no other entry due, and is polled for.
#[test]
fn unpublished_claim_delays_own_shard() {
    let (queue, mut drain) = drain(8);
    let claim = queue.rings[0].claim(1).expect("a free slot");
    let overdue = deadline(step(&mut drain));
    assert_eq!(drain.step(overdue), Action::AwaitPublish);
    push(&queue, 1);
    queue.trigger.ask_flush();
    assert_eq!(step(&mut drain), Action::Take { count: 1, trigger: Trigger::Manual });
    drain.take(1, |records| assert_eq!(records.count(), 1));
    assert_eq!(step(&mut drain), Action::AwaitPublish, "the flush covers the claim");
    push(&queue, 1);
    assert_eq!(step(&mut drain), Action::AwaitPublish, "and not what came later");
    let _ = claim.publish(|| ());
    assert_eq!(step(&mut drain), Action::Take { count: 2, trigger: Trigger::Manual });
}

/// The wake-up came with the weight; the publication before it brings none.
#[test]
fn weight_behind_claim_is_awaited() {
    let (queue, consumers) = Queue::new(1, 8, 8, 10);
    let mut drain = Drain::new(Arc::clone(queue.queue()), consumers, by_delay(8));
    let claim = queue.rings[0].claim(1).expect("a free slot");
    push(&queue, 0);
    queue.weigh(10);
    assert_eq!(step(&mut drain), Action::AwaitPublish);
    queue.shard(0).finish(claim, || ());
    assert_eq!(step(&mut drain), Action::Take { count: 2, trigger: Trigger::Weight });
}

/// The delay of an entry that is pushed while a batch is taken begins at once.
#[test]
fn delay_begins_while_draining() {
    let (queue, mut drain) = drain(8);
    push(&queue, 0);
    queue.trigger.ask_flush();
    assert_eq!(step(&mut drain), Action::Take { count: 1, trigger: Trigger::Manual });
    let mut pushed = 0;
    drain.take(1, |records| {
        assert_eq!(records.count(), 1);
        push(&queue, 1);
        pushed = queue.trigger.clock.now();
        while queue.trigger.clock.now() == pushed {}
    });
    assert!(deadline(step(&mut drain)) <= pushed + HOUR);
}

/// No wake-up comes for the publication that completes a batch, or the last one.
#[test]
fn last_publication_is_awaited() {
    let (queue, mut drain) = drain(2);
    let claim = queue.rings[0].claim(1).expect("a free slot");
    let _ = deadline(step(&mut drain));
    push(&queue, 0);
    assert_eq!(step(&mut drain), Action::AwaitPublish);
    let _ = claim.publish(|| ());
    assert_eq!(step(&mut drain), Action::Take { count: 2, trigger: Trigger::Size });
    drain.take(2, |records| assert_eq!(records.count(), 2));
    let claim = queue.rings[0].claim(1).expect("a free slot");
    queue.close();
    assert_eq!(step(&mut drain), Action::AwaitPublish);
    let _ = claim.publish(|| ());
    assert_eq!(step(&mut drain), Action::Take { count: 1, trigger: Trigger::Shutdown });
}

/// Limits may be old ones while a coordinator is suspended.
#[test]
fn flusher_awaits_coordinator() {
    let (queue, mut drain) = drain(8);
    queue.trigger.suspend_coordinator();
    assert_eq!(step(&mut drain), Action::AwaitPublish);
    queue.close();
    assert_eq!(step(&mut drain), Action::Closed);
}

/// The timed sleep ends by the clock of the latest step: tokio's may be far ahead of the system's.
#[test]
fn timed_sleep_follows_latest_clock() {
    let (queue, mut drain) = drain(2);
    for _ in 0..2 {
        push(&queue, 0);
    }
    assert_eq!(step(&mut drain), Action::Take { count: 2, trigger: Trigger::Size });
    drain.take(2, |records| assert_eq!(records.count(), 2));
    let ahead = drain.step(10 * HOUR);
    assert_eq!(ahead, Action::Wait { deadline: Some(11 * HOUR) });
    let now = queue.trigger.clock.now();
    assert_eq!(drain.step(now), Action::Wait { deadline: Some(now + HOUR) });
}

/// The wait of the oldest entry is known only if the push that it counts from is in the batch.
#[test]
fn partial_take_knows_bound_only() {
    for published in [true, false] {
        let (queue, mut drain) = drain(8);
        assert_eq!(step(&mut drain), Action::Wait { deadline: None });
        let claim = queue.rings[0].claim(1).expect("a free slot");
        queue.trigger.report(&queue.rings);
        push(&queue, 1);
        let claim = match published {
            true => claim.publish(|| ()).then_some(None).flatten(),
            false => Some(claim),
        };
        queue.trigger.ask_flush();
        let Action::Take { count, .. } = step(&mut drain) else { panic!("nothing is due") };
        let wait = drain.take(count, |records| assert!(records.count() > 0));
        let bound = drain.polled_at - queue.trigger.armed_at();
        assert_eq!((wait.exact, wait.bound.as_nanos()), (published, bound.into()));
        claim.into_iter().for_each(|claim| _ = claim.publish(|| ()));
    }
}

/// An entry that passed unreported, under a limit of before, was not pushed when the last one was
/// reported.
#[test]
fn unreported_entry_has_bound_only() {
    let (queue, mut drain) = drain(8);
    push(&queue, 0);
    assert!(matches!(step(&mut drain), Action::Wait { .. }));
    let first = drain.take(1, |records| assert_eq!(records.count(), 1));
    assert!(first.exact);
    assert_eq!(step(&mut drain), Action::Wait { deadline: None });
    let empty_at = drain.polled_at;
    let _ = queue.rings[0].claim(1).expect("a free slot").publish(|| ());
    assert!(matches!(step(&mut drain), Action::Wait { .. }));
    let bound = drain.polled_at - empty_at;
    let wait = drain.take(1, |records| assert_eq!(records.count(), 1));
    assert_eq!((wait.exact, wait.bound.as_nanos()), (false, bound.into()));
}

/// After a complete batch the flusher yields before it sleeps, but not if pushes were refused.
#[test]
fn refused_push_stops_yields() {
    let (queue, consumers) = Queue::new(1, 4, 2, 0);
    let mut drain = Drain::new(Arc::clone(queue.queue()), consumers, by_delay(2));
    // Two are taken each time.
    for (offered, yields) in [(2, true), (5, false), (0, true), (2, true)] {
        (0..offered).for_each(|_| _ = queue.shard(0).push(|| ()));
        assert_eq!(step(&mut drain), Action::Take { count: 2, trigger: Trigger::Size });
        drain.take(2, |records| assert_eq!(records.count(), 2));
        assert_eq!(drain.is_under_load(), yields, "{offered} offered");
    }
}
