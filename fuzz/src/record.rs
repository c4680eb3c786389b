//! One link, by every way from a producer to a batch, and back if it is refused.

use crate::common::choices::{Bytes, Choices, one_of};
use crate::common::oracle::{self, Policy};
use batchlink::{Dedup, Invalid, LinkCollector, LinkSet, PushError};
use opentelemetry::trace::{
    Link, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue, StringValue, Value};

/// Ways through a collector, and ways into a link set.
const WAYS: usize = 4;

pub fn record(data: &[u8]) {
    let choices = &mut Bytes(data);
    // Each way is seen in the batch, or none.
    let (dedup, invalid) = (Dedup::Off, Invalid::Drop);
    let policy = Policy { dedup, invalid, max_links: WAYS, ..Policy::choose(choices, 1) };
    let context = choose_context(choices);
    let attributes = (0..choices.below(6)).map(|_| choose_attribute(choices)).collect();
    let link = Link::new(context.clone(), attributes, choices.below(1 << 32) as u32);

    let builder = LinkCollector::builder().with_max_batch_size(WAYS).with_queue_capacity(WAYS);
    let built = builder.with_shards(1).with_link_policy(policy.links()).build();
    let (collector, mut flusher) = built.expect("valid");
    let bare = Link::with_context(context.clone());
    let expected = [bare.clone(), bare.clone(), bare.clone(), link.clone()];
    assert_eq!(collector.push(&context), Ok(()));
    assert_eq!(collector.push_all(std::slice::from_ref(&context)), 1);
    {
        let _entered = Context::new().with_remote_span_context(context.clone()).attach();
        assert_eq!(collector.push_current(), Ok(()));
    }
    assert!(collector.push_link(link.clone()).is_ok());
    if context.is_valid() {
        refuse(&collector, &link, PushError::Full);
    }

    let mut oracle = oracle::LinkSet::new(policy.clone());
    match flusher.try_next() {
        None => assert_eq!((context.is_valid(), collector.stats().invalid()), (false, WAYS as u64)),
        Some(batch) => {
            expected.into_iter().for_each(|link| _ = oracle.insert(link));
            let (links, counts) = oracle.finish();
            assert_eq!((batch.links(), batch.counts()), (&*links, counts));
            let attributes = oracle::attributes(&counts, "manual");
            let span = batch.span_builder("batch");
            assert_eq!((span.links, span.attributes), (Some(links), Some(attributes)));
        }
    }

    let mut set = LinkSet::builder().with_link_policy(policy.links()).build().expect("valid");
    assert_eq!(set.insert(&context), oracle.insert(bare));
    assert_eq!(set.insert_link(link.clone()), oracle.insert(link.clone()));
    let (links, counts) = oracle.finish();
    let batch = set.finish();
    assert_eq!((batch.links(), batch.counts()), (&*links, counts));

    collector.close();
    if context.is_valid() {
        refuse(&collector, &link, PushError::Closed);
    }
}

/// What is refused comes back as it was.
fn refuse(collector: &LinkCollector, link: &Link, reason: PushError) {
    let refused = collector.push_link(link.clone()).expect_err("refused");
    assert_eq!(refused.reason(), reason);
    assert_eq!(&refused.into_link(), link);
}

fn choose_context(choices: &mut Bytes<'_>) -> SpanContext {
    let mut id = || choices.below(1 << 63) * 2 + choices.below(2);
    let trace = TraceId::from(u128::from(id()) << 64 | u128::from(id()));
    let span = SpanId::from(id());
    let flags = TraceFlags::new(choices.below(256) as u8);
    let remote = choices.below(2) == 1;
    SpanContext::new(trace, span, flags, remote, choose_state(choices))
}

/// A trace state whose header is up to 1100 bytes long, in up to 32 members.
fn choose_state(choices: &mut Bytes<'_>) -> TraceState {
    /// Of a key, and of a value.
    const LONGEST: usize = 256;
    let bytes = choices.below(1101) as usize;
    // The shortest member is `k=`, and there is a comma between two.
    let members = (1 + choices.below(32) as usize).min(bytes.div_ceil(3));
    // For keys and values.
    let mut left = (bytes + 1).saturating_sub(2 * members);
    let mut pairs = Vec::new();
    for others in (0..members).rev() {
        let most = (left - others).min(2 * LONGEST);
        let content = between(choices, left.saturating_sub(2 * LONGEST * others).max(1), most);
        left -= content;
        let key = between(choices, content.saturating_sub(LONGEST).max(1), content.min(LONGEST));
        // Of one byte or of two.
        let value = "é".repeat(between(choices, 0, (content - key) / 2));
        let rest = "v".repeat(content - key - value.len());
        // OpenTelemetry's own member is the last but one to be cut.
        let own = key == 2 && choices.below(2) == 1;
        pairs.push((if own { "ot".into() } else { "k".repeat(key) }, value + &rest));
    }
    let state = TraceState::from_key_value(pairs.clone()).expect("valid");
    match choices.below(8) {
        // None of its members is left.
        7 if pairs.len() == 1 => state.delete(&*pairs[0].0).expect("valid"),
        _ => state,
    }
}

/// A length from `least` to `most`, or `most` if that is less.
fn between(choices: &mut Bytes<'_>, least: usize, most: usize) -> usize {
    let least = least.min(most);
    least + choices.below((most - least + 1) as u64) as usize
}

fn choose_attribute(choices: &mut Bytes<'_>) -> KeyValue {
    let key = one_of(choices, &["a", "messaging.message.id", "link.type", "link.typ", ""]);
    let number = choices.below(1 << 63) as i64;
    let text: StringValue = "x".repeat(choices.below(100) as usize).into();
    let value = match choices.below(6) {
        0 => Value::I64(number),
        1 => Value::String(text),
        2 => Value::Bool(number & 1 == 1),
        3 => Value::F64(number as f64),
        4 => Value::Array(vec![number; text.as_str().len()].into()),
        _ => Value::Array(vec![text; number as usize % 4].into()),
    };
    KeyValue::new(key, value)
}
