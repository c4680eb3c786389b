//! The builder of a collector and its flusher.

use crate::collector::LinkCollector;
use crate::collector::config::Setting;
use crate::collector::env;
use crate::collector::flush_policy::FlushPolicy;
use crate::collector::flusher::Flusher;
use crate::error::ConfigError;
use crate::link_set::LinkPolicy;
use crate::meter::MeterConfig;
use std::time::Duration;

/// Configures a [`LinkCollector`] and its [`Flusher`].
///
/// Values are checked in [`build`](Self::build). The defaults:
///
/// | field | default | allowed |
/// |---|---|---|
/// | `max_batch_size` | 128 contexts | 1 to 1 048 576 |
/// | `max_delay` | 200 ms | any, zero included |
/// | `flush_policy` | [`FlushPolicy::Delay`] | a `min_size` of 1 to `max_batch_size` |
/// | `max_links` | 128 links | 1 to 1 048 576 |
/// | `queue_capacity` | see [`with_queue_capacity`] | `max_batch_size` to 16 777 216 |
/// | `shards` | a power of two: 8 from two processors on, see [`with_shards`] | 1 to 128 |
///
/// [`with_queue_capacity`]: Self::with_queue_capacity
/// [`with_shards`]: Self::with_shards
///
/// ```
/// use batchlink::LinkCollector;
/// use std::time::Duration;
///
/// let (collector, flusher) = LinkCollector::builder()
///     .with_max_batch_size(512)
///     .with_max_delay(Duration::from_millis(50))
///     .with_queue_capacity(8192)
///     .build()?;
/// # drop((collector, flusher));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct LinkCollectorBuilder {
    pub(super) max_batch_size: Option<Setting<usize>>,
    pub(super) max_delay: Option<Duration>,
    pub(super) queue_capacity: Option<Setting<usize>>,
    pub(super) shards: Option<Setting<usize>>,
    pub(super) links: LinkPolicy,
    pub(super) meter: MeterConfig,
    pub(super) wait_times: bool,
    pub(super) flush_policy: Setting<FlushPolicy>,
}

impl LinkCollectorBuilder {
    /// Returns the defaults. Does not read the environment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the defaults, overridden by the environment. Later `with_*` calls override both.
    ///
    /// | variable | unit | as |
    /// |---|---|---|
    /// | `BATCHLINK_MAX_BATCH_SIZE` | contexts | [`with_max_batch_size`] |
    /// | `BATCHLINK_MAX_DELAY_MS` | milliseconds | [`with_max_delay`] |
    /// | `BATCHLINK_QUEUE_CAPACITY` | contexts | [`with_queue_capacity`] |
    /// | `BATCHLINK_SHARDS` | shards | [`with_shards`] |
    /// | `BATCHLINK_MAX_LINKS` | links | [`with_max_links`] |
    /// | `BATCHLINK_FLUSH_POLICY` | see below | [`with_flush_policy`] |
    /// | `OTEL_SPAN_LINK_COUNT_LIMIT` | links | its default, because the SDK cuts there |
    ///
    /// [`with_max_batch_size`]: Self::with_max_batch_size
    /// [`with_max_delay`]: Self::with_max_delay
    /// [`with_queue_capacity`]: Self::with_queue_capacity
    /// [`with_shards`]: Self::with_shards
    /// [`with_max_links`]: Self::with_max_links
    /// [`with_flush_policy`]: Self::with_flush_policy
    ///
    /// `BATCHLINK_FLUSH_POLICY` is `delay`, `immediate`, `balanced:32` with the `min_size` in
    /// contexts, or `idle_restart:5` with the time in milliseconds.
    ///
    /// A variable that is unset or empty is not used. One that begins with `BATCHLINK_` and is not
    /// in the table is logged (feature `internal-logs`).
    ///
    /// `OTEL_SPAN_LINK_COUNT_LIMIT` is used if `BATCHLINK_MAX_LINKS` is not, as the
    /// [specification](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/)
    /// says: a value that is not a whole number is logged and ignored, and with `OTEL_CONFIG_FILE`
    /// it is not read. With 0 the SDK keeps no link at all; `max_links` is then 1, its smallest
    /// value.
    ///
    /// ```
    /// let builder = batchlink::LinkCollectorBuilder::from_env()?.with_max_batch_size(64);
    /// # drop(builder);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a `BATCHLINK_` variable that is not a whole number in the allowed
    /// range, or not a policy, with its name, value and what is allowed. How values fit together is
    /// checked in [`build`](Self::build), whose error names the variable too.
    pub fn from_env() -> Result<Self, ConfigError> {
        env::read()
    }

