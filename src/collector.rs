//! What producers hold.

use crate::config::{Config, LinkCollectorBuilder};
use crate::error::{PushError, RejectedLink};
use crate::flusher::Flusher;
use crate::links::MaybeContext;
use crate::policy::Invalid;
use crate::queue::{Handle, Queue};
use crate::record::Record;
use crate::ring::Ring;
use crate::stats::Stats;
use crate::sync::{Arc, Ordering, thread_key};
use crate::unwind::caught;
use opentelemetry::trace::{Link, SpanContext, TraceContextExt};
use std::fmt;
use std::time::{Duration, Instant};

/// Collects span contexts from many threads for the links of batch spans.
///
/// Clone it into every thread that has contexts to give; all clones feed the same [`Flusher`].
/// When the last clone and the last [`Producer`] are gone, the collector closes by itself: the
/// flusher delivers what is left and then ends.
///
/// Every thread is pinned to one shard, so its contexts are linked in the order in which it pushed
/// them. No method blocks, panics or takes a lock.
///
/// ```
/// use batchlink::LinkCollector;
/// use opentelemetry::{global, trace::Tracer};
/// use std::time::Duration;
///
/// let (collector, flusher) = LinkCollector::builder()
///     .with_max_batch_size(64)
///     .with_max_delay(Duration::from_millis(50))
///     .build()?;
/// let handle = flusher.spawn(|batch| {
///     let _span = batch.start(&global::tracer("writer"), "insert_batch");
///     // ... do the work of the batch
/// })?;
///
/// let worker = collector.clone();
/// std::thread::spawn(move || {
///     global::tracer("worker").in_span("request", |_cx| worker.push_current())
/// }).join().unwrap()?;
///
/// handle.shutdown_with_timeout(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LinkCollector {
    /// The queue's, here too: a push reaches its shard's word by one load less.
    rings: Arc<[Ring<Record>]>,
    queue: Handle<Record>,
    invalid: Invalid,
}

impl LinkCollector {
    /// Starts a configuration, with defaults that do not depend on the environment.
    pub fn builder() -> LinkCollectorBuilder {
        LinkCollectorBuilder::new()
    }

    pub(crate) fn from_config(config: Config) -> (Self, Flusher) {
        let (queue, consumers) = Queue::new(config.shards, config.slots_per_shard, config.max_batch_size, 0);
        let invalid = config.links.invalid;
        let flusher = Flusher::new(Arc::clone(queue.queue()), consumers, config);
        (Self { rings: Arc::clone(&queue.rings), queue, invalid }, flusher)
    }

    /// Gives a context to the next batch. It is read, not cloned, unless it has trace state.
    ///
    /// An invalid context (no active span, tracing off) is counted and otherwise ignored, unless
    /// [`with_invalid`](LinkCollectorBuilder::with_invalid) keeps it.
    ///
    /// Cost: one uncontended read-modify-write on the thread's shard and 32 bytes written; no
    /// allocation without trace state. About one push in a hundred also looks at the other shards.
    ///
    /// # Errors
    ///
    /// [`PushError::Full`] if this thread's shard is full, [`PushError::Closed`] after
    /// [`close`](Self::close) or when the flusher is gone. Both are counted.
    #[inline]
    pub fn push(&self, context: &SpanContext) -> Result<(), PushError> {
        push(&self.queue, self.ring(), context, self.invalid)
    }

