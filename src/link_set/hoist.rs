//! Attributes that move from the links to the batch span.

use super::batch::{LinkBatch, add_new};
use crate::links::{ITEM_ID, ITEM_INDEX};
use opentelemetry::trace::Link;
use opentelemetry::{Key, KeyValue, Value};

/// What `messaging` writes too.
const DESTINATION: &str = "messaging.destination.name";
const PARTITION: &str = "messaging.destination.partition.id";

/// What must agree for a partition's number to mean one partition.
const PLACE: [&str; 4] = [DESTINATION, "messaging.system", "server.address", "server.port"];

/// The last part of a key that numbers a message.
const POSITIONS: [&str; 5] = ["offset", "position", "sequence", "sequence_number", "delivery_tag"];

impl LinkBatch {
    /// Moves what holds for all received contexts from the links to the span, as the messaging
    /// conventions ask: attributes that every link has with the same value.
    ///
    /// Moves nothing unless every received context is linked: one that was truncated, unsampled,
    /// invalid or a duplicate may have come with another value. So may one whose page was
    /// [taken](Self::take_pages) before. Of a batch of messages set
    /// [`Dedup::Off`](crate::Dedup::Off), as several messages may come from one span.
    /// Messages without any context are unknown to the batch. [`messaging::batch_span`] is told how
    /// many messages there are, and puts everything back on the links if that differs.
    ///
    /// These stay on the links even if they are equal:
    ///
    /// - what names one message or item: `messaging.message.*`, `messaging.<system>.message.*`,
    ///   `item.id`, `item.index`, and keys that end in `.offset`, `.position`, `.sequence`,
    ///   `.sequence_number` or `.delivery_tag`;
    /// - `messaging.destination.partition.id`, unless the links agree on destination name, system
    ///   and server too, or none of them has these;
    /// - `link.*`, which describes the link and not what it leads to;
    /// - keys that the span has already.
    ///
    /// Cost: each attribute of the first link is looked up in all others.
    ///
    /// ```
    /// use batchlink::{LinkSet, messaging::Message};
    /// use opentelemetry::KeyValue;
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// set.insert_link(Message::new().with_id("m-1").with_partition("3").link(&context(1)));
    /// set.insert_link(Message::new().with_id("m-2").with_partition("3").link(&context(2)));
    ///
    /// let batch = set.finish().hoist();
    /// assert!(batch.attributes().contains(&KeyValue::new("messaging.destination.partition.id", "3")));
    /// assert_eq!(batch.links()[1].attributes[0], KeyValue::new("messaging.message.id", "m-2"));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    ///
    /// [`messaging::batch_span`]: crate::messaging::batch_span
    pub fn hoist(self) -> Self {
        self.hoist_where(|key| !key.as_str().starts_with("link."))
    }

    /// Moves attributes as [`hoist`](Self::hoist), but only those whose keys `which` accepts. Use
    /// it to keep attributes of yours that name one message. It may accept keys of `link.*`; the
    /// other attributes that `hoist` leaves on the links stay there.
    ///
    /// ```
    /// # let batch = batchlink::LinkSet::builder().build()?.finish();
    /// let batch = batch.hoist_where(|key| key.as_str() != "order.id");
    /// # drop(batch);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn hoist_where(mut self, mut which: impl FnMut(&Key) -> bool) -> Self {
        let Some((first, others)) = self.links.split_first() else {
            return self;
        };
        // Invariant: hoist-if-common.
        if self.links.len() as u64 != self.counts.received {
            return self;
        }
        let one_place =
            PLACE.iter().all(|key| others.iter().all(|link| value(link, key) == value(first, key)));
        let common = first.attributes.iter().filter(|attribute| {
            let key = attribute.key.as_str();
            !names_one_message(key)
                && (key != PARTITION || one_place)
                && which(&attribute.key)
                && others.iter().all(|link| link.attributes.contains(attribute))
        });
        // A key that the span has already stays on the links.
        let mut span = self.attributes();
        let already = span.len();
        add_new(&mut span, common.cloned());
        let common = span.split_off(already);
        for link in &mut self.links {
            link.attributes.retain(|attribute| !common.contains(attribute));
        }
        self.hoisted.extend(common);
        self
    }

    /// Puts back on the links what does not hold for a span with the attributes `span`, for this
    /// many messages.
    pub(crate) fn for_messages(mut self, messages: usize, span: &[KeyValue]) -> Self {
        let all_known = u64::try_from(messages) == Ok(self.counts.received);
        let displaced =
            |own: &KeyValue| span.iter().any(|by| by.key == own.key && by.value != own.value);
        let names_destination = |attribute: &KeyValue| attribute.key.as_str() == DESTINATION;
        let one_place =
            !self.hoisted.iter().any(|own| PLACE.contains(&own.key.as_str()) && displaced(own))
                && self.hoisted.iter().chain(span).any(names_destination);
        let holds = |own: &KeyValue| {
            all_known && !displaced(own) && (own.key.as_str() != PARTITION || one_place)
        };
        let (kept, back) = std::mem::take(&mut self.hoisted).into_iter().partition(holds);
        self.hoisted = kept;
        if !Vec::is_empty(&back) {
            self.links.iter_mut().for_each(|link| link.attributes.extend_from_slice(&back));
        }
        self
    }
}

fn value<'a>(link: &'a Link, key: &str) -> Option<&'a Value> {
    link.attributes.iter().find(|own| own.key.as_str() == key).map(|own| &own.value)
}

fn names_one_message(key: &str) -> bool {
    let mut parts = key.split('.');
    let of_messaging = parts.next() == Some("messaging");
    [ITEM_ID, ITEM_INDEX].contains(&key)
        || (of_messaging && parts.any(|part| part == "message"))
        || key.rsplit_once('.').is_some_and(|(_, last)| POSITIONS.contains(&last))
}
