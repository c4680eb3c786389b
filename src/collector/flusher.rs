//! The consumer half: blocking, async, or on a thread of its own.

use crate::collector::config::Config;
use crate::collector::handle::FlusherHandle;
use crate::collector::log::{self, RefusalLog};
use crate::error::Timeout;
use crate::link_set::LinkBatch;
use crate::link_set::LinkSet;
use crate::link_set::record::Record;
use crate::meter::{BatchMeter, BatchTimer};
use crate::panic::caught;
use crate::queue::Queue;
use crate::queue::progress::{Progress, Ticket};
use crate::queue::receiver::{Due, Receiver};
use crate::queue::ring::{Consumer, Take};
use crate::stats::{Stats, StatsHandle};
use crate::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

/// Turns what a collector was given into batches. There is one per collector.
///
/// [`spawn`](Self::spawn) gives it a thread. Otherwise take batches on a thread of your own with
/// [`next_batch`](Self::next_batch), in a task with `next` (feature `tokio`), or
/// whenever it suits you with [`try_next`](Self::try_next).
///
/// Dropping it closes the collector. Contexts still pending are then not delivered, and stay
/// visible in [`Stats::pending`].
///
/// ```
/// use batchlink::{LinkCollector, Trigger};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = |n| SpanContext::new(
/// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
///
/// let builder = LinkCollector::builder().with_max_batch_size(2);
/// let (collector, mut flusher) = builder.build()?;
/// collector.push_all(&[context(1), context(2), context(3)]);
/// drop(collector);
/// while let Some(batch) = flusher.next_batch() {
///     println!("{} links by {}", batch.linked(), batch.trigger());
/// }
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
///
/// A second consumer does not compile:
///
/// ```compile_fail,E0599
/// let (_collector, flusher) = batchlink::LinkCollector::builder().build().unwrap();
/// let _second = flusher.clone();
/// ```
///
/// Nor does taking a batch without `&mut`:
///
/// ```compile_fail,E0596
/// let (_collector, flusher) = batchlink::LinkCollector::builder().build().unwrap();
/// flusher.try_next();
/// ```
pub struct Flusher {
    pub(super) receiver: Receiver<Record>,
    pub(crate) set: LinkSet,
    wait_times: bool,
    /// The batch taken last, until the next is asked for.
    last: Option<Last>,
    log: RefusalLog,
    meter: BatchMeter,
}

/// A batch that was handed out.
struct Last {
    /// Before the ticket, so that the time is recorded when a flush hears of the batch.
    _timer: BatchTimer,
    _ticket: Ticket,
}

impl Flusher {
    pub(super) fn new(
        queue: Arc<Queue<Record>>,
        consumers: Vec<Consumer<Record>>,
        config: Config,
    ) -> Self {
        let rules = config.rules();
        let meter = config.meter.start(|| StatsHandle::new(Arc::clone(&queue)));
        Self {
            receiver: Receiver::new(queue, consumers, rules),
            set: LinkSet::new(config.links, config.max_batch_size as usize),
            wait_times: config.wait_times,
            last: None,
            log: RefusalLog::new(log::Consumer::Flusher),
            meter,
        }
    }

