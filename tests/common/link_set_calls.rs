//! Calls of a link set, made on the oracle too: both must answer alike.

use super::choices::{Choices, Item};
use super::oracle;
use batchlink::{LinkSet, Trigger};
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
    received: u64,
}

impl SetSession {
    /// `shift`: where the ids differ, in bits from the right, up to 40.
    pub fn new(policy: oracle::Policy, shift: u32) -> Self {
        let set = LinkSet::builder().with_link_policy(policy.links()).build().expect("valid");
        Self { set, oracle: oracle::LinkSet::new(policy), shift, received: 0 }
    }

    pub fn call(&mut self, call: &SetCall) {
        match call {
            SetCall::Insert(item) => {
                let context = item.context(0, self.shift);
                let real = self.set.insert(&context);
                assert_eq!(real, self.oracle.insert(Link::with_context(context)));
                self.received += 1;
            }
            SetCall::InsertLink(item) => {
                let link = item.link(0, self.shift);
                assert_eq!(self.set.insert_link(link.clone()), self.oracle.insert(link));
                self.received += 1;
            }
            SetCall::Finish => self.finish(),
        }
        assert_eq!(self.set.received(), self.received);
    }

    /// Ends the batch; the next one begins empty.
    pub fn finish(&mut self) {
        let batch = self.set.finish();
        let (links, counts) = self.oracle.finish();
        assert_eq!((batch.counts(), batch.links(), batch.trigger()), (counts, &*links, Trigger::Manual));
        assert_eq!(batch.attributes(), oracle::attributes(&counts, "manual"));
        assert_eq!(batch.into_links(), links);
        self.received = 0;
    }
}
