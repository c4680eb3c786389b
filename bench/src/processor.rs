//! `BatchProcessor` beside other ways to batch small items: the whole cost of one item, from the
//! submitter's call to its own result. The handler adds one. Every contestant runs on the same kind
//! of tokio runtime with two workers.

use crate::results::{Results, median};
use crate::rounds::{Effort, Progress, rotate};
use crate::source::{Kind, Source};
use crate::targets::{Goal, Target};
use batch_aint_one::{BatchingPolicy, Limits, OnFull, Processor};
use batchlink::processor::{Batch, BatchProcessor, BatchProcessorBuilder, Submitter};
use opentelemetry::trace::SpanContext;
use opentelemetry::trace::noop::NoopTracer;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep_until;

const WORKERS: usize = 2;
const SUBMITTERS: usize = 8;
/// Calls in flight per submitter, each in its own task.
const IN_FLIGHT: usize = 64;
const BATCH: usize = 128;
/// The delay of all contestants, so that each waits for full batches.
const DELAY: Duration = Duration::from_millis(1);
/// Items that a queue holds.
const CAPACITY: usize = 4096;

pub const CALL: &str = "call";
pub const REFUSED: &str = "submit, yield when full";
pub const WAITING: &str = "submit, wait when full";
const UNIT: &str = "ns/item";

const BATCHLINK: &str = "batchlink";
const LINKED: &str = "batchlink, with links";
const BARE: &str = "batchlink, with links, no link.type";
const THREAD: &str = "batchlink, on its own thread";
const AINT_ONE: &str = "batch-aint-one";
const MPSC: &str = "tokio mpsc + Vec";
const UNBOUNDED: &str = "tokio mpsc + Vec, unbounded";
/// The floor, without batches: a task that yields once per item.
const TASKS: &str = "tasks alone";

/// Measures the time for a number of items.
type Run = fn(usize) -> Duration;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(WORKERS).enable_time().build().expect("a runtime")
}

/// A handle that returns an item's result. Each task has a clone.
trait Caller: Clone + Send + Sync + 'static {
    fn call(&self, item: u64) -> impl Future<Output = u64> + Send;
}

/// A handle that only submits. Each task has a clone.
trait Sink: Clone + Send + Sync + 'static {
    fn submit(&self, item: u64) -> impl Future<Output = ()> + Send;
}

/// Runs one task per call in flight, each of which takes the next item until none is left. With a
/// share per task the last ones would be too few to fill a batch, and wait for its delay.
async fn call_all(items: usize, caller: &impl Caller) {
    let next = Arc::new(AtomicU64::new(0));
    let task = || {
        let (caller, next) = (caller.clone(), Arc::clone(&next));
        async move {
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= items as u64 {
                    return;
                }
                assert_eq!(caller.call(item).await, item + 1, "its own result");
            }
        }
    };
    let all: Vec<_> = (0..SUBMITTERS * IN_FLIGHT).map(|_| tokio::spawn(task())).collect();
    for task in all {
        task.await.expect("no caller panics");
    }
}

/// Times calls. Opening and warming up is outside the timing.
fn calls<C: Caller>(items: usize, open: impl FnOnce() -> C) -> Duration {
    runtime().block_on(async {
        let caller = open();
        call_all(items / 8, &caller).await;
        let start = Instant::now();
        call_all(items, &caller).await;
        start.elapsed()
    })
}

/// Times submissions, from the first item to the last batch. `open` returns a sink, and the task
/// that returns the sum of all items once the last sink was dropped.
fn submits<S: Sink>(items: usize, open: impl FnOnce() -> (S, JoinHandle<u64>)) -> Duration {
    runtime().block_on(async {
        let (sink, sum) = open();
        let share = (items / SUBMITTERS) as u64;
        let start = Instant::now();
        for submitter in 0..SUBMITTERS as u64 {
            let sink = sink.clone();
            tokio::spawn(async move {
                for item in submitter * share..(submitter + 1) * share {
                    sink.submit(item).await;
                }
            });
        }
        drop(sink);
        let sum = sum.await.expect("no panic");
        let elapsed = start.elapsed();
        let all = share * SUBMITTERS as u64;
        assert_eq!(sum, all * (all - 1) / 2, "every item once");
        elapsed
    })
}

type Add = BatchProcessor<u64, u64, Infallible>;

fn builder() -> BatchProcessorBuilder<u64, u64, Infallible> {
    BatchProcessor::builder("add")
        .with_max_batch_size(BATCH)
        .with_max_delay(DELAY)
        .with_queue_capacity(CAPACITY)
}

fn add() -> (Submitter<u64, u64, Infallible>, Add) {
    builder().build(NoopTracer::new()).expect("valid")
}

fn increment(batch: Batch<u64, u64, Infallible>) {
    batch.succeed_all(|item| item + 1);
}

async fn run(mut processor: Add) {
    processor.run_async(async |batch| increment(batch)).await;
}

impl Caller for Submitter<u64, u64, Infallible> {
    async fn call(&self, item: u64) -> u64 {
        Submitter::call(self, item).await.expect("a free slot")
    }
}

