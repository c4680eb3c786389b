//! The async flusher's timer: on tokio's paused clock, and where there is no timer to be had.

use super::common::*;
use batchlink::{Flusher, LinkCollector, Trigger};
use std::cell::Cell;
use std::future::poll_fn;
use std::panic;
use std::sync::Once;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::{self, Instant};

const DELAY: Duration = Duration::from_secs(10);

fn delayed() -> (LinkCollector, Flusher) {
    by_size(1000).with_shards(1).with_max_delay(DELAY).build().unwrap()
}

/// After the clock was advanced, the delay takes as long as before: pushes one second apart come in
/// batches of ten seconds.
#[tokio::test(start_paused = true)]
async fn advanced_clock_keeps_delay() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = delayed();
    time::advance(3 * DELAY).await;
    let pushes = tokio::spawn(async move {
        for number in 1..=30 {
            collector.push(&context(number)).unwrap();
            time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut sizes = Vec::new();
    while let Some(batch) = flusher.next().await {
        sizes.push(batch.received());
    }
    pushes.await.unwrap();
    assert_eq!(sizes.iter().sum::<u64>(), 30);
    assert!(sizes.len() <= 4, "{sizes:?}");
}

/// A timeout comes at its virtual time, and not before.
#[tokio::test(start_paused = true)]
async fn timeout_comes_in_virtual_time() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = delayed();
    for number in 1..=3 {
        let began = Instant::now();
        collector.push(&context(number)).unwrap();
        assert_eq!(flusher.next().await.unwrap().trigger(), Trigger::Timeout);
        let took = began.elapsed();
        assert!(took >= DELAY && took < 2 * DELAY, "{took:?}");
        time::advance(DELAY).await;
    }
}

/// After a complete batch the timer runs: the next context wakes nothing, and is delivered when its
/// own delay is over.
#[tokio::test(start_paused = true)]
async fn timed_sleep_keeps_delay() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(2).with_shards(1).with_max_delay(DELAY).build().unwrap();
    assert_eq!(collector.push_all(&[1, 2].map(context)), 2);
    assert_eq!(flusher.next().await.unwrap().trigger(), Trigger::Size);
    let next =
        tokio::spawn(async move { (flusher.next().await.unwrap(), Instant::now(), flusher) });
    time::sleep(DELAY / 4).await;
    let pushed = Instant::now();
    collector.push(&context(3)).unwrap();
    let (batch, delivered, flusher) = next.await.unwrap();
    assert_eq!((numbers(&batch), batch.trigger()), (vec![3], Trigger::Timeout));
    let took = delivered - pushed;
    // Timers have a resolution of a millisecond.
    assert!(took >= DELAY && took <= DELAY + Duration::from_millis(2), "{took:?}");
    // The end of the sleep that began before the push, and of the delay; each may come early once.
    let wake_ups = flusher.stats().wake_ups();
    assert!((2..=4).contains(&wake_ups), "{wake_ups}");
}

/// The timed sleep after a complete batch ends once; then nothing wakes an idle flusher.
#[tokio::test(start_paused = true)]
async fn timed_sleep_ends_once() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(2).with_shards(1).with_max_delay(DELAY).build().unwrap();
    assert_eq!(collector.push_all(&[1, 2].map(context)), 2);
    assert_eq!(flusher.next().await.unwrap().trigger(), Trigger::Size);
    let next = tokio::spawn(async move { (flusher.next().await, flusher.stats().wake_ups()) });
    time::sleep(2 * DELAY).await;
    let ended = collector.stats().wake_ups();
    // Tokio's timer may come a fraction of a millisecond early, and is then set again.
    assert!((1..=2).contains(&ended), "{ended}");
    time::sleep(100 * DELAY).await;
    assert_eq!(collector.stats().wake_ups(), ended);
    // Now a push wakes it, to arm the timer.
    collector.push(&context(3)).unwrap();
    time::sleep(DELAY / 2).await;
    assert_eq!(collector.stats().wake_ups(), ended + 1);
    let (batch, wake_ups) = next.await.unwrap();
    assert_eq!(batch.unwrap().trigger(), Trigger::Timeout);
    assert!(wake_ups >= ended + 2, "{wake_ups}");
}

/// A result stops the timer: the clock stands still while the runtime waits for another thread.
#[tokio::test(start_paused = true)]
async fn result_stops_timer() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(2).with_shards(1).with_max_delay(DELAY).build().unwrap();
    collector.push(&context(1)).unwrap();
    assert!(flusher.poll_next_batch(&mut Context::from_waker(Waker::noop())).is_pending());
    collector.push(&context(2)).unwrap();
    assert_eq!(flusher.next().await.unwrap().received(), 2);
    let began = Instant::now();
    // Woken from elsewhere once the runtime has nothing to do, most likely.
    let mut woken = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        Poll::Pending
    })
    .await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(flusher);
}

/// A flusher on a thread of its own has no paused clock: it delivers in the system's time.
#[tokio::test(start_paused = true)]
async fn own_thread_ignores_paused_clock() {
    let _watchdog = watchdog();
    let (collector, flusher) =
        by_size(9).with_shards(1).with_max_delay(Duration::from_millis(5)).build().unwrap();
    let (batches, delivered) = std::sync::mpsc::channel();
    let handle = flusher.spawn(move |batch| batches.send(batch.trigger()).unwrap()).unwrap();
    time::advance(Duration::from_secs(3600)).await;
    collector.push(&context(1)).unwrap();
    assert_eq!(delivered.recv().unwrap(), Trigger::Timeout);
    handle.shutdown_with_timeout(NEVER).unwrap();
}

/// Runs `act` and returns how many panics began on this thread meanwhile, caught ones included.
fn panics_during(act: impl FnOnce()) -> u64 {
    thread_local!(static PANICS: Cell<u64> = const { Cell::new(0) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            previous(info);
        }));
    });
    let before = PANICS.get();
    act();
    PANICS.get() - before
}

/// Delivers one batch by timeout.
async fn one_timeout() {
    let (collector, mut flusher) =
        by_size(9).with_max_delay(Duration::from_millis(5)).build().unwrap();
    collector.push(&context(1)).unwrap();
    assert_eq!(flusher.next().await.unwrap().trigger(), Trigger::Timeout);
}

/// On a runtime without a timer no panic is provoked to find that out.
#[test]
fn no_panic_without_time() {
    let _watchdog = watchdog();
    let runtime = Builder::new_current_thread().build().unwrap();
    assert_eq!(panics_during(|| runtime.block_on(one_timeout())), 0);
    let panics = || assert!(panic::catch_unwind(|| panic!("on purpose")).is_err());
    assert_eq!(panics_during(panics), 1, "caught panics are counted");
}

/// Nor on one that has been shut down.
#[test]
fn no_panic_after_shutdown() {
    let _watchdog = watchdog();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let (collector, mut flusher) =
        by_size(9).with_max_delay(Duration::from_secs(60)).build().unwrap();
    collector.push(&context(1)).unwrap();
    let polled =
        || assert!(flusher.poll_next_batch(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(panics_during(polled), 0);
}
