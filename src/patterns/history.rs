//! What is kept of the attempts at one piece of work: their counts, and those that later ones link.

use crate::link_set::record::Bounded;
use crate::link_set::{LinkSet, Outcome};
use crate::links;
use crate::patterns::attempts::RetryOutcome;
use crate::patterns::operation::shortened;
use opentelemetry::trace::{Link, SpanContext};
use opentelemetry::{KeyValue, Value};
use std::mem;

const PREVIOUS: &str = "previous.attempt_number";

#[derive(Debug)]
pub(super) struct History {
    pub(super) set: LinkSet,
    /// Attempts that the next one links, in order.
    earlier: Vec<Earlier>,
    /// Attempts beyond the link set's bound.
    left_out: u64,
    pub(super) outcome: RetryOutcome,
}

#[derive(Debug)]
struct Earlier {
    number: u32,
    context: SpanContext,
    error: Option<String>,
}

impl History {
    pub(super) fn new(set: LinkSet) -> Self {
        Self { set, earlier: Vec::new(), left_out: 0, outcome: RetryOutcome::default() }
    }

    /// Counts an attempt and returns its number, from 1.
    pub(super) fn next(&mut self) -> u32 {
        self.outcome.attempts = self.outcome.attempts.saturating_add(1);
        self.outcome.attempts
    }

    /// Keeps an attempt for the links of later ones. Attempts that overlap come in any order.
    pub(super) fn note(&mut self, number: u32, attempt: &SpanContext) {
        // A trace state that no link would carry is not kept.
        let context = Bounded::new(attempt).context;
        let place = self.earlier.partition_point(|earlier| earlier.number < number);
        self.earlier.insert(place, Earlier { number, context, error: None });
        if self.earlier.len() > 2 * self.set.max_links() {
            // Otherwise only `start` forgets what does not fit, and it may never be called.
            self.links(number);
        }
    }

    /// Makes the links of attempt `number`, and the attributes of its span if links are missing.
    pub(super) fn links(&mut self, number: u32) -> (Vec<Link>, Vec<KeyValue>) {
        let set = &mut self.set;
        let mut admit = |earlier: &Earlier| {
            let mut link = links::retry(&earlier.context, number);
            link.attributes.push(KeyValue::new(PREVIOUS, i64::from(earlier.number)));
            let error = earlier.error.clone().map(|error| KeyValue::new("previous.error", error));
            link.attributes.extend(error);
            set.insert_link(link) == Outcome::Linked
        };
        // The set keeps what comes first: the first attempt that it takes, then the latest. What it
        // does not link now it will not link later, and is forgotten: memory is bounded.
        let mut earlier = mem::take(&mut self.earlier).into_iter();
        self.earlier.extend(earlier.find(&mut admit));
        let latest: Vec<_> = earlier.rev().filter(admit).collect();
        self.earlier.extend(latest.into_iter().rev());

        let batch = self.set.finish();
        self.left_out += batch.truncated();
        let truncation = batch.truncation(self.left_out).collect();
        let mut links = batch.into_links();
        links.sort_by_key(previous);
        (links, truncation)
    }

    pub(super) fn ended(&mut self, number: u32, result: Result<(), &str>) {
        let Err(error) = result else {
            self.outcome.succeeded_on.get_or_insert(number);
            return;
        };
        let error = shortened(error);
        self.outcome.failed = self.outcome.failed.saturating_add(1);
        if let Some(attempt) = self.earlier.iter_mut().find(|earlier| earlier.number == number) {
            attempt.error = Some(error.clone());
        }
        self.outcome.last_error = Some(error);
    }
}

fn previous(link: &Link) -> i64 {
    let number = link.attributes.iter().find(|attribute| attribute.key.as_str() == PREVIOUS);
    number.map_or(0, |number| if let Value::I64(number) = number.value { number } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patterns::Attempts;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    #[test]
    fn kept_attempts_are_bounded() {
        for flags in [TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED] {
            let set = LinkSet::builder().with_max_links(3).build().unwrap();
            let attempts = Attempts::new("call").with_link_set(set);
            for number in 1..=100 {
                let ids = (TraceId::from(1_u128), SpanId::from(number));
                let context = SpanContext::new(ids.0, ids.1, flags, false, TraceState::NONE);
                attempts.collect(&context, Err("no"));
                attempts.start(&opentelemetry::global::tracer("no sdk")).fail("no");
                let kept = attempts.history().earlier.len();
                assert!(kept <= 3 + 2, "{kept} are kept");
            }
        }
    }

    #[test]
    fn collected_attempts_are_bounded() {
        for (bound, expected) in [(1, vec![1]), (3, vec![1, 999, 1000])] {
            let set = LinkSet::builder().with_max_links(bound).build().unwrap();
            let attempts = Attempts::new("call").with_link_set(set);
            let state =
                TraceState::from_key_value(["a", "b", "c"].map(|key| (key, "v".repeat(200))))
                    .unwrap();
            for number in 1..=1000 {
                let ids = (TraceId::from(1_u128), SpanId::from(number));
                let context =
                    SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, true, state.clone());
                attempts.collect(&context, Err("no"));
                let earlier = &attempts.history().earlier;
                assert!(earlier.len() <= 2 * bound, "{} are kept", earlier.len());
                assert!(
                    earlier
                        .iter()
                        .all(|attempt| attempt.context.trace_state().header().len() == 2 * 202 + 1)
                );
            }
            let (links, _) = attempts.history().links(1001);
            assert_eq!(links.iter().map(previous).collect::<Vec<_>>(), expected);
            assert_eq!(attempts.history().left_out, 1000 - bound as u64);
        }
    }

    #[test]
    fn overlapping_attempts_stay_ordered() {
        let mut history = History::new(LinkSet::builder().with_max_links(2).build().unwrap());
        for number in [2, 1, 3] {
            let ids = (TraceId::from(1_u128), SpanId::from(number));
            let context =
                SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, false, TraceState::NONE);
            history.note(number as u32, &context);
        }
        assert_eq!(history.links(4).0.iter().map(previous).collect::<Vec<_>>(), [1, 3]);
    }
}
