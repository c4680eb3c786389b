//! Link templates by source, for as many sources as there is room for (feature `cache`).

use crate::error::ConfigError;
use crate::error::within;
use crate::links::LinkTemplate;
use ahash::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, UnitWeighter};
use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

const CAPACITIES: std::ops::RangeInclusive<usize> = 1..=1 << 20;

/// Templates by key, such as the topic or the service that messages come from, made when a key is
/// first seen. Bounded: the least used ones go.
///
/// Share it by reference or `Arc`. A hit takes a shared lock on one shard of the cache, for the time of
/// a look-up; nothing waits for a template that is being made. Hashed with random keys, as names come
/// from outside. Memory: the keys and templates, and up to 29 bytes and the size of a key for each of 1.5
/// times as many, rounded up to a power of two.
///
/// Underneath is `quick_cache`: bounded, sharded, keeps what recurs when many keys pass by once, and needs
/// no thread of its own and three small crates in all, where `moka` brings expiry, listeners and weights
/// by time, for which templates have no use.
///
/// ```
/// use batchlink::links::{LinkTemplate, LinkCache, Relation};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let cx = SpanContext::new(TraceId::from(7u128), SpanId::from(1u64), TraceFlags::SAMPLED, true, TraceState::NONE);
///
/// let templates: LinkCache<String> = LinkCache::new(1000)?;
/// let template = templates.get_or_create("shop", || {
///     LinkTemplate::new(Relation::ConsumedFrom).with_source("shop", "place_order")
/// });
/// let link = template.link(&cx);
/// # assert_eq!(link.attributes.len(), 3);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
pub struct LinkCache<K> {
    templates: Cache<K, Arc<LinkTemplate>, UnitWeighter, RandomState>,
    capacity: usize,
}

impl<K: Eq + Hash> LinkCache<K> {
    /// A cache that never holds more than `capacity` templates.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming `capacity` if it is not between 1 and 1 048 576.
    pub fn new(capacity: usize) -> Result<Self, ConfigError> {
        let capacity = within("capacity", capacity, CAPACITIES)?;
        // Shards have equal room, at least for 32: as many as divide the capacity, so that it is exact.
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let most = (4 * processors).next_power_of_two().min(capacity / 32).max(1);
        let shards = 1 << most.ilog2().min(capacity.trailing_zeros());
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(capacity)
            .weight_capacity(capacity as u64)
            .build()
            .map_err(|error| ConfigError::new("capacity", capacity.to_string(), error.to_string()))?;
        let keys = RandomState::new();
        let templates = Cache::with_options(options, UnitWeighter, keys, DefaultLifecycle::default());
        Ok(Self { templates, capacity })
    }

    /// The template of this key, or the one that `create` makes for it. Two threads that miss a key at
    /// the same time both make one, and one of the two stays. If `create` panics, so does this call, and
    /// the cache is as it was.
    pub fn get_or_create<Q>(&self, key: &Q, create: impl FnOnce() -> LinkTemplate) -> Arc<LinkTemplate>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(template) = self.templates.get(key) {
            return template;
        }
        let template = Arc::new(create());
        self.templates.insert(key.to_owned(), Arc::clone(&template));
        template
    }

    /// Templates held now.
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The most that it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<K: Eq + Hash> fmt::Debug for LinkCache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cache = f.debug_struct("LinkCache");
        cache.field("len", &self.len()).field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
