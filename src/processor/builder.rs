//! The configuration of a processor.

use super::Outcomes;
use super::coalesce::Coalescing;
use super::keys::{Divide, Held, Keys, Limits, divide_by};
use super::options::Options;
use super::run::BatchProcessor;
use super::span::{Shape, start_with};
use super::submitter::Submitter;
use crate::collector::{Config, LinkCollectorBuilder};
use crate::error::{ConfigError, within};
use crate::link_set::{LinkPolicy, LinkSet};
use crate::queue::receiver::Receiver;
use crate::queue::{MAX_WEIGHT, Queue};
use crate::sync::Arc;
use opentelemetry::trace::Tracer;
use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Returns the weight of an item.
pub(super) type Weigh<T> = std::sync::Arc<dyn Fn(&T) -> u64 + Send + Sync>;

/// Configures a [`BatchProcessor`]; made by [`BatchProcessor::builder`].
///
/// It has the fields and defaults of [`LinkCollectorBuilder`] except for `max_delay`, which
/// defaults to zero ([`with_max_delay`](Self::with_max_delay) says why). A slot of the queue takes
/// the size of the payload and about 100 bytes.
///
/// ```
/// use batchlink::processor::{BatchProcessor, BatchProcessorBuilder};
/// # use opentelemetry::trace::noop::NoopTracer;
///
/// # let tracer = NoopTracer::new();
/// let uploads: BatchProcessorBuilder<Vec<u8>, (), String> = BatchProcessor::builder("upload")
///     .with_max_batch_size(100)
///     .with_max_batch_weight(1 << 20, |bytes: &Vec<u8>| bytes.len() as u64)
///     .with_queue_capacity(400);
/// let (submitter, processor) = uploads.build(tracer)?;
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct BatchProcessorBuilder<T, R, E> {
    pub(super) shape: Shape<T>,
    pub(super) queue: LinkCollectorBuilder,
    max_weight: Option<(u64, Weigh<T>)>,
    pub(super) divide: Option<Divide<T, R, E>>,
    pub(super) keys: Option<Box<dyn Keys<T>>>,
    pub(super) coalescing: Option<Coalescing<T, R, E>>,
    pub(super) options: Options,
}

/// Each wake-up of the task polls all of its handlers.
const CONCURRENT_BATCHES: RangeInclusive<usize> = 1..=1024;

