//! What is around the collector goes wrong: handlers panic, exporters are down, the process is
//! stopped, the clock jumps or stands still. Everything accepted is accounted for all the same.
//!
//! Memory under such conditions is `memory.rs`'s, frozen threads are `starvation.rs`'s.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

mod common;
#[cfg(target_os = "linux")]
#[path = "common/example.rs"]
mod example;

use batchlink::{LinkBatch, Stats};
use common::*;
use std::sync::mpsc;

/// Batches by size, all full. Pushes `batches` of them one after the other, so that none is
/// refused, and shuts down; what the handler was given, and the last counters.
fn run_batches(batches: u64, mut handler: impl FnMut(u64, LinkBatch) + Send + 'static) -> Stats {
    const SIZE: usize = 5;
    let (collector, flusher) = by_size(SIZE).with_shards(1).build().unwrap();
    let (begun, has_begun) = mpsc::channel();
    let mut calls = 0;
    let handle = flusher
        .spawn(move |batch| {
            assert_account(&batch);
            calls += 1;
            begun.send(()).unwrap();
            handler(calls, batch)
        })
        .unwrap();
    for number in 0..batches * SIZE as u64 {
        collector.push(&context(1 + number)).unwrap();
        if (number + 1) % SIZE as u64 == 0 {
            has_begun.recv().unwrap();
        }
    }
    handle.shutdown_with_timeout(NEVER).unwrap();
    assert_stats(&handle.stats(), batches * SIZE as u64, 0, 0, 0);
    assert_eq!((handle.stats().batches(), handle.stats().pending()), (batches, 0));
    handle.stats()
}

/// One batch in every `k`; all of them for 1.
#[test]
fn panicking_handler_costs_its_batches() {
    const BATCHES: u64 = 700;
    let _watchdog = watchdog();
    for k in [1, 2, 7] {
        let (delivered, links) = mpsc::channel();
        let stats = run_batches(BATCHES, move |call, batch| {
            if call % k == 0 {
                // As `panic!` does, without a line on stderr each time.
                std::panic::resume_unwind(Box::new("as planned"));
            }
            numbers(&batch).into_iter().for_each(|number| delivered.send(number).unwrap());
        });
        assert_eq!(stats.handler_panics(), BATCHES / k);
        let lost = |number: &u64| (1 + (number - 1) / 5) % k == 0;
        let expected: Vec<u64> = (1..=5 * BATCHES).filter(|number| !lost(number)).collect();
        assert_eq!(links.iter().collect::<Vec<_>>(), expected);
    }
}

mod exporter {
    use super::*;
    use batchlink::PushError;
    use opentelemetry::trace::{Span, TracerProvider};
    use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, Sender};
    use std::sync::{Arc, Mutex};

    const BATCHES: u64 = 50;

    /// What an exporter does whose backend is gone.
    #[derive(Debug)]
    enum Down {
        Errors,
        Panics,
        /// Says that it has been called, and blocks until it is let go on.
        Blocks(Mutex<(Sender<()>, Receiver<()>)>),
    }

    #[derive(Debug)]
    struct Exporter {
        down: Down,
        calls: Arc<AtomicU64>,
    }

    impl SpanExporter for Exporter {
        async fn export(&self, _spans: Vec<SpanData>) -> OTelSdkResult {
            self.calls.fetch_add(1, Ordering::Relaxed);
            match &self.down {
                Down::Errors => Err(OTelSdkError::InternalFailure("the backend is gone".into())),
                Down::Panics => std::panic::resume_unwind(Box::new("as planned")),
                Down::Blocks(gate) => {
                    let (called, go_on) = &*gate.lock().unwrap();
                    let _ = called.send(());
                    let _ = go_on.recv();
                    Ok(())
                }
            }
        }
    }

    fn provider(down: Down) -> (SdkTracerProvider, Arc<AtomicU64>) {
        let calls = Arc::new(AtomicU64::new(0));
        let exporter = Exporter { down, calls: Arc::clone(&calls) };
        // In the thread that ends the span, so that the handler suffers it.
        (SdkTracerProvider::builder().with_simple_exporter(exporter).build(), calls)
    }

    #[test]
    fn failing_exporter_loses_no_batch() {
        let _watchdog = watchdog();
        for down in [Down::Errors, Down::Panics] {
            let panics = matches!(down, Down::Panics);
            let (provider, calls) = provider(down);
            let tracer = provider.tracer("test");
            let stats = run_batches(BATCHES, move |_, batch| batch.start(&tracer, "batch").end());
            // After a panic the SDK leaves its exporter alone.
            let expected = if panics { 1 } else { BATCHES };
            assert_eq!(calls.load(Ordering::Relaxed), expected);
            assert_eq!(stats.handler_panics(), u64::from(panics));
        }
    }

    /// As in production: spans go by a thread of the SDK's to a collector that is not there.
    #[test]
    fn unreachable_backend_loses_no_batch() {
        use opentelemetry_otlp::WithExportConfig;

        let _watchdog = watchdog();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        drop(listener);
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint)
            .build()
            .unwrap();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
        let tracer = provider.tracer("test");
        let stats = run_batches(BATCHES, move |_, batch| batch.start(&tracer, "batch").end());
        assert_eq!(stats.handler_panics(), 0);
        assert!(provider.force_flush().is_err(), "somebody answers there");
    }

    #[test]
    fn blocking_exporter_stops_flusher_only() {
        const SIZE: usize = 8;
        let _watchdog = watchdog();
        let (called, is_called) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let (provider, calls) = provider(Down::Blocks(Mutex::new((called, may_go_on))));
        let tracer = provider.tracer("test");
        let builder = by_size(SIZE).with_shards(1).with_queue_capacity(4 * SIZE);
        let (collector, flusher) = builder.build().unwrap();
        let handle = flusher.spawn(move |batch| batch.start(&tracer, "batch").end()).unwrap();
        (1..=SIZE as u64).for_each(|number| collector.push(&context(number)).unwrap());
        is_called.recv().unwrap();

        let answers: Vec<_> = (100..1100).map(|number| collector.push(&context(number))).collect();
        let taken = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(taken, 4 * SIZE, "what the queue holds");
        assert!(answers[taken..].iter().all(|answer| *answer == Err(PushError::Full)));

        drop(go_on);
        handle.shutdown_with_timeout(NEVER).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 5);
        assert_stats(&handle.stats(), 5 * SIZE as u64, 1000 - 4 * SIZE as u64, 0, 0);
    }
}

