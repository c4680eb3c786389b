//! Calls of a link set and of the oracle, which must agree.

use super::choices::{Choices, Item};
use super::oracle;
use batchlink::{Counts, LinkBatch, LinkSet, Outcome, Trigger};
use opentelemetry::KeyValue;
use opentelemetry::trace::Link;

/// One call.
#[derive(Clone, Debug)]
pub enum SetCall {
    Insert(Item),
    InsertLink(Item),
    Finish,
}

impl SetCall {
    /// With `spans` different span ids.
    pub fn choose(choices: &mut impl Choices, spans: u64) -> Self {
        match choices.below(64) {
            0..44 => Self::Insert(Item::choose(choices, spans)),
            44..63 => Self::InsertLink(Item::choose(choices, spans)),
            _ => Self::Finish,
        }
    }
}

/// A link set and the oracle, side by side.
pub struct SetSession {
    set: LinkSet,
    oracle: oracle::LinkSet,
    shift: u32,
    /// Links of a span, if there are pages.
    page: usize,
    /// As links, what the batch was given.
    given: Vec<Link>,
}

impl SetSession {
    /// Starts a session. `shift`: where the ids differ, in bits from the right, up to 40.
    pub fn new(policy: oracle::Policy, shift: u32) -> Self {
        let set = LinkSet::builder().with_link_policy(policy.links()).build().expect("valid");
        let page = policy.max_pages.map_or(usize::MAX, |_| policy.page());
        Self { set, oracle: oracle::LinkSet::new(policy), shift, page, given: Vec::new() }
    }

    pub fn call(&mut self, call: &SetCall) {
        match call {
            SetCall::Insert(item) => {
                let context = item.context(0, self.shift);
                let real = self.set.insert(&context);
                self.given.push(Link::with_context(context.clone()));
                assert_eq!(real, self.oracle.insert(Link::with_context(context)));
            }
            SetCall::InsertLink(item) => {
                let link = item.link(0, self.shift);
                self.given.push(link.clone());
                assert_eq!(self.set.insert_link(link.clone()), self.oracle.insert(link));
            }
            SetCall::Finish => self.finish(),
        }
        assert_eq!(self.set.received(), self.given.len() as u64);
    }

    /// Ends the batch; the next one begins empty.
    pub fn finish(&mut self) {
        let batch = self.set.finish();
        let (links, counts) = self.oracle.finish();
        assert_eq!(
            (batch.counts(), batch.links(), batch.trigger()),
            (counts, &*links, Trigger::Manual)
        );
        assert_eq!(batch.attributes(), oracle::attributes(&counts, "manual"));
        self.check_pages(batch.clone(), &links, &counts);
        assert_eq!(batch.into_links(), links);
        self.check_hoist();
        self.given.clear();
    }

    /// The first page stays, and the batch says how many there are.
    fn check_pages(&self, mut batch: LinkBatch, links: &[Link], counts: &Counts) {
        drop(batch.take_pages());
        assert_eq!(batch.links(), &links[..links.len().min(self.page)]);
        assert_eq!(batch.attributes(), oracle::paged_attributes(counts, "manual", self.page));
        assert_eq!(batch.counts(), *counts);
    }

    /// The same batch again, in which the contexts that are linked have something in common and the
    /// others differ: that moves to the span only if there are no others.
    fn check_hoist(&mut self) {
        let mut given: Vec<_> =
            self.given.iter().filter(|link| link.span_context.is_valid()).cloned().collect();
        for link in &mut given {
            let linked = self.oracle.insert(link.clone()) == Outcome::Linked;
            link.attributes.push(KeyValue::new("linked", linked));
            self.set.insert_link(link.clone());
        }
        self.oracle.finish();
        let batch = self.set.finish();
        let own = batch.attributes().len();
        let batch = batch.hoist();
        let moved = &batch.attributes()[own..];
        let on_all =
            |attribute: &KeyValue| given.iter().all(|link| link.attributes.contains(attribute));
        let mut common = given.first().map_or(Vec::new(), |link| link.attributes.clone());
        // What describes the link stays.
        common.retain(|attribute| attribute.key.as_str() != "link.type" && on_all(attribute));
        assert_eq!(moved, if batch.linked() == batch.received() { &*common } else { &[] });
        assert!(
            batch.links().iter().all(|link| moved.iter().all(|own| !link.attributes.contains(own)))
        );
    }
}