    /// As [`push`](Self::push), for a link with attributes, which are boxed (one allocation).
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), with the link given back.
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        push_link(&self.queue, self.ring(), link, self.invalid)
    }

    /// As [`push`](Self::push), for the active span of the current
    /// [`Context`](opentelemetry::Context). With `tracing-opentelemetry`, an entered `tracing`
    /// span is that span.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_current(&self) -> Result<(), PushError> {
        push_current(&self.queue, self.ring(), self.invalid)
    }

    /// As [`push`](Self::push), for what may have a context, such as an `Option<SpanContext>` or a
    /// [`Context`](opentelemetry::Context). If it has none, nothing happens and nothing is counted.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_optional(&self, context: impl MaybeContext) -> Result<(), PushError> {
        context.with(|context| self.push(context)).unwrap_or(Ok(()))
    }

    /// As [`push`](Self::push) for each context, with one claim for as many as the shard lets
    /// through at once. Returns how many, from the first on, were taken (accepted, or counted as
    /// invalid); all others are counted as refused.
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        push_all(&self.queue, self.ring(), contexts, self.invalid)
    }

    /// As [`push`](Self::push), but a full shard is waited for instead of refused: back-pressure.
    ///
    /// **Blocks the thread** until the flusher has made room. Do not call it from the flusher's own
    /// handler, which would wait for itself, nor in async code, which has
    /// [`push_wait_async`](Self::push_wait_async). Costs no more than `push` if there is room.
    /// Those who wait are woken together, so no order among them is promised.
    ///
    /// # Errors
    ///
    /// [`PushError::Closed`] if the collector is closed, also while waiting.
    pub fn push_wait(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait(&self.queue, self.ring(), context, None, self.invalid)
    }

    /// As [`push_wait`](Self::push_wait), for at most `timeout`. Zero only tries.
    ///
    /// # Errors
    ///
    /// [`PushError::Full`] if there was no room in time, [`PushError::Closed`] if the collector is
    /// closed, also while waiting. Both are counted, once per call.
    pub fn push_wait_timeout(&self, context: &SpanContext, timeout: Duration) -> Result<(), PushError> {
        push_wait(&self.queue, self.ring(), context, Some(timeout), self.invalid)
    }

    /// As [`push_wait`](Self::push_wait), for tasks of any executor. Does not block.
    ///
    /// Cancel-safe: dropped before it is ready, it has pushed and counted nothing.
    ///
    /// # Errors
    ///
    /// [`PushError::Closed`] if the collector is closed, also while waiting.
    pub async fn push_wait_async(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait_async(&self.queue, self.ring(), context, self.invalid).await
    }

    /// A producer with a shard of its own choice, the next in turn: for a worker that lives long.
    pub fn producer(&self) -> Producer {
        Producer {
            rings: Arc::clone(&self.rings),
            shard: self.queue.next_shard(),
            queue: self.queue.clone(),
            invalid: self.invalid,
        }
    }

    /// Asks the flusher to deliver what is pending now, as [`Trigger::Manual`](crate::Trigger).
    /// Does not wait for it. Everything whose push returned before this call is delivered
    /// without waiting for size or timeout.
    pub fn flush(&self) {
        self.queue.trigger.ask_flush();
    }

    /// Closes the collector, for all clones: no push succeeds any more. Everything accepted is
    /// still delivered. Further calls do nothing.
    pub fn close(&self) {
        self.queue.close();
    }

    /// The counters so far. Cost: a few loads per shard.
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    #[inline(always)]
    fn ring(&self) -> &Ring<Record> {
        // (key / 2³²) · shards: a multiplication instead of a division.
        &self.rings[((u64::from(thread_key()) * self.rings.len() as u64) >> 32) as usize]
    }
}

impl Clone for LinkCollector {
    fn clone(&self) -> Self {
        Self { rings: Arc::clone(&self.rings), queue: self.queue.clone(), invalid: self.invalid }
    }
}

impl fmt::Debug for LinkCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkCollector").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A collector's handle that is pinned to one shard, whatever thread it is used on.
///
/// Saves the look-up of the thread's shard. Contexts pushed through one producer are linked in
/// their order. Made by [`LinkCollector::producer`]; a clone has the same shard.
pub struct Producer {
    rings: Arc<[Ring<Record>]>,
    /// Which of `rings`.
    shard: usize,
    queue: Handle<Record>,
    invalid: Invalid,
}

