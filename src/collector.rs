//! What producers hold.

use crate::config::{Config, LinkCollectorBuilder};
use crate::error::{PushError, RejectedLink};
use crate::flusher::Flusher;
use crate::queue::{Handle, Queue};
use crate::record::Record;
use crate::ring::Ring;
use crate::stats::Stats;
use crate::sync::{Arc, Ordering, Parker, thread_key};
use crate::unwind::caught;
use opentelemetry::trace::{Link, SpanContext, TraceContextExt};
use std::fmt;

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
}

impl LinkCollector {
    /// Starts a configuration, with defaults that do not depend on the environment.
    pub fn builder() -> LinkCollectorBuilder {
        LinkCollectorBuilder::new()
    }

    pub(crate) fn from_config(config: Config) -> (Self, Flusher) {
        let parker = Parker::new();
        let (queue, consumers) = Queue::new(
            config.shards,
            config.slots_per_shard,
            config.max_batch_size,
            parker.unparker().clone(),
        );
        let flusher = Flusher::new(Arc::clone(queue.queue()), consumers, parker, config);
        (Self { rings: Arc::clone(&queue.rings), queue }, flusher)
    }

    /// Gives a context to the next batch. It is read, not cloned, unless it has trace state.
    ///
    /// An invalid context (no active span, tracing off) is counted and otherwise ignored.
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
        push(&self.queue, self.ring(), context)
    }

    /// As [`push`](Self::push), for a link with attributes, which are boxed (one allocation).
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), with the link given back.
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        push_link(&self.queue, self.ring(), link)
    }

    /// As [`push`](Self::push), for the active span of the current
    /// [`Context`](opentelemetry::Context). With `tracing-opentelemetry`, an entered `tracing`
    /// span is that span.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_current(&self) -> Result<(), PushError> {
        push_current(&self.queue, self.ring())
    }

    /// As [`push`](Self::push) for each context, with one claim for as many as the shard lets
    /// through at once. Returns how many, from the first on, were taken (accepted, or counted as
    /// invalid); all others are counted as refused.
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        push_all(&self.queue, self.ring(), contexts)
    }

    /// A producer with a shard of its own choice, the next in turn: for a worker that lives long.
    pub fn producer(&self) -> Producer {
        Producer { rings: Arc::clone(&self.rings), shard: self.queue.next_shard(), queue: self.queue.clone() }
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
        Self { rings: Arc::clone(&self.rings), queue: self.queue.clone() }
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
}

impl Producer {
    /// See [`LinkCollector::push`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn push(&self, context: &SpanContext) -> Result<(), PushError> {
        push(&self.queue, self.ring(), context)
    }

    /// See [`LinkCollector::push_link`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        push_link(&self.queue, self.ring(), link)
    }

    /// See [`LinkCollector::push_current`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_current(&self) -> Result<(), PushError> {
        push_current(&self.queue, self.ring())
    }

    /// See [`LinkCollector::push_all`].
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        push_all(&self.queue, self.ring(), contexts)
    }

    #[inline(always)]
    fn ring(&self) -> &Ring<Record> {
        &self.rings[self.shard]
    }
}

impl Clone for Producer {
    fn clone(&self) -> Self {
        Self { rings: Arc::clone(&self.rings), shard: self.shard, queue: self.queue.clone() }
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
        let claim = self.ring().claim(1)?;
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

#[inline(always)]
fn push(queue: &Queue<Record>, ring: &Ring<Record>, context: &SpanContext) -> Result<(), PushError> {
    if !context.is_valid() {
        return count_invalid(ring);
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

fn push_current(queue: &Queue<Record>, ring: &Ring<Record>) -> Result<(), PushError> {
    // A thread that is ending may have lost its current context; asking for it then panics.
    let push = || opentelemetry::Context::map_current(|cx| push(queue, ring, cx.span().span_context()));
    caught(push).unwrap_or_else(|| count_invalid(ring))
}

fn push_link(queue: &Queue<Record>, ring: &Ring<Record>, link: Link) -> Result<(), RejectedLink> {
    if !link.span_context.is_valid() {
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

fn push_all(queue: &Queue<Record>, ring: &Ring<Record>, contexts: &[SpanContext]) -> usize {
    let mut rest = contexts;
    while let [next, others @ ..] = rest {
        // Between claim and publish nothing may allocate: contexts with trace state go one by one.
        // No claim gets more than the capacity, so there is no need to look further.
        let most = ring.capacity() as usize;
        let run = rest.iter().take(most).take_while(|cx| cx.is_valid() && Record::is_plain(cx)).count();
        let refused = if run == 0 {
            match push(queue, ring, next) {
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