fn batchlink(items: usize) -> Duration {
    calls(items, || {
        let (submitter, processor) = add();
        tokio::spawn(run(processor));
        submitter
    })
}

/// Calls with the context of a different request for every item.
#[derive(Clone)]
struct Linked(Submitter<u64, u64, Infallible>, Arc<[SpanContext]>);

impl Caller for Linked {
    async fn call(&self, item: u64) -> u64 {
        let context = &self.1[item as usize % self.1.len()];
        self.0.call_with_context(item, context).await.expect("a free slot")
    }
}

fn linked(items: usize, builder: BatchProcessorBuilder<u64, u64, Infallible>) -> Duration {
    let contexts = Source::new(Kind::Plain, BATCH, 0).contexts.into();
    calls(items, || {
        let (submitter, processor) = builder.build(NoopTracer::new()).expect("valid");
        tokio::spawn(run(processor));
        Linked(submitter, contexts)
    })
}

fn batchlink_linked(items: usize) -> Duration {
    linked(items, builder())
}

fn batchlink_bare(items: usize) -> Duration {
    linked(items, builder().with_link_policy(batchlink::LinkPolicy::new().without_link_type()))
}

fn batchlink_thread(items: usize) -> Duration {
    let mut thread = None;
    calls(items, || {
        let (submitter, processor) = add();
        thread = Some(processor.spawn(increment).expect("a thread"));
        submitter
    })
}

#[derive(Clone)]
struct Increment;

impl Processor for Increment {
    type Key = ();
    type Input = u64;
    type Output = u64;
    type Error = String;
    type Resources = ();

    async fn acquire_resources(&self, (): ()) -> Result<(), String> {
        Ok(())
    }

    async fn process(
        &self,
        (): (),
        inputs: impl Iterator<Item = u64> + Send,
        (): (),
    ) -> Result<Vec<u64>, String> {
        Ok(inputs.map(|item| item + 1).collect())
    }
}

impl Caller for batch_aint_one::Batcher<Increment> {
    async fn call(&self, item: u64) -> u64 {
        self.add((), item).await.expect("a free slot")
    }
}

fn aint_one(items: usize) -> Duration {
    calls(items, || {
        batch_aint_one::Batcher::builder()
            .name("add")
            .processor(Increment)
            .limits(Limits::builder().max_batch_size(BATCH).max_key_queued_items(CAPACITY).build())
            .batching_policy(BatchingPolicy::Duration(DELAY, OnFull::Process))
            .build()
    })
}

trait Receive<T> {
    fn receive(&mut self, batch: &mut Vec<T>, most: usize) -> impl Future<Output = usize> + Send;
}

impl<T: Send> Receive<T> for mpsc::Receiver<T> {
    fn receive(&mut self, batch: &mut Vec<T>, most: usize) -> impl Future<Output = usize> + Send {
        self.recv_many(batch, most)
    }
}

impl<T: Send> Receive<T> for mpsc::UnboundedReceiver<T> {
    fn receive(&mut self, batch: &mut Vec<T>, most: usize) -> impl Future<Output = usize> + Send {
        self.recv_many(batch, most)
    }
}