impl Producer {
    /// See [`LinkCollector::push`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn push(&self, context: &SpanContext) -> Result<(), PushError> {
        push(&self.queue, self.ring(), context, self.invalid)
    }

    /// See [`LinkCollector::push_link`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        push_link(&self.queue, self.ring(), link, self.invalid)
    }

    /// See [`LinkCollector::push_current`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_current(&self) -> Result<(), PushError> {
        push_current(&self.queue, self.ring(), self.invalid)
    }

    /// See [`LinkCollector::push_optional`].
    ///
    /// # Errors
    ///
    /// As [`LinkCollector::push`].
    pub fn push_optional(&self, context: impl MaybeContext) -> Result<(), PushError> {
        context.with(|context| self.push(context)).unwrap_or(Ok(()))
    }

    /// See [`LinkCollector::push_all`].
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        push_all(&self.queue, self.ring(), contexts, self.invalid)
    }

    /// See [`LinkCollector::push_wait`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_wait(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait(&self.queue, self.ring(), context, None, self.invalid)
    }

    /// See [`LinkCollector::push_wait_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_wait_timeout(&self, context: &SpanContext, timeout: Duration) -> Result<(), PushError> {
        push_wait(&self.queue, self.ring(), context, Some(timeout), self.invalid)
    }

    /// See [`LinkCollector::push_wait_async`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn push_wait_async(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait_async(&self.queue, self.ring(), context, self.invalid).await
    }

    #[inline(always)]
    fn ring(&self) -> &Ring<Record> {
        &self.rings[self.shard]
    }
}

impl Clone for Producer {
    fn clone(&self) -> Self {
        Self {
            rings: Arc::clone(&self.rings),
            shard: self.shard,
            queue: self.queue.clone(),
            invalid: self.invalid,
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

/// A push that was stopped between claim and publish, as if its thread had lost the processor.
#[cfg(any(batchlink_loom, batchlink_hooks))]
#[must_use = "its shard waits until it is resumed"]
pub struct StalledPush<'a> {
    queue: &'a Queue<Record>,
    claim: crate::ring::Claim<'a, Record>,
    record: Record,
}

#[cfg(any(batchlink_loom, batchlink_hooks))]
impl Producer {
    /// Claims, and stops there.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_stalled(&self, context: &SpanContext) -> Result<StalledPush<'_>, PushError> {
        let claim = self.queue.claim(self.ring())?;
        Ok(StalledPush { queue: &self.queue, claim, record: Record::from_context(context) })
    }
}

#[cfg(any(batchlink_loom, batchlink_hooks))]
impl StalledPush<'_> {
    /// Publishes, and reports if that is due.
    pub fn resume(self) {
        self.queue.finish(self.claim, || self.record);
    }
}

