//! From builder calls to a collector and its flusher.

use crate::collector::LinkCollector;
use crate::collector::config::{BATCH_SIZES, MAX_SLOTS, read_env};
use crate::collector::flusher::Flusher;
use crate::error::ConfigError;
use crate::link_set::{LinkPolicy, MAX_LINKS};
use crate::queue::trigger::MAX_SHARDS;
use std::time::Duration;

/// Configures a [`LinkCollector`] and its [`Flusher`].
///
/// Values are checked in [`build`](Self::build); until then anything may be set. The defaults:
///
/// | field | default | allowed |
/// |---|---|---|
/// | `max_batch_size` | 128 contexts | 1 to 1 048 576 |
/// | `max_delay` | 200 ms | any, zero included |
/// | `max_links` | 128 links | 1 to 1 048 576 |
/// | `queue_capacity` | 2048 contexts, at least 4 batches | `max_batch_size` to 16 777 216 |
/// | `shards` | available parallelism, at most `max_batch_size` / 16 | 1 to 128 |
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct LinkCollectorBuilder {
    pub(super) max_batch_size: Option<usize>,
    pub(super) max_delay: Option<Duration>,
    pub(super) queue_capacity: Option<usize>,
    pub(super) shards: Option<usize>,
    pub(super) links: LinkPolicy,
}

impl LinkCollectorBuilder {
    /// The defaults, without a look at the environment.
    pub fn new() -> Self {
        Self::default()
    }

    /// The defaults, overridden by the environment; later `with_*` calls override both.
    ///
    /// | variable | unit | as |
    /// |---|---|---|
    /// | `BATCHLINK_MAX_BATCH_SIZE` | contexts | [`with_max_batch_size`](Self::with_max_batch_size) |
    /// | `BATCHLINK_MAX_DELAY_MS` | milliseconds | [`with_max_delay`](Self::with_max_delay) |
    /// | `BATCHLINK_QUEUE_CAPACITY` | contexts | [`with_queue_capacity`](Self::with_queue_capacity) |
    /// | `BATCHLINK_SHARDS` | shards | [`with_shards`](Self::with_shards) |
    /// | `BATCHLINK_MAX_LINKS` | links | [`with_max_links`](Self::with_max_links) |
    /// | `OTEL_SPAN_LINK_COUNT_LIMIT` | links | its default, as the SDK would cut there anyway; read only if the one above is not used |
    ///
    /// A variable that is unset, or empty (as OpenTelemetry's specification has it), is not used.
    ///
    /// # Errors
    ///
    /// A variable that is no whole number in the allowed range, with its name, value and range.
    /// How values fit together is checked in [`build`](Self::build).
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut builder = Self {
            max_batch_size: read_env("BATCHLINK_MAX_BATCH_SIZE", BATCH_SIZES)?,
            max_delay: read_env("BATCHLINK_MAX_DELAY_MS", 0..=u64::MAX)?.map(Duration::from_millis),
            queue_capacity: read_env("BATCHLINK_QUEUE_CAPACITY", 1..=MAX_SLOTS)?,
            shards: read_env("BATCHLINK_SHARDS", 1..=MAX_SHARDS)?,
            links: LinkPolicy::default(),
        };
        if let Some(own) = read_env("BATCHLINK_MAX_LINKS", 1..=MAX_LINKS)? {
            builder.links.max_links = Some(own);
        } else if let Some(sdk) = read_env("OTEL_SPAN_LINK_COUNT_LIMIT", 1..=u32::MAX)? {
            builder.links.max_links = Some(MAX_LINKS.min(sdk as usize));
        }
        Ok(builder)
    }

    /// Contexts that make a batch: the size trigger, and the most that one batch holds.
    pub fn with_max_batch_size(mut self, contexts: usize) -> Self {
        self.max_batch_size = Some(contexts);
        self
    }

    /// How long a context may wait, counted from the first pending one. Zero: deliver whatever is
    /// there as soon as it is there.
    pub fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = Some(delay);
        self
    }

    /// The most links of one batch; further contexts are counted as truncated, and the batch span
    /// says so. The SDK cuts at 128 (`OTEL_SPAN_LINK_COUNT_LIMIT`) on its own, so raise that too
    /// if you raise this.
    pub fn with_max_links(mut self, links: usize) -> Self {
        self.links = self.links.with_max_links(links);
        self
    }

    /// Contexts that can wait, all shards together. Rounded up: every shard has
    /// `next_power_of_two(max(queue_capacity / shards, max_batch_size))` slots of 32 bytes.
    pub fn with_queue_capacity(mut self, contexts: usize) -> Self {
        self.queue_capacity = Some(contexts);
        self
    }

    /// Rings among which producers are spread. More of them means less contention and a few more
    /// slow paths per batch.
    pub fn with_shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Sets how contexts become links. A bound that was set before stays, unless the policy has one.
    pub fn with_link_policy(mut self, policy: LinkPolicy) -> Self {
        self.links = policy.after(&self.links);
        self
    }

    /// Checks the configuration and allocates all memory that the collector will use.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first field found outside what is allowed.
    pub fn build(self) -> Result<(LinkCollector, Flusher), ConfigError> {
        Ok(LinkCollector::from_config(self.validate()?))
    }
}
