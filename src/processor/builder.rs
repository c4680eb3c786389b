//! From builder calls to a submitter and a processor.

use super::run::BatchProcessor;
use super::span::start_with;
use super::submitter::Submitter;
use super::{Item, Outcomes};
use crate::collector::LinkCollectorBuilder;
use crate::error::ConfigError;
use crate::link_set::{LinkPolicy, LinkSet};
use crate::panic::caught;
use crate::queue::receiver::Receiver;
use crate::queue::{MAX_WEIGHT, Queue};
use crate::sync::Arc;
use opentelemetry::trace::Tracer;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

/// Weighs an item.
pub(super) type Weigh<T> = std::sync::Arc<dyn Fn(&T) -> u64 + Send + Sync>;

/// Divides what was taken into batches.
pub(super) type Divide<T, R, E> = Box<dyn FnMut(Vec<Item<T, R, E>>) -> Vec<Vec<Item<T, R, E>>> + Send>;

/// Configures a [`BatchProcessor`]; made by [`BatchProcessor::builder`].
///
/// The fields and defaults of [`LinkCollectorBuilder`], and what payloads add. A slot takes the
/// payload's size and about 100 bytes.
#[must_use = "a builder does nothing until it is built"]
pub struct BatchProcessorBuilder<T, R, E> {
    name: Cow<'static, str>,
    item_name: Cow<'static, str>,
    queue: LinkCollectorBuilder,
    max_weight: Option<(u64, Weigh<T>)>,
    divide: Option<Divide<T, R, E>>,
}

impl<T, R, E> BatchProcessorBuilder<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    pub(super) fn new(name: Cow<'static, str>) -> Self {
        Self {
            name,
            item_name: "process_item".into(),
            queue: LinkCollectorBuilder::new(),
            max_weight: None,
            divide: None,
        }
    }

    /// Takes sizes, times and links from a collector's configuration, for instance from
    /// [`LinkCollectorBuilder::from_env`]. Replaces those set so far.
    pub fn with_config(mut self, config: LinkCollectorBuilder) -> Self {
        self.queue = config;
        self
    }

    /// Items that make a batch; see [`LinkCollectorBuilder::with_max_batch_size`].
    pub fn with_max_batch_size(mut self, items: usize) -> Self {
        self.queue = self.queue.with_max_batch_size(items);
        self
    }

    /// How long an item may wait; see [`LinkCollectorBuilder::with_max_delay`].
    pub fn with_max_delay(mut self, delay: Duration) -> Self {
        self.queue = self.queue.with_max_delay(delay);
        self
    }

    /// Items that can wait; see [`LinkCollectorBuilder::with_queue_capacity`].
    pub fn with_queue_capacity(mut self, items: usize) -> Self {
        self.queue = self.queue.with_queue_capacity(items);
        self
    }

    /// See [`LinkCollectorBuilder::with_shards`].
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

    /// The name of each item's own span, which [`run_each`](BatchProcessor::run_each) starts as
    /// child of the batch span; `process_item` unless told.
    pub fn with_item_span_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.item_name = name.into();
        self
    }

    /// A further trigger and bound: a batch fires as soon as the pending items weigh `weight`
    /// (bytes, tokens, rows, ... whatever `weigh` gives), and takes no more than that, but for an
    /// item that is heavier by itself and goes alone. 1 to 2³⁸; an item counts as 2³⁸ at most.
    ///
    /// `weigh` is called in `submit`, by whoever submits.
    pub fn with_max_batch_weight(
        mut self,
        weight: u64,
        weigh: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.max_weight = Some((weight, std::sync::Arc::new(weigh)));
        self
    }

    /// One batch per key, for instance per destination: what a trigger takes is divided by `key`,
    /// in order of each key's first item, and every part is a batch with its own span and its own
    /// call of the handler.
    ///
    /// Size, weight and delay are those of all keys together, so the parts are smaller than
    /// that. Where each key must fill batches of its own, give each a processor. An item for which
    /// `key`, or its `Hash` or `Eq`, panics gets a batch to itself.
    pub fn with_key<K: Hash + Eq + Send + 'static>(
        mut self,
        mut key: impl FnMut(&T) -> K + Send + 'static,
    ) -> Self {
        let mut places: HashMap<K, usize> = HashMap::new();
        self.divide = Some(Box::new(move |items| {
            let mut parts: Vec<Vec<Item<T, R, E>>> = Vec::new();
            for item in items {
                // Keys are hashed, compared and dropped by the user's code.
                let place = caught(|| *places.entry(key(&item.payload)).or_insert(parts.len()));
                match place.and_then(|place| parts.get_mut(place)) {
                    Some(part) => part.push(item),
                    None => parts.push(vec![item]),
                }
            }
            let _ = caught(|| places.clear());
            parts
        }));
        self
    }

    /// Checks the configuration and allocates the queue. Batch and item spans are started with
    /// `tracer`; keep its provider alive as long as the processor.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first field found outside what is allowed.
    #[expect(clippy::type_complexity)]
    pub fn build<Tr>(self, tracer: Tr) -> Result<(Submitter<T, R, E>, BatchProcessor<T, R, E>), ConfigError>
    where
        Tr: Tracer + Send + Sync + 'static,
        Tr::Span: Send + Sync + 'static,
    {
        let config = self.queue.validate()?;
        let (max_weight, weigh) = self.max_weight.unzip();
        if let Some(weight) = max_weight.filter(|weight| !(1..=MAX_WEIGHT).contains(weight)) {
            return Err(ConfigError::new(
                "max_batch_weight",
                weight.to_string(),
                format!("1 to {MAX_WEIGHT}"),
            ));
        }
        let (queue, consumers) =
            Queue::new(config.shards, config.slots_per_shard, config.max_batch_size, max_weight.unwrap_or(0));
        let outcomes = Arc::new(Outcomes::default());
        let receiver =
            Receiver::new(Arc::clone(queue.queue()), consumers, config.max_batch_size, config.max_delay);
        let set = LinkSet::new(config.links, config.max_batch_size as usize);
        let processor = BatchProcessor::new(
            receiver,
            set,
            start_with(tracer),
            self.divide,
            (self.name, self.item_name),
            Arc::clone(&outcomes),
        );
        Ok((Submitter::new(queue, outcomes, weigh), processor))
    }
}

impl<T, R, E> fmt::Debug for BatchProcessorBuilder<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchProcessorBuilder")
            .field("name", &self.name)
            .field("queue", &self.queue)
            .field("max_batch_weight", &self.max_weight.as_ref().map(|(weight, _)| weight))
            .finish_non_exhaustive()
    }
}