/// The whole process stopped and continued, many times, wherever it is just then.
#[cfg(target_os = "linux")]
mod stopped {
    use super::*;
    use serde_json::Value;
    use std::fs;
    use std::io::Read;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    /// Not left behind if the test fails.
    struct Stopping(Child);

    impl Drop for Stopping {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Stopping {
        /// Only while the child has not been waited for, so that the id is surely its own.
        fn signal(&self, name: &str) {
            let kill = format!("kill -{name} {}", self.0.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }

        fn is_stopped(&self) -> bool {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            // The name before it is in parentheses and may hold anything.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        }

        /// Until it ends: how, and how often it was seen to be stopped.
        fn run(mut self) -> (ExitStatus, u64) {
            // Before the watchdog, which would leave the child behind.
            let hangs = Instant::now() + Duration::from_secs(100);
            let (mut random, mut stops) = (Random(1), 0);
            loop {
                assert!(Instant::now() < hangs, "it hangs");
                if let Some(status) = self.0.try_wait().unwrap() {
                    return (status, stops);
                }
                self.signal("STOP");
                thread::sleep(Duration::from_millis(random.below(20)));
                stops += u64::from(self.is_stopped());
                self.signal("CONT");
                thread::sleep(Duration::from_millis(random.below(20)));
            }
        }
    }

    fn stop_and_continue(name: &str, flags: &str) -> String {
        let mut command = super::example::example(name);
        let command = command.args(flags.split(' ')).stdout(Stdio::piped());
        let mut child = Stopping(command.spawn().unwrap());
        let mut stdout = child.0.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut printed = String::new();
            stdout.read_to_string(&mut printed).map(|_| printed).unwrap()
        });
        let (status, stops) = child.run();
        let printed = reader.join().unwrap();
        assert!(status.success(), "{name} ended with {status}:\n{printed}");
        assert!(stops > 10, "{name} was stopped {stops} times only");
        println!("{name}: stopped {stops} times");
        printed
    }

    #[test]
    fn stopped_worker_pool_loses_nothing() {
        let _watchdog = watchdog();
        let flags = "--contexts 100000 --max-delay-ms 5 --pause-every 2000 --format json";
        let printed = stop_and_continue("worker_pool", flags);
        let summary: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        let number = |key: &str| summary[key].as_u64().unwrap();
        let answers = ["accepted", "rejected_full", "rejected_closed", "invalid"].map(number);
        assert_eq!((number("pushed"), answers.iter().sum()), (100_000, 100_000));
        assert_eq!((number("accepted"), number("pending")), (number("received"), 0));
        assert_eq!(number("exported_links"), number("linked"));
        assert!(number("size_flushes") > 0 && number("timeout_flushes") > 0, "{summary}");
    }

    /// In every way of flushing, counted all the time by itself.
    #[test]
    fn stopped_soak_loses_nothing() {
        let _watchdog = watchdog();
        let printed = stop_and_continue("soak", "--minutes 0.05");
        assert_eq!(printed.lines().last(), Some("lost: 0"), "{printed}");
    }
}

/// Clocks that jump and clocks that stand still, by hooks; `ci/starvation.sh` runs these.
#[cfg(batchlink_hooks)]
mod clock {
    use super::*;
    use batchlink::{Timeout, Trigger};
    use std::thread;
    use std::time::{Duration, Instant};