    /// Takes what is pending now, up to one batch ([`Trigger::Manual`](crate::Trigger::Manual)).
    /// Returns `None` if nothing is. Does not wait.
    ///
    /// `None` does not mean that the collector is closed; [`next_batch`](Self::next_batch) tells.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    /// let (collector, mut flusher) = batchlink::LinkCollector::builder().build()?;
    /// assert!(flusher.try_next().is_none());
    /// collector.push(&context(1))?;
    /// assert_eq!(flusher.try_next().unwrap().linked(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_next(&mut self) -> Option<LinkBatch> {
        self.finish_last();
        self.receiver.available().map(|due| self.take(due))
    }

    /// **Blocks** the thread until a batch is due. Returns `None` once the collector is closed and
    /// everything was delivered. In async code use `next` (feature `tokio`).
    pub fn next_batch(&mut self) -> Option<LinkBatch> {
        self.finish_last();
        self.receiver.wait().map(|due| self.take(due))
    }

    /// **Blocks** the thread as [`next_batch`](Self::next_batch) does, for at most `timeout`. Zero
    /// does not wait.
    ///
    /// ```
    /// use batchlink::{LinkCollector, Timeout};
    /// use std::time::Duration;
    ///
    /// let (collector, mut flusher) = LinkCollector::builder().build()?;
    /// let late = flusher.next_batch_timeout(Duration::from_millis(1));
    /// assert_eq!(late.unwrap_err(), Timeout);
    /// collector.close();
    /// assert!(flusher.next_batch_timeout(Duration::MAX)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Timeout`] if no batch was due by then. Nothing is lost by that.
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<LinkBatch>, Timeout> {
        self.finish_last();
        Ok(self.receiver.wait_timeout(timeout)?.map(|due| self.take(due)))
    }

    /// Takes what the last poll found.
    pub(super) fn take(&mut self, Due { count, trigger }: Due) -> LinkBatch {
        let ticket = Progress::begin(&self.receiver.queue().progress, count);
        let set = &mut self.set;
        set.reserve(count as usize);
        let wait =
            self.receiver.drain.take(count, |records| set.insert_records(records, Take::beside));
        let batch = self.set.finish_as(trigger).with_wait(wait, self.wait_times);
        let queue = self.receiver.queue();
        queue.totals.add_batch(&batch.counts(), trigger);
        self.log.check(|| queue.stats());
        self.last = Some(Last {
            _timer: self.meter.begin(batch.received(), batch.wait_bound()),
            _ticket: ticket,
        });
        batch
    }

    /// Asking for the next batch says that the last one is done with.
    #[inline]
    pub(super) fn finish_last(&mut self) {
        self.last = None;
    }

    /// Returns a snapshot of the counters, as
    /// [`LinkCollector::stats`](crate::LinkCollector::stats) does.
    pub fn stats(&self) -> Stats {
        self.receiver.queue().stats()
    }

    /// Starts a thread that calls `handler` with every batch until the collector is closed and
    /// everything was delivered. It is named `batchlink-flusher`, as a processor's thread is.
    ///
    /// It is a thread and not a task because an exporter that blocks would stall a small async
    /// runtime. If `handler` panics, that batch is lost, the panic is counted in
    /// [`Stats::handler_panics`], and the next batch is delivered as usual. While `handler` runs no
    /// other batch is taken, so its time adds to the delay of what comes next.
    ///
    /// A process that forks has no flusher in the child: contexts pushed there are not delivered.
    /// Build the collector after the fork.
    ///
    /// No span is current in `handler`. Attach the batch span for whatever starts spans or reads
    /// the current one, or these become roots of other traces:
    ///
    /// ```
    /// use batchlink::LinkCollector;
    /// use opentelemetry::{global, trace::mark_span_as_active};
    ///
    /// let (_collector, flusher) = LinkCollector::builder().build()?;
    /// let handle = flusher.spawn(|batch| {
    ///     let span = batch.start(&global::tracer("writer"), "insert_batch");
    ///     let _current = mark_span_as_active(span); // ends the span when it is dropped
    ///     // ... the spans of a database client are children of the batch span
    /// })?;
    /// # handle.shutdown()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// In a task, `Context::current_with_span(span)` and OpenTelemetry's `FutureExt::with_context`
    /// do the same.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the operating system has no thread to give. The collector is then closed.
    pub fn spawn(
        mut self,
        mut handler: impl FnMut(LinkBatch) + Send + 'static,
    ) -> io::Result<FlusherHandle> {
        let queue = Arc::clone(self.receiver.queue());
        FlusherHandle::spawn(queue, move || {
            while let Some(batch) = self.next_batch() {
                if caught(|| handler(batch)).is_none() {
                    self.receiver.queue().totals.add_handler_panic();
                }
            }
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.log.end(&self.stats());
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
