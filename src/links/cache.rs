//! A bounded cache of link templates by source (feature `cache`).

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

/// A bounded cache of templates by key, such as the topic or service that messages come from. A
/// template is made when its key is first seen; the least used ones are evicted.
///
/// Share it by reference or `Arc`. A hit takes a shared lock on one shard of the cache, for the
/// time of a look-up. No call waits for a template that is being made. Keys are hashed with random
/// keys, as names come from outside.
///
/// Memory: the keys and templates, and up to 29 bytes and the size of a key for each of 1.5 times
/// as many, rounded up to a power of two.
///
/// ```
/// use batchlink::links::{LinkTemplate, LinkCache, Relation};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let cx = SpanContext::new(
/// #     TraceId::from(7u128), SpanId::from(1u64), TraceFlags::SAMPLED, true, TraceState::NONE);
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
    /// Returns a cache of at most `capacity` templates.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming `capacity` if it is not between 1 and 1 048 576.
    ///
    /// ```
    /// let error = batchlink::links::LinkCache::<String>::new(0).unwrap_err();
    /// assert_eq!(error.to_string(), "invalid capacity: 0 (allowed: 1 to 1048576)");
    /// ```
    pub fn new(capacity: usize) -> Result<Self, ConfigError> {
        let capacity = within("capacity", capacity, CAPACITIES)?;
        // Shards hold equally many, at least 32: as many shards as divide the capacity, so that it
        // is exact.
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let most = (4 * processors).next_power_of_two().min(capacity / 32).max(1);
        let shards = 1 << most.ilog2().min(capacity.trailing_zeros());
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(capacity)
            .weight_capacity(capacity as u64)
            .build()
            .map_err(|error| {
                ConfigError::new("capacity", capacity.to_string(), error.to_string())
            })?;
        let keys = RandomState::new();
        let templates =
            Cache::with_options(options, UnitWeighter, keys, DefaultLifecycle::default());
        Ok(Self { templates, capacity })
    }

    /// Returns the template of this key, or makes it by `create`. Two threads that miss a key at
    /// the same time both make one, and one of the two stays. If `create` panics, so does this
    /// call, and the cache is unchanged.
    pub fn get_or_create<Q>(
        &self,
        key: &Q,
        create: impl FnOnce() -> LinkTemplate,
    ) -> Arc<LinkTemplate>
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

    /// Returns the number of templates held.
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// Returns whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// Returns the most templates that it holds.
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