    const HOURS: Duration = Duration::from_secs(5 * 3600);

    #[test]
    fn clock_jump_delivers_overdue() {
        let _watchdog = watchdog();
        let (collector, mut flusher) = by_size(9).build().unwrap();
        for number in 1..=20 {
            collector.push(&context(number)).unwrap();
            // As old as its push, not as the jump.
            assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
            collector.jump_clock(HOURS);
            let batch = flusher.next_batch().unwrap();
            assert_eq!((numbers(&batch), batch.trigger()), (vec![number], Trigger::Timeout));
        }
        assert_eq!(flusher.stats().wake_ups(), 0, "nobody had to wait");
    }

    /// To the end of what 64 bits of nanoseconds hold, 584 years on: deadlines stop there.
    #[test]
    fn deadlines_saturate() {
        let _watchdog = watchdog();
        for delay in [Duration::ZERO, NEVER, Duration::MAX] {
            let (collector, mut flusher) =
                by_size(2).with_shards(1).with_max_delay(delay).build().unwrap();
            collector.push(&context(1)).unwrap();
            if delay > Duration::ZERO {
                assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
            }
            for _ in 0..2 {
                collector.jump_clock(Duration::MAX);
                let batch = flusher.next_batch().unwrap();
                assert_eq!((batch.received(), batch.trigger()), (1, Trigger::Timeout));
                assert!(flusher.try_next().is_none());
                assert_eq!(flusher.next_batch_timeout(Duration::MAX).unwrap_err(), Timeout);
                collector.push(&context(2)).unwrap();
            }
            assert_eq!(collector.push_all(&[context(3), context(4), context(5)]), 3);
            assert_eq!(numbers(&flusher.next_batch().unwrap()), [2, 3]);
            assert_eq!(numbers(&flusher.next_batch().unwrap()), [4, 5]);
            assert_stats(&collector.stats(), 6, 0, 0, 0);
        }
    }

    /// Many jumps while others push, and a flusher that is woken for reasons only.
    #[test]
    fn jumps_under_load_lose_nothing() {
        const PUSHES: u64 = 2000;
        let _watchdog = watchdog();
        let began = Instant::now();
        let (collector, flusher) = by_size(64).with_shards(2).build().unwrap();
        let (received, counts) = mpsc::channel();
        let handle = flusher.spawn(move |batch| received.send(batch.received()).unwrap()).unwrap();
        thread::scope(|scope| {
            for thread in 1..=3_u64 {
                let collector = &collector;
                scope.spawn(move || {
                    for number in 0..PUSHES {
                        while collector.push(&context((thread << 32) + number)).is_err() {
                            thread::yield_now();
                        }
                        if number % 50 == 0 {
                            collector.jump_clock(HOURS);
                            thread::sleep(Duration::from_micros(100));
                        }
                    }
                });
            }
        });
        handle.shutdown_with_timeout(NEVER).unwrap();
        drop(handle);
        let stats = collector.stats();
        assert_eq!(counts.iter().sum::<u64>(), 3 * PUSHES);
        assert_eq!((stats.accepted(), stats.pending()), (3 * PUSHES, 0));
        // A few for each batch, and one for each millisecond that a claim stays in flight.
        let most = 4 * stats.batches() + began.elapsed().as_millis() as u64 + 10;
        assert!(stats.wake_ups() <= most, "{stats:?}, of at most {most}");
    }

    /// Size, flush and close need no clock. The wait for a deadline that does not come nearer is no
    /// busy one.
    #[test]
    fn stopped_clock_stops_timeouts_only() {
        const DELAY: Duration = Duration::from_millis(20);
        let _watchdog = watchdog();
        let (collector, flusher) = by_size(3).with_shards(1).with_max_delay(DELAY).build().unwrap();
        let (batches, delivered) = mpsc::channel();
        let handle = flusher.spawn(move |batch| batches.send(batch).unwrap()).unwrap();
        let began = Instant::now();
        collector.stop_clock(true);
        collector.push(&context(1)).unwrap();
        assert!(delivered.recv_timeout(5 * DELAY).is_err(), "its time has not come");
        let woken = u128::from(collector.stats().wake_ups());
        // Once for the push, and once per delay that passed outside.
        assert!(
            woken <= 2 + began.elapsed().as_millis() / DELAY.as_millis(),
            "woken {woken} times"
        );
        assert_eq!(collector.push_all(&[context(2), context(3), context(4)]), 3);
        assert_eq!(delivered.recv().unwrap().trigger(), Trigger::Size);
        collector.flush();
        assert_eq!(delivered.recv().unwrap().trigger(), Trigger::Manual);
        collector.push(&context(5)).unwrap();
        collector.stop_clock(false);
        assert_eq!(delivered.recv().unwrap().trigger(), Trigger::Timeout);
        handle.shutdown_with_timeout(NEVER).unwrap();
        assert_stats(&handle.stats(), 5, 0, 0, 0);
    }
}
