//! From items that are due to a batch with its span, and from an item to its own span.

use super::Item;
use super::batch::{Batch, BatchItem, Made};
use super::keys::Part;
use super::request::Extra;
use super::run::BatchProcessor;
use super::span::{BatchSpan, ItemSpan, start_pages};
use crate::link_set::record::{Bounded, Ids};
use crate::links::{ITEM_INDEX, int};
use crate::panic::{caught, discard};
use crate::queue::progress::{Progress, Ticket};
use crate::queue::receiver::Due;
use crate::span::{OwnSpan, count_dropped_links};
use crate::stats::{Trigger, Wait};
use crate::sync::{Arc, Ordering};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Link, SpanBuilder, SpanContext, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use std::any::Any;
use std::collections::HashSet;
use std::fmt::Display;

/// What a handler panicked with.
pub(super) type Panic = Box<dyn Any + Send>;

impl<T, R, E> BatchProcessor<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Takes what is due out of the rings, and divides it if there are keys. There may be no part
    /// then: items are held until their key's batch is due, or all callers have left.
    pub(super) fn take(&mut self, Due { count, trigger }: Due) {
        let mut items = Vec::with_capacity(count as usize);
        let queue = Arc::clone(self.receiver.queue());
        let ticket = Progress::begin(&queue.progress, count);
        // `None`, which is less than any weight, after an item that is heavier than the limit: it
        // goes alone.
        let mut allowance = Some(queue.weight.limit());
        let mut wait = self.receiver.drain.take(count, |mut take| {
            while let Some(item) =
                take.next_if(|item| items.is_empty() || Some(item.weight()) <= allowance)
            {
                allowance = allowance.and_then(|left| left.checked_sub(item.weight()));
                queue.weight.remove(item.weight());
                items.push(item);
            }
        });
        let skips = self.options.skip_canceled && self.held.is_none();
        if skips && items.iter().any(Item::is_canceled) {
            items = self.without_canceled(items);
            // The oldest may be gone.
            wait.exact = false;
        }
        // Weight may have left some, and callers.
        if items.len() < count as usize {
            ticket.resize(items.len() as u32);
        }
        let ticket = Arc::new(ticket);
        if self.held.is_some() {
            return self.take_held(items, &ticket, trigger);
        }
        if items.is_empty() {
            return;
        }
        let parts = match &mut self.divide {
            None => vec![items],
            Some(divide) => divide(items),
        };
        // It is not known which part has the oldest item.
        let wait = Wait { exact: wait.exact && parts.len() == 1, ..wait };
        let part = |items| Part { items, trigger, wait, ticket: Arc::clone(&ticket) };
        self.parts = parts.into_iter().map(part).collect();
    }

    /// Holds items by their keys, and takes what is then due. Callers may leave until then.
    fn take_held(&mut self, items: Vec<Item<T, R, E>>, ticket: &Arc<Ticket>, trigger: Trigger) {
        let Some(held) = &mut self.held else { return };
        held.add(items, ticket);
        let all = matches!(trigger, Trigger::Manual | Trigger::Shutdown).then_some(trigger);
        let mut parts = held.due(self.receiver.drain.polled_at(), all);
        self.receiver.drain.held_until = held.deadline();
        self.receiver.queue().held.store(held.len() as u64, Ordering::Relaxed);
        if self.options.skip_canceled {
            for part in &mut parts {
                part.items = self.without_canceled(std::mem::take(&mut part.items));
            }
            parts.retain(|part| !part.items.is_empty());
        }
        self.parts = parts;
    }

    /// Drops the items whose callers have left, and counts them.
    fn without_canceled(&self, items: Vec<Item<T, R, E>>) -> Vec<Item<T, R, E>> {
        let (canceled, kept): (Vec<_>, _) = items.into_iter().partition(Item::is_canceled);
        for item in canceled {
            self.outcomes.canceled.fetch_add(1, Ordering::Relaxed);
            // A payload's drop may panic, and the others must be dropped, too.
            let _ = caught(|| drop(item));
        }
        kept
    }

    /// Makes a batch of the next part, and starts its span.
    pub(super) fn next_part(&mut self) -> Option<Batch<T, R, E>> {
        let Part { items, trigger, wait, ticket } = self.parts.pop_front()?;
        self.set.reserve(items.len());
        for item in &items {
            self.set.insert_bounded(&item.request);
        }
        self.number += 1;
        let queue = self.receiver.queue();
        let now = if self.options.timed { queue.trigger.clock.now() } else { 0 };
        let oldest = items.iter().filter_map(|item| item.wait(now)).max();
        let wait = oldest.map_or(wait, |bound| Wait { bound, exact: true });
        let mut links = self.set.finish_as(trigger).with_wait(wait, self.options.states_wait);
        // Of all links, before the further pages are taken.
        let (parent, current) = (links.parent(), Context::current());
        let pages = links.take_pages().named(&self.shape.name);
        let (counts, uncounted) = (links.counts(), links.uncounted());
        queue.totals.add_batch(&counts, trigger);
        self.log.check(|| queue.stats());
        let first = items.first().map(|item| &item.payload);
        let coalesced = self.coalescing.as_mut().map_or(0, |keys| keys.find(&items));
        let builder = self.shape.batch(links, self.number, coalesced, first);
        let span = match items.iter().all(|item| item.is_suppressed()) {
            true => OwnSpan::suppressed(&current),
            false => (self.start)(builder, &parent, &current),
        };
        count_dropped_links(span.context(), uncounted);
        start_pages(&self.start, pages, &span);
        enter(&items, &span.span_context(), &parent);
        let size = items.len() as u64;
        let timer = self.meter.begin(size, Some(wait.bound));
        if self.options.states_wait {
            self.meter.item_waits(items.iter().filter_map(|item| item.wait(now)));
        }
        let span = BatchSpan::new(span, size, Arc::clone(&self.outcomes), timer, ticket);
        let made = Made { counts, trigger, number: self.number, wait, at: now };
        let mut batch = Batch::new(items.into_iter(), span, made);
        if let Some(keys) = self.coalescing.as_ref().filter(|_| coalesced > 0) {
            self.outcomes.coalesced.fetch_add(coalesced as u64, Ordering::Relaxed);
            keys.coalesce(&mut batch);
        }
        Some(batch)
    }

    /// Starts the span of an item.
    pub(super) fn start_item(
        &self,
        mut item: BatchItem<T, R, E>,
        batch: &Context,
    ) -> (T, ItemSpan<R, E>) {
        let Extra { baggage, requests, .. } =
            item.extra.take().map(|extra| *extra).unwrap_or_default();
        let parent = &match baggage {
            Some(baggage) => batch.with_baggage(baggage),
            // The processor's own is not the item's.
            None if self.options.baggage && !batch.baggage().is_empty() => {
                batch.with_cleared_baggage()
            }
            None => batch.clone(),
        };
        let span = if item.suppressed {
            OwnSpan::suppressed(parent)
        } else {
            let mut builder = SpanBuilder::from_name(self.shape.item_name.clone())
                .with_attributes([KeyValue::new(ITEM_INDEX, int(item.index()))]);
            let wait = item
                .wait()
                .filter(|_| self.options.states_wait)
                .map(|wait| KeyValue::new("item.wait", wait.as_secs_f64()));
            builder.attributes.get_or_insert_default().extend(wait);
            // `with_links` would drop what the set's policy keeps.
            builder.links = match requests.is_empty() {
                true => self.set.link_to(&item.request, item.index()).map(|link| vec![link]),
                false => Some(self.links_of(&item, &requests)),
            };
            (self.start)(builder, parent, parent)
        };
        let (payload, answer) = item.into_parts();
        (payload, ItemSpan::new(span, answer))
    }

    /// Returns the links of an item that stands for others, one for each span, up to the bound.
    fn links_of(&self, item: &BatchItem<T, R, E>, others: &[Bounded]) -> Vec<Link> {
        let mut spans = HashSet::with_capacity(others.len() + 1);
        // Without a trace id contexts cannot be told apart.
        let mut is_new = |Link { span_context: cx, .. }: &Link| {
            cx.trace_id() == TraceId::INVALID || spans.insert(Ids::of(cx))
        };
        std::iter::once(&item.request)
            .chain(others)
            .filter_map(|request| self.set.link_to(request, item.index()))
            .filter(|link| is_new(link))
            .take(self.set.max_links())
            .collect()
    }

    /// Answers an item by what its handler returned, or panicked with, and ends its span.
    pub(super) fn end_item(&self, span: ItemSpan<R, E>, result: Result<Result<R, E>, Panic>)
    where
        E: Display,
    {
        match result {
            Ok(result) => span.end(Ok(result)),
            Err(panic) => {
                span.end(Err(panic.as_ref()));
                self.count_panic(panic);
            }
        }
    }

    /// Records a panic of a batch's handler.
    pub(super) fn handler_panicked(&self, span: &BatchSpan, panic: Panic) {
        span.panicked(panic.as_ref());
        self.count_panic(panic);
    }

    fn count_panic(&self, panic: Panic) {
        self.receiver.queue().totals.add_handler_panic();
        discard(panic);
    }
}

/// Enters the batch in the back links of its items, if it has a span.
fn enter<T, R, E>(items: &[Item<T, R, E>], batch: &SpanContext, parent: &Context) {
    // Without a provider the batch has its parent's context.
    if batch.span_id() == parent.span().span_context().span_id() {
        return;
    }
    for item in items.iter().filter(|item| !item.is_suppressed()) {
        if let Some(batches) = item.extra.as_ref().and_then(|extra| extra.batches.as_ref()) {
            batches.enter(batch);
        }
    }
}