/// Hooks for the tests of clocks that misbehave; each collector has a clock of its own.
#[cfg(batchlink_hooks)]
impl LinkCollector {
    /// Lets time jump forward.
    pub fn jump_clock(&self, by: std::time::Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let add = |jumped: u64| Some(jumped.saturating_add(nanos));
        let jumped = &self.queue.trigger.clock.warp.jumped;
        let _ = jumped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Lets time stand still, or go on from there.
    pub fn stop_clock(&self, stop: bool) {
        let clock = &self.queue.trigger.clock;
        clock.warp.stopped_at.store(if stop { clock.now() } else { 0 }, Ordering::Relaxed);
    }
}

#[inline(always)]
fn push(
    queue: &Queue<Record>,
    ring: &Ring<Record>,
    context: &SpanContext,
    invalid: Invalid,
) -> Result<(), PushError> {
    if !context.is_valid() {
        return match invalid {
            Invalid::Drop => count_invalid(ring),
            _ => push_invalid(queue, ring, context, invalid),
        };
    }
    if Record::is_plain(context) {
        let claim = queue.claim(ring)?;
        queue.finish(claim, || Record::plain(context, false));
        return Ok(());
    }
    push_with_state(queue, ring, context)
}

fn count_invalid<E>(ring: &Ring<Record>) -> Result<(), E> {
    ring.refusals.invalid.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[cold]
fn push_invalid(
    queue: &Queue<Record>,
    ring: &Ring<Record>,
    context: &SpanContext,
    invalid: Invalid,
) -> Result<(), PushError> {
    let link = Link::with_context(context.clone());
    push_link(queue, ring, link, invalid).map_err(|rejected| rejected.reason())
}

/// The trace state is cloned before the claim: between claim and publish nothing may allocate.
#[cold]
fn push_with_state(
    queue: &Queue<Record>,
    ring: &Ring<Record>,
    context: &SpanContext,
) -> Result<(), PushError> {
    let record = Record::from_context(context);
    let claim = queue.claim(ring)?;
    queue.finish(claim, || record);
    Ok(())
}

fn push_wait(
    queue: &Queue<Record>,
    ring: &Ring<Record>,
    context: &SpanContext,
    timeout: Option<Duration>,
    invalid: Invalid,
) -> Result<(), PushError> {
    let Some(record) = record(context, invalid) else {
        return count_invalid(ring);
    };
    // A deadline beyond what `Instant` can hold is none.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    queue.push_wait(ring, deadline, record).map_err(|(_, reason)| reason)
}

async fn push_wait_async(
    queue: &Queue<Record>,
    ring: &Ring<Record>,
    context: &SpanContext,
    invalid: Invalid,
) -> Result<(), PushError> {
    let Some(record) = record(context, invalid) else {
        return count_invalid(ring);
    };
    queue.push_wait_async(ring, record).await.map_err(|(_, reason)| reason)
}

/// What there is to push; `None` if the context is invalid and not to be kept.
fn record(context: &SpanContext, invalid: Invalid) -> Option<Record> {
    if context.is_valid() {
        return Some(Record::from_context(context));
    }
    if invalid == Invalid::Drop {
        return None;
    }
    let link = Link::with_context(context.clone());
    invalid.keeps(&link).then(|| Record::from_link(link).0)
}

fn push_current(queue: &Queue<Record>, ring: &Ring<Record>, invalid: Invalid) -> Result<(), PushError> {
    // Only read in there: a push may wake the flusher's task, and its waker, the user's code, may want
    // to enter a context of its own.
    let read = || opentelemetry::Context::map_current(|cx| record(cx.span().span_context(), invalid));
    // A thread that is ending may have lost its current context; asking for it then panics.
    let Some(record) = caught(read).flatten() else { return count_invalid(ring) };
    let claim = queue.claim(ring)?;
    queue.finish(claim, || record);
    Ok(())
}

fn push_link(
    queue: &Queue<Record>,
    ring: &Ring<Record>,
    link: Link,
    invalid: Invalid,
) -> Result<(), RejectedLink> {
    if !link.span_context.is_valid() && !invalid.keeps(&link) {
        return count_invalid(ring);
    }
    let (record, original) = Record::from_link(link);
    match queue.claim(ring) {
        Ok(claim) => {
            queue.finish(claim, || record);
            Ok(())
        }
        Err(reason) => Err(RejectedLink::new(record.into_original(original), reason)),
    }
}

fn push_all(queue: &Queue<Record>, ring: &Ring<Record>, contexts: &[SpanContext], invalid: Invalid) -> usize {
    let mut rest = contexts;
    while let [next, others @ ..] = rest {
        // Between claim and publish nothing may allocate: contexts with trace state go one by one.
        // No claim gets more than the capacity, so there is no need to look further.
        let most = ring.capacity() as usize;
        let run = rest.iter().take(most).take_while(|cx| cx.is_valid() && Record::is_plain(cx)).count();
        let refused = if run == 0 {
            match push(queue, ring, next, invalid) {
                Ok(()) => {
                    rest = others;
                    continue;
                }
                // Counted already.
                Err(reason) => (reason, others.len()),
            }
        } else {
            match queue.push_run(ring, &rest[..run], |cx| Record::plain(cx, false)) {
                Ok(count) => {
                    rest = &rest[count..];
                    continue;
                }
                Err(reason) => (reason, rest.len()),
            }
        };
        Queue::count_refused(ring, refused.0, refused.1);
        break;
    }
    contexts.len() - rest.len()
}
