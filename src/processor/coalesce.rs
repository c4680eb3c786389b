//! One piece of work for all items of a batch that have the same key.
//!
//! [`Coalescing`] finds the first item of each key when a batch is made. The others leave their
//! payloads, and their callers join the answer of the first.

use super::answer::{CallError, CallResult, send};
use super::batch::{Batch, BatchItem};
use super::builder::BatchProcessorBuilder;
use super::failure::Failure;
use super::keys::{KeyMap, Keys};
use super::reply::Caller;
use super::span::BatchSpan;
use super::{Answer, Item};
use crate::panic::caught;
use std::hash::Hash;
use std::mem::take;

/// Clones a reply, which is user code.
pub(super) type CloneReply<R, E> = fn(&CallResult<R, E>) -> CallResult<R, E>;

/// Finds the items of a batch that have the same key.
pub(super) struct Coalescing<T, R, E> {
    keys: Box<dyn Keys<T>>,
    /// For each item of the batch, the place of its key among all keys.
    places: Vec<usize>,
    distinct: usize,
    copy: CloneReply<R, E>,
}

impl<T, R, E> Coalescing<T, R, E> {
    /// Looks for the keys of a batch. Returns how many items have the key of an earlier one.
    pub(super) fn find(&mut self, items: &[Item<T, R, E>]) -> usize {
        self.places.clear();
        self.distinct = 0;
        for item in items {
            let new = self.distinct as u64;
            // An item whose key panics stands alone.
            let place = self.keys.id(&item.payload, new).unwrap_or(new);
            self.distinct += usize::from(place == new);
            self.places.push(place as usize);
        }
        self.keys.clear();
        items.len() - self.distinct
    }

    /// Leaves the first item of each key that was found, in order.
    pub(super) fn coalesce(&self, batch: &mut Batch<T, R, E>) {
        let mut kept: Vec<BatchItem<T, R, E>> = Vec::with_capacity(self.distinct);
        for (mut item, &place) in take(&mut batch.items).into_iter().zip(&self.places) {
            match kept.get_mut(place) {
                Some(first) => first.join(item, self.copy),
                None => {
                    item.index = kept.len();
                    kept.push(item);
                }
            }
        }
        batch.items = kept;
    }
}

impl<T, R, E> BatchItem<T, R, E> {
    /// Takes over the caller of an item of the same key, and drops its payload.
    fn join(&mut self, item: Self, copy: CloneReply<R, E>) {
        self.wait = self.wait.max(item.wait);
        self.suppressed &= item.suppressed;
        self.extra.get_or_insert_default().requests.push(item.request);
        self.answer.join(item.answer, copy);
        let _ = caught(|| drop(item.payload));
    }
}

/// Where an answer goes.
#[derive(Default)]
pub(super) enum Callers<R, E> {
    /// The item was only submitted.
    #[default]
    None,
    One(Caller<R, E>),
    Many(Box<Group<R, E>>),
}

/// Items of one key. Dropped without an answer, its callers get `Closed`.
pub(super) struct Group<R, E> {
    items: u64,
    /// Those of the items that were not only submitted, in order.
    callers: Vec<Caller<R, E>>,
    copy: CloneReply<R, E>,
}

impl<R, E> Callers<R, E> {
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Self::None => false,
            Self::One(caller) => caller.is_awaited(),
            Self::Many(group) => group.callers.iter().any(Caller::is_awaited),
        }
    }
}

impl<R, E> From<Option<Caller<R, E>>> for Callers<R, E> {
    fn from(caller: Option<Caller<R, E>>) -> Self {
        caller.map_or(Self::None, Self::One)
    }
}

impl<R, E> Answer<R, E> {
    /// Takes over the caller of another item.
    fn join(&mut self, mut other: Self, copy: CloneReply<R, E>) {
        let group = match &mut self.callers {
            Callers::Many(group) => group,
            callers => {
                let mut group = Box::new(Group { items: 0, callers: Vec::new(), copy });
                group.add(take(callers));
                *callers = Callers::Many(group);
                return self.join(other, copy);
            }
        };
        group.add(take(&mut other.callers));
        // It has nothing more to answer.
        other.span = None;
    }
}

impl<R, E> Group<R, E> {
    fn add(&mut self, callers: Callers<R, E>) {
        self.items += 1;
        if let Callers::One(caller) = callers {
            self.callers.push(caller);
        }
    }

