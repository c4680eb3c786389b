//! From items that are due to a batch with its span, and from an item to its own span.

use super::batch::{Batch, BatchItem};
use super::run::BatchProcessor;
use super::span::{BatchSpan, ItemSpan, count_dropped_links, start_pages};
use crate::links::{ITEM_INDEX, int};
use crate::panic::discard;
use crate::queue::progress::Progress;
use crate::queue::receiver::Due;
use crate::span::OwnSpan;
use crate::sync::Arc;
use opentelemetry::trace::SpanBuilder;
use opentelemetry::{Context, KeyValue};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Display;

/// What a handler panicked with.
pub(super) type Panic = Box<dyn Any + Send>;

impl<T, R, E> BatchProcessor<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Takes what is due out of the rings, and divides it if there are keys.
    pub(super) fn take(&mut self, Due { count, trigger }: Due) {
        let mut items = Vec::with_capacity(count as usize);
        let queue = Arc::clone(self.receiver.queue());
        let ticket = Progress::begin(&queue.progress, count);
        // `None`, which is less than any weight, after an item that is heavier than the limit: it
        // goes alone.
        let mut allowance = Some(queue.weight.limit());
        self.receiver.drain.take(count, |take| {
            while let Some(item) =
                take.next_if(|item| items.is_empty() || Some(item.weight) <= allowance)
            {
                allowance = allowance.and_then(|left| left.checked_sub(item.weight));
                queue.weight.remove(item.weight);
                items.push(item);
            }
        });
        // Weight may have left some.
        if items.len() < count as usize {
            ticket.resize(items.len() as u32);
        }
        self.ticket = Some(Arc::new(ticket));
        self.trigger = trigger;
        self.parts = match &mut self.divide {
            None => VecDeque::from([items]),
            Some(divide) => divide(items).into(),
        };
    }

    /// Makes a batch of the next part, and starts its span.
    pub(super) fn next_part(&mut self) -> Option<Batch<T, R, E>> {
        let items = self.parts.pop_front()?;
        // The processor keeps no ticket after the last part.
        let ticket = if self.parts.is_empty() { self.ticket.take() } else { self.ticket.clone() };
        self.set.reserve(items.len());
        for item in &items {
            self.set.insert_bounded(&item.request);
        }
        self.number += 1;
        let mut links = self.set.finish_as(self.trigger);
        let pages = links.take_pages().named(&self.name);
        let (counts, uncounted) = (links.counts(), links.uncounted());
        let queue = self.receiver.queue();
        queue.totals.add_batch(&counts, self.trigger);
        self.log.check(|| queue.stats());
        let mut builder = links.span_builder(self.name.clone());
        builder
            .attributes
            .get_or_insert_default()
            .push(KeyValue::new("batch.number", int(self.number)));
        let parent = Context::current();
        let span = match items.iter().all(|item| item.suppressed) {
            true => OwnSpan::suppressed(&parent),
            false => (self.start)(builder, &parent),
        };
        count_dropped_links(&span, uncounted);
        start_pages(&self.start, pages, &span);
        let size = items.len() as u64;
        let timer = self.meter.begin(size);
        let span = BatchSpan::new(span, size, Arc::clone(&self.outcomes), timer, ticket);
        Some(Batch::new(items.into_iter(), span, counts, self.trigger, self.number))
    }

    /// Starts the span of an item.
    pub(super) fn start_item(
        &self,
        item: BatchItem<T, R, E>,
        parent: &Context,
    ) -> (T, ItemSpan<R, E>) {
        let span = if item.suppressed {
            OwnSpan::suppressed(parent)
        } else {
            let mut builder = SpanBuilder::from_name(self.item_name.clone())
                .with_attributes([KeyValue::new(ITEM_INDEX, int(item.index()))]);
            // `with_links` would drop what the set's policy keeps.
            builder.links = self.set.link_to(&item.request, item.index()).map(|link| vec![link]);
            (self.start)(builder, parent)
        };
        let (payload, answer) = item.into_parts();
        (payload, ItemSpan::new(span, answer))
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
