//! The counted handles through which producers reach a queue.

use crate::queue::Queue;
use crate::queue::ring::{Entry, Ring};
use crate::queue::shard::Shard;
use crate::sync::{Arc, Ordering, thread_key};
use std::ops::Deref;

/// A counted handle for producers. Dropping the last one closes the queue.
// Invariant: last-handle-closes.
pub(crate) struct Handle<T: Entry> {
    /// The queue's, here too: a push reaches its shard's word by one load less.
    rings: Arc<[Ring<T>]>,
    queue: Arc<Queue<T>>,
}

impl<T: Entry> Handle<T> {
    /// The one handle of a queue that was just made.
    pub(super) fn first(queue: Queue<T>) -> Self {
        Self { rings: Arc::clone(&queue.rings), queue: Arc::new(queue) }
    }

    /// Another handle of a queue that still has one; `None` once the last one was dropped.
    #[cfg_attr(not(feature = "processor"), expect(dead_code))]
    pub(crate) fn upgrade(queue: &Arc<Queue<T>>) -> Option<Self> {
        // Relaxed, as in `clone`: a count that is not 0 has not closed the queue.
        let count = |handles| (handles != 0).then(|| handles + 1);
        queue.handles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).ok()?;
        Some(Self { rings: Arc::clone(&queue.rings), queue: Arc::clone(queue) })
    }

    /// The queue, for a holder that does not produce.
    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        &self.queue
    }

    /// The shard at `index`, below the number of shards.
    #[inline(always)]
    pub(crate) fn shard(&self, index: usize) -> Shard<'_, T> {
        Shard { queue: &self.queue, ring: &self.rings[index] }
    }

    /// The shard of the calling thread, always the same one.
    // Invariant: one-shard-per-producer.
    #[inline(always)]
    pub(crate) fn thread_shard(&self) -> Shard<'_, T> {
        // (key / 2³²) · shards: a multiplication instead of a division.
        self.shard(((u64::from(thread_key()) * self.rings.len() as u64) >> 32) as usize)
    }
}

impl<T: Entry> Deref for Handle<T> {
    type Target = Queue<T>;

    #[inline(always)]
    fn deref(&self) -> &Queue<T> {
        &self.queue
    }
}

impl<T: Entry> Clone for Handle<T> {
    fn clone(&self) -> Self {
        // Relaxed: this handle is counted, so the count is not 0 and cannot become 0 meanwhile.
        self.queue.handles.fetch_add(1, Ordering::Relaxed);
        Self { rings: Arc::clone(&self.rings), queue: Arc::clone(&self.queue) }
    }
}

impl<T: Entry> Drop for Handle<T> {
    fn drop(&mut self) {
        // AcqRel: pairs with itself in the other handles' drops. A push through a handle happens
        // before the close by the last one, and so cannot be refused because of it.
        if self.queue.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.close();
        }
    }
}