    /// Sets the contexts that make a batch: the size trigger, and the most that one batch holds.
    ///
    /// This is no bound of its links: a batch of 4096 has up to 128 unless
    /// [`with_max_links`](Self::with_max_links) and the SDK's own limit are raised too.
    pub fn with_max_batch_size(mut self, contexts: usize) -> Self {
        self.max_batch_size = Some(contexts.into());
        self
    }

    /// Sets how long a context may wait, counted from the first pending one. Zero delivers what is
    /// pending as soon as the flusher is free.
    ///
    /// A context waits for `delay` at most, plus the time for which the handler is busy with the
    /// batches before it.
    pub fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = Some(delay);
        self
    }

    /// Sets when a batch is due beside size and delay; defaults to [`FlushPolicy::Delay`].
    ///
    /// ```
    /// use batchlink::{FlushPolicy, LinkCollector};
    ///
    /// let policy = FlushPolicy::Balanced { min_size: 0 };
    /// let error = LinkCollector::builder().with_flush_policy(policy).build().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid min_size: 0 (allowed: 1 to max_batch_size = 128)");
    /// ```
    pub fn with_flush_policy(mut self, policy: FlushPolicy) -> Self {
        self.flush_policy = policy.into();
        self
    }

    /// Returns the policy, with the name that an error gives to the field.
    #[cfg(feature = "processor")]
    pub(crate) fn flush_policy(&self) -> (&'static str, FlushPolicy) {
        let Setting { value, variable } = self.flush_policy;
        (variable.unwrap_or("flush_policy"), value)
    }

    /// Sets the delay, unless one was set before or the policy needs one.
    #[cfg(feature = "processor")]
    pub(crate) fn or_max_delay(mut self, delay: Duration) -> Self {
        if !self.flush_policy.value.waits() {
            self.max_delay.get_or_insert(delay);
        }
        self
    }

    /// Sets the most links of one batch; defaults to 128. Further contexts are counted as
    /// truncated, and the batch span says so. See [`LinkPolicy::with_max_links`] for the SDK's own
    /// limit.
    pub fn with_max_links(mut self, links: usize) -> Self {
        self.links = self.links.with_max_links(links);
        self
    }

    /// Sets how many contexts can wait, in all shards together; defaults to 1024 a shard, and to at
    /// least 2048 and four batches.
    ///
    /// **The capacity is divided among the shards, and a thread uses one of them.** Every shard has
    /// `next_power_of_two(max(queue_capacity / shards, max_batch_size))` slots of 32 bytes, and a
    /// push to a full shard is refused though others have free slots: a push that tried the others
    /// would lose its thread's order. With the defaults one thread can have 1024 contexts waiting.
    /// For a single producing thread set [`with_shards(1)`](Self::with_shards), which gives it the
    /// whole capacity.
    /// [`Stats::fullest_shard`](crate::Stats::fullest_shard) tells how near the next refusal is.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = SpanContext::new(
    /// #     TraceId::from(1), SpanId::from(1), TraceFlags::SAMPLED, false, TraceState::NONE);
    /// let builder = batchlink::LinkCollector::builder().with_queue_capacity(2048);
    /// let (collector, _flusher) = builder.with_shards(2).build()?;
    /// assert_eq!(collector.push_all(&vec![context; 2048]), 1024);
    /// let stats = collector.stats();
    /// assert_eq!((stats.fullest_shard(), stats.shard_capacity()), (1024, 1024));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_queue_capacity(mut self, contexts: usize) -> Self {
        self.queue_capacity = Some(contexts.into());
        self
    }

    /// Sets the number of rings over which producers are spread; defaults to four per processor up
    /// to 16, to one per processor beyond, and to one per 16 contexts of a batch at most. More of
    /// them mean less contention, a few more slow paths per batch, and a smaller share of the
    /// capacity for each thread.
    ///
    /// Threads take the shards in turn, by their serial number. With a power of two no two threads
    /// share a shard while another has none; with other numbers a few do.
    ///
    /// ```
    /// let error = batchlink::LinkCollector::builder().with_shards(129).build().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid shards: 129 (allowed: 1 to 128)");
    /// ```
    pub fn with_shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards.into());
        self
    }

    /// Sets how contexts become links. A bound that was set before stays, unless the policy has
    /// one.
    ///
    /// ```
    /// use batchlink::{Dedup, LinkCollector, LinkPolicy};
    ///
    /// let policy = LinkPolicy::new().with_dedup(Dedup::Off);
    /// let (collector, flusher) = LinkCollector::builder().with_link_policy(policy).build()?;
    /// # drop((collector, flusher));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_link_policy(mut self, policy: LinkPolicy) -> Self {
        self.links = policy.after(&self.links);
        self
    }

    /// Reports metrics on instruments of `meter`; [`metrics`](crate::metrics) has their table.
    ///
    /// `name` tells this collector apart from others on the same meter, as the attribute
    /// `batchlink.name`. Use each name once: of two with one name, one hides the other's counters.
    ///
    /// Pushes cost no more than without. What is counted anyway is read when metrics are
    /// collected, and the flusher records three histograms a batch. The meter keeps nothing open:
    /// the collector closes as without metrics, and its final counters are observed once more.
    ///
    /// ```
    /// use batchlink::LinkCollector;
    /// use opentelemetry::global;
    ///
    /// let meter = global::meter("inserts");
    /// let (collector, flusher) =
    ///     LinkCollector::builder().with_metrics(&meter, "inserts").build()?;
    /// # drop((collector, flusher));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    #[cfg(feature = "metrics")]
    pub fn with_metrics(
        mut self,
        meter: &opentelemetry::metrics::Meter,
        name: impl Into<opentelemetry::StringValue>,
    ) -> Self {
        self.meter = MeterConfig::new(meter, name.into().into());
        self
    }

    /// Adds to each batch span how long its oldest context has waited: `batch.oldest_wait`, in
    /// seconds, where [`LinkBatch::oldest_wait`](crate::LinkBatch::oldest_wait) knows it. Costs
    /// pushes nothing.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    /// let builder = batchlink::LinkCollector::builder().with_wait_times();
    /// let (collector, mut flusher) = builder.build()?;
    /// assert!(flusher.try_next().is_none());
    /// collector.push(&context(1))?;
    /// let attributes = flusher.try_next().expect("a context is pending").attributes();
    /// assert!(attributes.iter().any(|attribute| attribute.key.as_str() == "batch.oldest_wait"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_wait_times(mut self) -> Self {
        self.wait_times = true;
        self
    }

    /// Checks the configuration and allocates the slots. What comes later is said under
    /// [Memory](crate::guide::limits#memory).
    ///
    /// ```
    /// let builder = batchlink::LinkCollector::builder().with_queue_capacity(100);
    /// let error = builder.build().unwrap_err();
    /// let text = "invalid queue_capacity: 100 (allowed: max_batch_size = 128 to 16777216)";
    /// assert_eq!(error.to_string(), text);
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first field found outside what is allowed. A value that came from
    /// the environment is named by its variable.
    pub fn build(self) -> Result<(LinkCollector, Flusher), ConfigError> {
        Ok(LinkCollector::from_config(self.validate()?))
    }
}