    /// Counts each item, then answers its caller. The last one that waits gets `reply` itself, and
    /// the others get copies.
    pub(super) fn answer(
        self,
        reply: CallResult<R, E>,
        span: &BatchSpan,
        why: impl FnOnce(&CallError<E>) -> Failure,
    ) {
        let Self { items, mut callers, copy } = self;
        // A caller that has left needs no copy, and its drop has nothing to say.
        callers.retain(Caller::is_awaited);
        let mut why = Some(why);
        let mut count = |reply: &CallResult<R, E>| match reply {
            Ok(_) => span.succeed(),
            // Only the first of a batch has to say why.
            Err(error) => span.fail(|| why.take().map_or(Failure::of(error), |why| why(error))),
        };
        let last = callers.pop();
        let waiting = callers.len() + usize::from(last.is_some());
        (waiting as u64..items).for_each(|_| count(&reply));
        for caller in callers {
            let copy = caught(|| copy(&reply));
            match (&copy, &reply) {
                (None, Ok(_)) => span.fail(|| Failure::of(&CallError::<E>::ClonePanicked)),
                _ => count(&reply),
            }
            send(Some(caller), copy.unwrap_or(Err(CallError::ClonePanicked)));
        }
        if last.is_some() {
            count(&reply);
        }
        send(last, reply);
    }
}

impl<T, R, E> BatchProcessorBuilder<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Coalesces the items of a batch that have the same `key`: the handler gets the first of them,
    /// and its answer is cloned for the callers of all. For many requests for the same row, or the
    /// same embedding.
    ///
    /// **`key` must have all that the answer depends on**, a tenant or a user's rights included:
    /// callers with equal keys get the same answer, and the other items' payloads are dropped
    /// before the handler is called.
    ///
    /// Every item counts, for size, weight and queue capacity and in all counters, and has its own
    /// link. [`Batch::len`] is the number of keys. The number of items that share the answer of
    /// another is [`ProcessorStats::coalesced`](super::ProcessorStats::coalesced) and, unless it is
    /// 0, `batch.coalesced` on the batch span. [`BatchItem`] tells what is known of the others.
    ///
    /// - **Batches:** a call that comes after its batch was taken is in the next. With
    ///   [`with_key`](Self::with_key) or [`with_key_batches`](Self::with_key_batches), items are
    ///   coalesced within the batch of a key.
    /// - **Errors** are cloned, too. One that is not `Clone` can be wrapped in an
    ///   [`Arc`](std::sync::Arc), which is an error as well, and so can a large result.
    /// - **Callers that left** get no clone. With [`with_skip_canceled`](Self::with_skip_canceled)
    ///   the first item that is left is the one that is handled.
    /// - **Panics:** an item for which `key`, or its `Hash` or `Eq`, panics stands alone. If the
    ///   clone for a caller panics, that one gets
    ///   [`CallError::ClonePanicked`](super::CallError::ClonePanicked), and its item has failed.
    ///
    /// Costs a hash of each item's key, a few allocations per shared answer, and a clone of it for
    /// each further caller.
    ///
    /// ```
    /// use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// let (submitter, mut processor) = BatchProcessor::<u64, String, String>::builder("load")
    ///     .with_max_batch_size(3)
    ///     .with_coalescing(|id| *id)
    ///     .build(NoopTracer::new())?;
    /// for id in [7, 8, 7] {
    ///     submitter.submit(id)?;
    /// }
    /// let batch = processor.next_batch().expect("three items");
    /// assert_eq!(batch.payloads().collect::<Vec<_>>(), [&7, &8]);
    /// assert_eq!(batch.counts().received, 3);
    /// batch.succeed_all(|id| format!("row {id}"));
    /// assert_eq!((submitter.stats().succeeded(), submitter.stats().coalesced()), (3, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_coalescing<K: Hash + Eq + Send + 'static>(
        mut self,
        key: impl FnMut(&T) -> K + Send + 'static,
    ) -> Self
    where
        R: Clone,
        E: Clone,
    {
        self.coalescing = Some(Coalescing {
            keys: Box::new(KeyMap::new(key)),
            places: Vec::new(),
            distinct: 0,
            copy: Clone::clone,
        });
        self
    }
}