impl<T, R, E> BatchProcessorBuilder<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    pub(super) fn new(name: Cow<'static, str>) -> Self {
        Self {
            shape: Shape::new(name),
            queue: LinkCollectorBuilder::new(),
            max_weight: None,
            divide: None,
            keys: None,
            coalescing: None,
            options: Options::default(),
        }
    }

    /// Takes sizes, delay and links from a collector's configuration, for instance from
    /// [`LinkCollectorBuilder::from_env`]. Replaces those set before.
    pub fn with_config(mut self, config: LinkCollectorBuilder) -> Self {
        self.queue = config;
        self
    }

    /// Sets how many items fill a batch; see [`LinkCollectorBuilder::with_max_batch_size`].
    pub fn with_max_batch_size(mut self, items: usize) -> Self {
        self.queue = self.queue.with_max_batch_size(items);
        self
    }

    /// Sets how long an item may wait for others before its batch is due. Defaults to zero.
    ///
    /// With zero a batch is everything that was submitted while the last one was processed, up to
    /// its size and weight. Under load batches grow by themselves, and without load no caller waits
    /// for items that do not come. With a delay every caller of a batch that is not full waits that
    /// long, even if all of them wait already. Set one where items are submitted and not waited
    /// for, and fewer, larger batches are worth it. See [`LinkCollectorBuilder::with_max_delay`].
    pub fn with_max_delay(mut self, delay: Duration) -> Self {
        self.queue = self.queue.with_max_delay(delay);
        self
    }

    /// Sets how many items can wait, all shards together. One thread or
    /// [`producer`](Submitter::producer) uses one shard; see
    /// [`LinkCollectorBuilder::with_queue_capacity`].
    pub fn with_queue_capacity(mut self, items: usize) -> Self {
        self.queue = self.queue.with_queue_capacity(items);
        self
    }

    /// Sets the number of shards; see [`LinkCollectorBuilder::with_shards`].
    pub fn with_shards(mut self, shards: usize) -> Self {
        self.queue = self.queue.with_shards(shards);
        self
    }

    /// See [`LinkCollectorBuilder::with_max_links`]. Items over the bound are processed like any
    /// other, they only have no link.
    pub fn with_max_links(mut self, links: usize) -> Self {
        self.queue = self.queue.with_max_links(links);
        self
    }

    /// Sets how contexts become links; see [`LinkCollectorBuilder::with_link_policy`]. Concerns the
    /// links, not the items: all of them are processed.
    pub fn with_link_policy(mut self, policy: LinkPolicy) -> Self {
        self.queue = self.queue.with_link_policy(policy);
        self
    }

    /// Reports metrics on instruments of `meter`, those of items included; see
    /// [`LinkCollectorBuilder::with_metrics`].
    ///
    /// ```
    /// use batchlink::processor::BatchProcessor;
    /// use opentelemetry::global;
    ///
    /// let builder = BatchProcessor::<u64, (), String>::builder("send")
    ///     .with_metrics(&global::meter("mail"), "send");
    /// let (submitter, processor) = builder.build(global::tracer("mail"))?;
    /// # drop((submitter, processor));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    #[cfg(feature = "metrics")]
    pub fn with_metrics(
        mut self,
        meter: &opentelemetry::metrics::Meter,
        name: impl Into<opentelemetry::StringValue>,
    ) -> Self {
        self.queue = self.queue.with_metrics(meter, name);
        self
    }

    /// Sets the name of each item's own span, which [`run_each`](BatchProcessor::run_each) starts
    /// as a child of the batch span. Defaults to `process_item`.
    pub fn with_item_span_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.shape.item_name = name.into();
        self
    }

    /// Adds a trigger and a bound: a batch is due as soon as the pending items weigh `weight`, and
    /// takes no more than that. An item that is heavier gets a batch to itself.
    ///
    /// `weigh` returns the weight of an item in a unit of your own (bytes, tokens, rows). It is
    /// called when the item is submitted, by the submitting thread. An item counts as 2³⁸ at most,
    /// and an item for which `weigh` panics counts as 2³⁸: it is accepted, and gets a batch to
    /// itself. `weight` can be 1 to 2³⁸; others are an error of [`build`](Self::build).
    pub fn with_max_batch_weight(
        mut self,
        weight: u64,
        weigh: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.max_weight = Some((weight, std::sync::Arc::new(weigh)));
        self
    }

    /// Makes one batch per key, for instance per destination. The items of a trigger are divided by
    /// `key`, in order of each key's first item, and each part is a batch with its own span and its
    /// own call of the handler. [`with_span_attributes`](Self::with_span_attributes) puts the key
    /// on the span.
    ///
    /// Size, weight and delay are those of all keys together, so the parts are smaller. With
    /// [`with_key_batches`](Self::with_key_batches) each key fills batches of its own; the later
    /// call of the two counts. An item for which `key`, or its `Hash` or `Eq`, panics gets a batch
    /// to itself.
    pub fn with_key<K: Hash + Eq + Send + 'static>(
        mut self,
        key: impl FnMut(&T) -> K + Send + 'static,
    ) -> Self {
        self.divide = Some(divide_by(key));
        self.keys = None;
        self
    }

    /// Checks the configuration and allocates the queue. Batch and item spans are started with
    /// `tracer`; keep its provider alive as long as the processor.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first field whose value is not allowed:
    ///
    /// ```
    /// use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// let builder = BatchProcessor::<u32, (), String>::builder("send").with_max_batch_size(0);
    /// let error = builder.build(NoopTracer::new()).unwrap_err();
    /// assert_eq!(error.to_string(), "invalid max_batch_size: 0 (allowed: 1 to 1048576)");
    /// ```
    #[expect(clippy::type_complexity)]
    pub fn build<Tr>(
        self,
        tracer: Tr,
    ) -> Result<(Submitter<T, R, E>, BatchProcessor<T, R, E>), ConfigError>
    where
        Tr: Tracer + Send + Sync + 'static,
        Tr::Span: Send + Sync + 'static,
    {
        let (config, limits) = self.validate()?;
        let (max_weight, weigh) = self.max_weight.unzip();
        let rules = if limits.is_some() { Limits::queue_rules() } else { config.rules() };
        let held = self.keys.zip(limits).map(|(keys, limits)| Held::new(keys, limits));
        let queue_weight = if held.is_some() { 0 } else { max_weight.unwrap_or(0) };
        let timed = config.wait_times || held.is_some();
        let options = Options { timed, states_wait: config.wait_times, ..self.options };
        let (queue, consumers) =
            Queue::new(config.shards, config.slots_per_shard, rules.threshold(), queue_weight);
        let outcomes = Arc::new(Outcomes::default());
        let receiver = Receiver::new(Arc::clone(queue.queue()), consumers, rules);
        let submitter = Submitter::new(queue, outcomes, weigh, options);
        let meter = config.meter.start(|| submitter.stats_handle());
        let set = LinkSet::new(config.links, config.max_batch_size as usize);
        let mut processor = BatchProcessor::new(
            receiver,
            set,
            start_with(tracer),
            self.divide,
            (options, self.shape),
            Arc::clone(&submitter.inner.outcomes),
            meter,
        );
        processor.held = held;
        processor.coalescing = self.coalescing;
        Ok((submitter, processor))
    }

    /// Checks the configuration, and builds nothing.
    #[cfg(feature = "tower")]
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.validate().map(drop)
    }

    /// Checks the configuration, and returns the queue's and the limits of each key.
    fn validate(&self) -> Result<(Config, Option<Limits>), ConfigError> {
        let policy = self.queue.flush_policy();
        let config = self.queue.clone().or_max_delay(Duration::ZERO).validate()?;
        let max_weight = self.max_weight.as_ref().map(|(weight, _)| *weight);
        if let Some(weight) = max_weight.filter(|weight| !(1..=MAX_WEIGHT).contains(weight)) {
            return Err(ConfigError::new(
                "max_batch_weight",
                weight.to_string(),
                format!("1 to {MAX_WEIGHT}"),
            ));
        }
        let limits = match self.keys {
            None => None,
            Some(_) => Some(Limits::new(&config, max_weight, policy)?),
        };
        let batches = self.options.max_concurrent_batches;
        within("max_concurrent_batches", batches, CONCURRENT_BATCHES)?;
        Ok((config, limits))
    }
}

impl<T, R, E> fmt::Debug for BatchProcessorBuilder<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchProcessorBuilder")
            .field("name", &self.shape.name)
            .field("queue", &self.queue)
            .field("max_batch_weight", &self.max_weight.as_ref().map(|(weight, _)| weight))
            .finish_non_exhaustive()
    }
}
