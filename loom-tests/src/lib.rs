//! What the models in `tests/models` share.
//!
//! `cargo test --release 2>/dev/null` in this folder checks them all (see `.cargo/config.toml` for
//! why stderr is thrown away); `ci/loom.sh` does it and counts. `ci/loom-mutants.sh` breaks the
//! protocol in every way we could think of and demands that a model notices.
//!
//! Under `--cfg batchlink_loom`
//!
//! - **time stands still**: a `max_delay` of zero is always over, any other ([`NEVER`]) never ends,
//!   so a lost wake-up is not hidden by a timeout but is a deadlock, which loom reports;
//! - **positions begin at 2³¹ − 2**: every model crosses the wrap-around after two contexts;
//! - **shards are chosen**: `collector.producer()` takes them in turn, `collector.push` the first;
//! - **loom counts references**: a ring that is not freed fails the model.
//!
//! What loom does not see: load buffering (a store that becomes visible before an earlier load or
//! store of its thread), `SeqCst` beyond `AcqRel`, spurious failures of `compare_exchange_weak`. It
//! remembers only the last access to an atomic, so a thread's load hides an earlier load of another
//! from its own next store: a model whose flusher polls once, without waiting, and *then* lets
//! others push explores nothing ([`check`] fails then). Let the flusher poll on a thread that
//! starts before the pushes. And it stops exploring at a number of preemptions, given per model;
//! `LOOM_MAX_PREEMPTIONS` overrides all of them.

use batchlink::{FlushPolicy, Flusher, LinkBatch, LinkCollector, LinkPolicy};
use loom::model::Builder;
use loom::sync::Notify;
use loom::thread;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

/// A delay that is never over in a model.
pub const NEVER: Duration = Duration::from_secs(3600);

/// Checks `model` in every interleaving with at most `preemptions` involuntary thread switches;
/// 0 is for a model of a single thread. Fails if there was nothing to explore.
#[track_caller]
pub fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    static PANICS_TO_STDOUT: Once = Once::new();
    PANICS_TO_STDOUT.call_once(|| std::panic::set_hook(Box::new(|panic| println!("{panic}"))));
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = builder.max_branches.max(20_000);
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions of {}", std::panic::Location::caller());
    assert!(
        executions > 1 || preemptions == 0,
        "nothing was explored: see the crate's documentation"
    );
}

/// A collector with `shards` shards of `capacity` slots (at least `size`, rounded up to a power of
/// two) and batches of `size`.
pub fn collector(
    size: usize,
    capacity: usize,
    shards: usize,
    delay: Duration,
) -> (LinkCollector, Flusher) {
    with_policy(FlushPolicy::Delay, size, capacity, shards, delay)
}

/// As [`collector`], with a flush policy.
pub fn with_policy(
    policy: FlushPolicy,
    size: usize,
    capacity: usize,
    shards: usize,
    delay: Duration,
) -> (LinkCollector, Flusher) {
    LinkCollector::builder()
        .with_flush_policy(policy)
        .with_max_batch_size(size)
        .with_max_delay(delay)
        .with_queue_capacity((capacity * shards).max(size))
        .with_shards(shards)
        .with_max_links(8)
        .with_link_policy(LinkPolicy::new().without_link_type())
        .build()
        .expect("a valid configuration")
}

/// A context whose span id is `id`.
pub fn cx(id: u64) -> SpanContext {
    let trace = TraceId::from(0xbadu128);
    SpanContext::new(trace, SpanId::from(id), TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// Runs `act` on a thread of its own. The handle comes back with the result: dropped over there,
/// the last one would close the collector, and that wakes a flusher that ought to be awake already.
pub fn spawn<H, R>(handle: H, act: impl FnOnce(&H) -> R + 'static) -> thread::JoinHandle<(R, H)>
where
    H: 'static,
    R: 'static,
{
    thread::spawn(move || (act(&handle), handle))
}

/// The span ids of a batch, in its order.
pub fn ids(batch: &LinkBatch) -> Vec<u64> {
    batch
        .links()
        .iter()
        .map(|link| u64::from_be_bytes(link.span_context.span_id().to_bytes()))
        .collect()
}

/// As [`ids`], sorted.
pub fn sorted(batch: &LinkBatch) -> Vec<u64> {
    let mut ids = ids(batch);
    ids.sort_unstable();
    ids
}

/// Everything that is pending, taken without waiting. In order per producer.
pub fn drain(flusher: &mut Flusher) -> Vec<u64> {
    std::iter::from_fn(|| flusher.try_next()).flat_map(|batch| ids(&batch)).collect()
}

/// A waker for a model's own executor.
pub struct Alarm {
    notify: Notify,
    /// Not shown to loom: no step of the protocol depends on it.
    rung: AtomicBool,
}

impl Alarm {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { notify: Notify::new(), rung: AtomicBool::new(false) })
    }

    /// Waits for a wake. Returns without one at most once (loom explores that), with false.
    pub fn wait(&self) -> bool {
        self.notify.wait();
        self.rung()
    }

    /// Whether there was a wake since the last time this was asked.
    pub fn rung(&self) -> bool {
        self.rung.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Relaxed);
        self.notify.notify();
    }
}

/// `loom::future::block_on`, but a task that wakes itself lets others run before its next poll:
/// the flusher polls again only so often before it trusts in a timer, and time stands still here.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let alarm = Alarm::new();
    let waker = Arc::clone(&alarm).into();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::yield_now();
        alarm.wait();
    }
}