/// Calls `handler` with a batch when it is full, or when its first item has waited for the delay.
async fn collect<T>(
    mut receiver: impl Receive<T>,
    mut handler: impl FnMut(std::vec::Drain<'_, T>),
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut timer = pin!(sleep_until(tokio::time::Instant::now()));
    while receiver.receive(&mut batch, BATCH).await > 0 {
        timer.as_mut().reset(tokio::time::Instant::now() + DELAY);
        while batch.len() < BATCH {
            let left = BATCH - batch.len();
            tokio::select! {
                biased;
                received = receiver.receive(&mut batch, left) => if received == 0 { break },
                () = &mut timer => break,
            }
        }
        handler(batch.drain(..));
    }
}

type Asked = (u64, oneshot::Sender<u64>);

fn reply(batch: std::vec::Drain<'_, Asked>) {
    for (item, caller) in batch {
        let _ = caller.send(item + 1);
    }
}

impl Caller for mpsc::Sender<Asked> {
    async fn call(&self, item: u64) -> u64 {
        let (caller, answer) = oneshot::channel();
        self.try_send((item, caller)).expect("a free slot");
        answer.await.expect("an answer")
    }
}

impl Caller for mpsc::UnboundedSender<Asked> {
    async fn call(&self, item: u64) -> u64 {
        let (caller, answer) = oneshot::channel();
        self.send((item, caller)).expect("open");
        answer.await.expect("an answer")
    }
}

fn mpsc_call(items: usize) -> Duration {
    calls(items, || {
        let (sender, receiver) = mpsc::channel::<Asked>(CAPACITY);
        tokio::spawn(collect(receiver, reply));
        sender
    })
}

fn unbounded_call(items: usize) -> Duration {
    calls(items, || {
        let (sender, receiver) = mpsc::unbounded_channel::<Asked>();
        tokio::spawn(collect(receiver, reply));
        sender
    })
}

#[derive(Clone)]
struct Floor;

impl Caller for Floor {
    async fn call(&self, item: u64) -> u64 {
        yield_now().await;
        item + 1
    }
}

fn tasks(items: usize) -> Duration {
    calls(items, || Floor)
}

/// Yields and retries when the queue is full.
#[derive(Clone)]
struct Yielding<S>(S);

/// Waits when the queue is full.
#[derive(Clone)]
struct Waiting<S>(S);

impl Sink for Yielding<Submitter<u64, u64, Infallible>> {
    async fn submit(&self, item: u64) {
        while self.0.submit(item).is_err() {
            yield_now().await;
        }
    }
}

impl Sink for Waiting<Submitter<u64, u64, Infallible>> {
    async fn submit(&self, item: u64) {
        self.0.submit_wait_async(item).await.expect("open");
    }
}

impl Sink for Yielding<mpsc::Sender<u64>> {
    async fn submit(&self, item: u64) {
        while self.0.try_send(item).is_err() {
            yield_now().await;
        }
    }
}

impl Sink for Waiting<mpsc::Sender<u64>> {
    async fn submit(&self, item: u64) {
        self.0.send(item).await.expect("open");
    }
}

/// Returns a submitter, and the task that sums its items.
fn batchlink_summed() -> (Submitter<u64, u64, Infallible>, JoinHandle<u64>) {
    let (submitter, mut processor) = add();
    let task = tokio::spawn(async move {
        let mut sum = 0;
        while let Some(batch) = processor.next().await {
            sum += batch.payloads().sum::<u64>();
        }
        sum
    });
    (submitter, task)
}

/// Returns a sender, and the task that sums its items.
fn mpsc_summed() -> (mpsc::Sender<u64>, JoinHandle<u64>) {
    let (sender, receiver) = mpsc::channel::<u64>(CAPACITY);
    let task = tokio::spawn(async move {
        let mut sum = 0;
        collect(receiver, |batch: std::vec::Drain<'_, u64>| sum += batch.sum::<u64>()).await;
        sum
    });
    (sender, task)
}

fn batchlink_refused(items: usize) -> Duration {
    submits(items, || {
        let (submitter, sum) = batchlink_summed();
        (Yielding(submitter), sum)
    })
}

fn batchlink_waiting(items: usize) -> Duration {
    submits(items, || {
        let (submitter, sum) = batchlink_summed();
        (Waiting(submitter), sum)
    })
}

fn mpsc_refused(items: usize) -> Duration {
    submits(items, || {
        let (sender, sum) = mpsc_summed();
        (Yielding(sender), sum)
    })
}

fn mpsc_waiting(items: usize) -> Duration {
    submits(items, || {
        let (sender, sum) = mpsc_summed();
        (Waiting(sender), sum)
    })
}

const CALLS: [(&str, Run); 8] = [
    (BATCHLINK, batchlink),
    (LINKED, batchlink_linked),
    (BARE, batchlink_bare),
    (THREAD, batchlink_thread),
    (AINT_ONE, aint_one),
    (MPSC, mpsc_call),
    (UNBOUNDED, unbounded_call),
    (TASKS, tasks),
];
const REFUSE: [(&str, Run); 2] = [(BATCHLINK, batchlink_refused), (MPSC, mpsc_refused)];
const WAIT: [(&str, Run); 2] = [(BATCHLINK, batchlink_waiting), (MPSC, mpsc_waiting)];

pub fn bench(results: &mut Results, progress: &Progress, effort: Effort) {
    let items = effort.contexts.max(8 * BATCH);
    for (param, contestants) in [(CALL, &CALLS[..]), (REFUSED, &REFUSE), (WAITING, &WAIT)] {
        rotate(progress, effort.rounds, contestants, param, |(name, run)| {
            results.add(
                "processor",
                name,
                param,
                UNIT,
                run(items).as_nanos() as f64 / items as f64,
            );
        });
    }
}

/// Compares batchlink with the best other contestant of the same run.
pub fn targets(results: &Results) -> Vec<Target> {
    let median_of = |name, param| results.values("processor", name, param, UNIT).map(median);
    let target = |param, ours, others: &[&'static str]| {
        let others = others.iter().filter_map(|name| Some((*name, median_of(name, param)?)));
        let best = others.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or("", |(name, _)| name);
        let measured = results.ratio("processor", param, UNIT, ours, best);
        Target::new(&format!("{param}: {ours} ÷ best other"), Goal::AtMost(0.8), measured, best)
    };
    vec![
        target(CALL, BATCHLINK, &[AINT_ONE, MPSC, UNBOUNDED]),
        target(CALL, BATCHLINK, &[AINT_ONE]),
        target(CALL, LINKED, &[AINT_ONE, MPSC, UNBOUNDED]),
        target(CALL, THREAD, &[AINT_ONE, MPSC, UNBOUNDED]),
        target(REFUSED, BATCHLINK, &[MPSC]),
        target(WAITING, BATCHLINK, &[MPSC]),
    ]
}
