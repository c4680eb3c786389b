//! De-duplication, bound and counters, as different people would write them. All with one result:
//! the first [`MAX_LINKS`] different contexts, in order; what comes after is a duplicate if it is
//! linked, and truncated if not.

use crate::contest::{Batch, Counts, MAX_LINKS};
use crate::items::{Item, Key};
use ahash::RandomState;
use opentelemetry::trace::Link;
use std::hash::{BuildHasher, Hasher};
use std::iter;

pub trait Dedup: Send + 'static {
    fn new(batch: usize) -> Self;
    fn insert(&mut self, item: impl Item);
    fn received(&self) -> usize;
    fn finish(&mut self) -> Batch;
}

/// A set of keys; says whether the key is new, and remembers it if there is room.
pub trait KeySet: Send + 'static {
    fn with_capacity(keys: usize) -> Self;
    fn insert(&mut self, key: Key) -> bool;
    fn contains(&self, key: &Key) -> bool;
    fn clear(&mut self);
}

/// Set of keys and `Vec` of links; the set's memory is kept between batches.
pub struct SetDedup<S> {
    seen: S,
    links: Vec<Link>,
    counts: Counts,
    most: usize,
}

/// The usual good one: an ahash set, keyed because trace ids come from the network.
pub type HashDedup = SetDedup<std::collections::HashSet<Key, RandomState>>;

macro_rules! key_set {
    ($($set:ty),*) => {$(
        impl KeySet for $set {
            fn with_capacity(keys: usize) -> Self {
                <$set>::with_capacity_and_hasher(keys, Default::default())
            }

            #[inline(always)]
            fn insert(&mut self, key: Key) -> bool {
                self.insert(key)
            }

            #[inline(always)]
            fn contains(&self, key: &Key) -> bool {
                self.contains(key)
            }

            fn clear(&mut self) {
                self.clear();
            }
        }
    )*};
}
key_set!(
    std::collections::HashSet<Key, RandomState>,
    std::collections::HashSet<Key>,
    hashbrown::HashSet<Key>,
    indexmap::IndexSet<Key, RandomState>
);

impl<S: KeySet> Dedup for SetDedup<S> {
    fn new(batch: usize) -> Self {
        let most = batch.min(MAX_LINKS);
        Self {
            seen: S::with_capacity(most),
            links: Vec::with_capacity(most),
            counts: Counts::default(),
            most,
        }
    }

    #[inline(always)]
    fn insert(&mut self, item: impl Item) {
        self.counts.received += 1;
        if self.links.len() == MAX_LINKS {
            match self.seen.contains(&item.key()) {
                true => self.counts.duplicates += 1,
                false => self.counts.truncated += 1,
            }
        } else if self.seen.insert(item.key()) {
            self.counts.linked += 1;
            self.links.push(item.into_link());
        } else {
            self.counts.duplicates += 1;
        }
    }

    fn received(&self) -> usize {
        self.counts.received as usize
    }

    fn finish(&mut self) -> Batch {
        self.seen.clear();
        let links = std::mem::replace(&mut self.links, Vec::with_capacity(self.most));
        Batch { links, counts: std::mem::take(&mut self.counts) }
    }
}

/// Takes everything and leaves the cut to the SDK. Not the same result.
#[derive(Default)]
pub struct KeepAll(Vec<Link>);

impl Dedup for KeepAll {
    fn new(_batch: usize) -> Self {
        Self::default()
    }

    #[inline(always)]
    fn insert(&mut self, item: impl Item) {
        self.0.push(item.into_link());
    }

    fn received(&self) -> usize {
        self.0.len()
    }

    fn finish(&mut self) -> Batch {
        let received = self.0.len() as u64;
        let counts = Counts { received, linked: received, ..Counts::default() };
        Batch { links: std::mem::take(&mut self.0), counts }
    }
}

/// What many write first: a new std set (SipHash) for every batch.
pub struct FreshDedup(SetDedup<std::collections::HashSet<Key>>);

impl Dedup for FreshDedup {
    fn new(batch: usize) -> Self {
        Self(SetDedup::new(batch))
    }

    #[inline(always)]
    fn insert(&mut self, item: impl Item) {
        self.0.insert(item);
    }

    fn received(&self) -> usize {
        self.0.received()
    }

    fn finish(&mut self) -> Batch {
        let batch = self.0.finish();
        self.0.seen = Default::default();
        batch
    }
}

/// The dedup of [`batchlink::LinkSet`], written again without its extras (policies, validity): an
/// index table, at most a quarter full, whose links are built in place. For the floor.
pub struct IndexDedup {
    table: Box<[u32]>,
    links: Vec<Link>,
    hasher: RandomState,
    counts: Counts,
    most: usize,
}

impl Dedup for IndexDedup {
    fn new(batch: usize) -> Self {
        let most = batch.min(MAX_LINKS);
        Self {
            table: vec![0; (4 * most).next_power_of_two().max(8)].into(),
            links: Vec::with_capacity(most),
            hasher: RandomState::new(),
            counts: Counts::default(),
            most,
        }
    }

    #[inline(always)]
    fn insert(&mut self, item: impl Item) {
        self.counts.received += 1;
        let key = item.key();
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u128(key.0);
        hasher.write_u64(key.1);
        let hash = hasher.finish();
        let mask = self.table.len() - 1;
        let tag = hash as u32 & !(mask as u32);
        let mut slot = (hash >> 32) as usize & mask;
        loop {
            let found = self.table[slot];
            if found == 0 {
                break;
            }
            let index = (found & mask as u32) as usize;
            if found & !(mask as u32) == tag && self.links[index - 1].key() == key {
                self.counts.duplicates += 1;
                return;
            }
            slot = (slot + 1) & mask;
        }
        if self.links.len() == MAX_LINKS {
            self.counts.truncated += 1;
            return;
        }
        self.counts.linked += 1;
        // Written in place, as `push` would not.
        self.links.extend(iter::once_with(|| item.into_link()));
        self.table[slot] = tag | self.links.len() as u32;
    }

    fn received(&self) -> usize {
        self.counts.received as usize
    }

    fn finish(&mut self) -> Batch {
        self.table.fill(0);
        let links = std::mem::replace(&mut self.links, Vec::with_capacity(self.most));
        Batch { links, counts: std::mem::take(&mut self.counts) }
    }
}
