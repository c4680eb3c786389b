//! Which contexts each policy links, against its definition: on a batch of 10 000 contexts from 300
//! traces, of which 30 % are unsampled and 60 % duplicates.

use super::common::*;
use batchlink::{Counts, Dedup, LinkBatch, LinkPolicy, LinkSet, Truncation, Unsampled};
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{KeyValue, Value};
use std::collections::{HashMap, HashSet};

const CONTEXTS: usize = 10_000;
const DISTINCT: usize = 4_000;
const TRACES: u64 = 300;

type Ids = (TraceId, SpanId);

fn ids(context: &SpanContext) -> Ids {
    (context.trace_id(), context.span_id())
}

fn ids_of(batch: &LinkBatch) -> Vec<Ids> {
    batch.links().iter().map(|link| ids(&link.span_context)).collect()
}

/// Returns the batch. Some traces have one span and others a hundred.
fn contexts() -> Vec<SpanContext> {
    let mut random = Random(14);
    let distinct: Vec<_> = (0..DISTINCT as u64)
        .map(|number| {
            let trace = match number {
                0..TRACES => number,
                _ => random.below(TRACES).min(random.below(TRACES)).min(random.below(TRACES)),
            };
            let flags = TraceFlags::new(u8::from(number % 10 >= 3));
            let (trace, span) = (TraceId::from(u128::from(trace) + 1), SpanId::from(number + 1));
            SpanContext::new(trace, span, flags, true, TraceState::NONE)
        })
        .collect();
    let mut contexts = distinct.clone();
    while contexts.len() < CONTEXTS {
        // Three of ten are unsampled here, too.
        let last = contexts.len() % 10;
        contexts.push(distinct[10 * random.below(DISTINCT as u64 / 10) as usize + last].clone());
    }
    for last in (1..contexts.len()).rev() {
        contexts.swap(last, random.below(last as u64 + 1) as usize);
    }
    contexts
}

fn batch_of(policy: LinkPolicy, contexts: &[SpanContext]) -> LinkBatch {
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    set.extend(contexts);
    set.finish()
}

/// Returns a batch with the counts that belong to its links: each context is linked, a duplicate of
/// one that is, or truncated.
fn counted(policy: LinkPolicy, contexts: &[SpanContext]) -> LinkBatch {
    let batch = batch_of(policy.with_link_count(), contexts);
    let Counts { received, linked, duplicates, truncated, .. } = batch.counts();
    assert_account(&batch);
    assert_eq!((received, linked), (contexts.len() as u64, batch.links().len() as u64));
    assert_eq!(batch.links().iter().map(count).sum::<u64>(), linked + duplicates);
    assert_eq!(truncated + duplicates + linked, received);
    batch
}

fn count(link: &Link) -> u64 {
    let mut counts = link.attributes.iter().filter(|own| own.key.as_str() == "link.count");
    match counts.next().map(|own| &own.value) {
        Some(&Value::I64(count)) if counts.next().is_none() => count as u64,
        other => panic!("{other:?} is no count"),
    }
}

/// Returns the different contexts, in order of their first arrival.
fn firsts<'a>(contexts: impl IntoIterator<Item = &'a SpanContext>) -> Vec<&'a SpanContext> {
    let mut known = HashSet::new();
    contexts.into_iter().filter(|context| known.insert(ids(context))).collect()
}

/// Checks a batch against the contexts that its policy is to link, in any order.
fn assert_links<'a>(batch: &LinkBatch, expected: impl IntoIterator<Item = &'a SpanContext>) {
    let expected: HashSet<Ids> = expected.into_iter().map(ids).collect();
    let found = ids_of(batch);
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), expected);
}

/// Links that were there from the first arrival stand for all arrivals, and are in their order.
fn assert_whole(batch: &LinkBatch, contexts: &[SpanContext]) {
    let mut arrivals: HashMap<Ids, u64> = HashMap::new();
    contexts.iter().for_each(|context| *arrivals.entry(ids(context)).or_default() += 1);
    for link in batch.links() {
        assert_eq!(count(link), arrivals[&ids(&link.span_context)]);
    }
    let linked: HashSet<Ids> = ids_of(batch).into_iter().collect();
    let in_order = firsts(contexts).into_iter().map(ids).filter(|ids| linked.contains(ids));
    assert_eq!(ids_of(batch), in_order.collect::<Vec<_>>());
}

fn policy(bound: usize, truncation: Truncation) -> LinkPolicy {
    let policy = LinkPolicy::new().with_max_links(bound).with_truncation(truncation);
    policy.with_unsampled(Unsampled::Keep)
}

/// The batch is as the file says.
#[test]
fn batch_is_as_described() {
    let contexts = contexts();
    assert_eq!((contexts.len(), firsts(&contexts).len()), (CONTEXTS, DISTINCT));
    let unsampled = contexts.iter().filter(|context| !context.is_sampled()).count();
    assert_eq!(unsampled, 3 * CONTEXTS / 10);
    let traces: HashSet<_> = contexts.iter().map(SpanContext::trace_id).collect();
    assert_eq!(traces.len(), TRACES as usize);
}

#[test]
fn keep_first_keeps_first() {
    let contexts = contexts();
    for bound in [1, 128, 3_999, 4_000, 5_000] {
        let batch = counted(policy(bound, Truncation::KeepFirst), &contexts);
        assert_links(&batch, firsts(&contexts).into_iter().take(bound));
        assert_whole(&batch, &contexts);
        // The same links by the way that counts nothing per link.
        let plain = batch_of(policy(bound, Truncation::KeepFirst), &contexts);
        assert_eq!((ids_of(&plain), plain.counts()), (ids_of(&batch), batch.counts()));
    }
}

#[test]
fn keep_last_keeps_last() {
    let contexts = contexts();
    for bound in [1, 128, 3_999, 4_000, 5_000] {
        let batch = counted(policy(bound, Truncation::KeepLast), &contexts);
        assert_links(&batch, firsts(contexts.iter().rev()).into_iter().take(bound));
    }
}

#[test]
fn sampled_first_keeps_sampled() {
    let contexts = contexts();
    for bound in [1, 128, 2_800, 3_000, 5_000] {
        let batch = counted(policy(bound, Truncation::SampledFirst), &contexts);
        let (sampled, unsampled): (Vec<_>, Vec<_>) =
            firsts(&contexts).into_iter().partition(|context| context.is_sampled());
        assert_eq!(sampled.len(), 2_800);
        assert_links(&batch, sampled.into_iter().chain(unsampled).take(bound));
        assert_whole(&batch, &contexts);
    }
}

#[test]
fn one_per_trace_keeps_traces() {
    let contexts = contexts();
    for bound in [1, 128, 300, 400, 5_000] {
        let batch = counted(policy(bound, Truncation::OnePerTrace), &contexts);
        let mut known = HashSet::new();
        let (first, further): (Vec<_>, Vec<_>) =
            firsts(&contexts).into_iter().partition(|context| known.insert(context.trace_id()));
        assert_eq!(first.len(), TRACES as usize);
        assert_links(&batch, first.into_iter().chain(further).take(bound));
        assert_whole(&batch, &contexts);
        let traces: HashSet<_> = ids_of(&batch).into_iter().map(|(trace, _)| trace).collect();
        assert_eq!(traces.len(), bound.min(TRACES as usize));
    }
}

#[test]
fn reservoir_ignores_order() {
    let contexts = contexts();
    let backwards: Vec<_> = contexts.iter().rev().cloned().collect();
    let mut samples = HashSet::new();
    for seed in 0..10 {
        let policy = || policy(128, Truncation::Reservoir { seed });
        let batch = counted(policy(), &contexts);
        assert_eq!(batch.links().len(), 128);
        assert_whole(&batch, &contexts);
        let again = counted(policy(), &backwards);
        assert_links(&again, batch.links().iter().map(|link| &link.span_context));
        samples.insert(ids_of(&batch));
    }
    assert_eq!(samples.len(), 10, "a sample of its own for each seed");
    let all = counted(policy(DISTINCT, Truncation::Reservoir { seed: 0 }), &contexts);
    assert_eq!((all.linked(), all.truncated()), (DISTINCT as u64, 0));
}

/// Returns the chi-square statistic of how often each of `contexts` was chosen, by samples with
/// different seeds; its mean is their number less one.
fn chi_square(dedup: Dedup, contexts: &[SpanContext]) -> f64 {
    const BOUND: usize = 50;
    const SAMPLES: u64 = 500;
    let mut chosen: HashMap<Ids, f64> = HashMap::new();
    let distinct = firsts(contexts);
    for seed in 0..SAMPLES {
        let policy = policy(BOUND, Truncation::Reservoir { seed }).with_dedup(dedup);
        let batch = batch_of(policy.without_link_type(), contexts);
        assert_eq!(batch.links().len(), BOUND);
        ids_of(&batch).into_iter().for_each(|ids| *chosen.entry(ids).or_default() += 1.0);
    }
    let number = distinct.len() as f64;
    let share = BOUND as f64 / number;
    let expected = SAMPLES as f64 * share;
    let deviation = |context: &SpanContext| {
        (chosen.get(&ids(context)).copied().unwrap_or_default() - expected).powi(2)
    };
    // Samples without replacement vary less than independent draws.
    let variance = expected * (1.0 - share) * number / (number - 1.0);
    distinct.into_iter().map(deviation).sum::<f64>() / variance
}

/// Within four standard deviations of the mean: a uniform sample fails once in 10 000 times, and
/// this one, whose seeds are fixed, never.
#[test]
fn reservoir_is_uniform() {
    let mut random = Random(3);
    let in_sequence: Vec<_> = (1..=500).map(context).collect();
    let spread: Vec<_> = (1..=500).map(|_| context(random.next() | 1)).collect();
    // A tenth of them comes ten times.
    let often = in_sequence.iter().cycle().take(500).enumerate();
    let often: Vec<_> = often
        .flat_map(|(n, context)| vec![context.clone(); if n % 10 == 0 { 10 } else { 1 }])
        .collect();
    let (mean, deviation) = (499.0, (2.0_f64 * 499.0).sqrt());
    for (name, dedup, contexts) in [
        ("in sequence", Dedup::ByContext, &in_sequence),
        ("spread", Dedup::ByContext, &spread),
        ("often", Dedup::ByContext, &often),
        ("with attributes", Dedup::ByContextAndAttributes, &often),
        ("each arrival", Dedup::Off, &in_sequence),
    ] {
        let found = chi_square(dedup, contexts);
        println!("{name}: {found:.0}, expected {mean} \u{b1} {deviation:.0}");
        assert!((found - mean).abs() < 4.0 * deviation, "{name}: {found}");
    }
    // Otherwise the test would prove nothing: without the dedup, those that come often are chosen
    // more often.
    assert!(chi_square(Dedup::Off, &often) > mean + 100.0 * deviation);
}

/// Every rule for duplicates, with and without unsampled contexts.
#[test]
fn dedup_compares_what_it_says() {
    let contexts = contexts();
    // Three messages from each span.
    let links: Vec<_> = (0..3_i64)
        .flat_map(|message| {
            let link = move |context: &SpanContext| {
                Link::new(context.clone(), vec![KeyValue::new("message", message)], 0)
            };
            contexts.iter().map(link)
        })
        .collect();
    let received = links.len() as u64;
    for (dedup, unsampled, linked) in [
        (Dedup::ByContext, Unsampled::Keep, 4_000),
        (Dedup::ByContext, Unsampled::Drop, 2_800),
        (Dedup::ByContextAndAttributes, Unsampled::Keep, 12_000),
        (Dedup::ByContextAndAttributes, Unsampled::Drop, 8_400),
        (Dedup::Off, Unsampled::Keep, 30_000),
        (Dedup::Off, Unsampled::Drop, 21_000),
    ] {
        let policy = LinkPolicy::new().with_max_links(100_000).with_dedup(dedup);
        let mut set = LinkSet::builder()
            .with_link_policy(policy.with_unsampled(unsampled).with_link_count())
            .build()
            .unwrap();
        set.extend(links.iter().cloned());
        let batch = set.finish();
        assert_account(&batch);
        let dropped = if unsampled == Unsampled::Drop { 9_000 } else { 0 };
        assert_eq!((batch.linked(), batch.unsampled(), batch.truncated()), (linked, dropped, 0));
        assert_eq!(batch.duplicates(), received - dropped - linked);
        let counts = batch.links().iter().map(count);
        assert_eq!(counts.sum::<u64>(), received - dropped);
        assert_eq!(batch.links()[0].attributes[0], KeyValue::new("message", 0), "the first stays");
    }
}

/// Attributes decide, and not their hash: of so many links, some have the same part of it in the
/// table.
#[test]
fn equal_hashes_differ_still() {
    let policy = LinkPolicy::new().with_max_links(300_000).without_link_type();
    let policy = policy.with_dedup(Dedup::ByContextAndAttributes);
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    let link = |number: i64| Link::new(context(1), vec![KeyValue::new("n", number)], 0);
    set.extend((0..300_000).map(link));
    let batch = set.finish();
    assert_eq!((batch.linked(), batch.duplicates()), (300_000, 0));
}

/// A link that has a count of its own, as of messages that were aggregated before, keeps it.
#[test]
fn own_count_stays() {
    let policy = LinkPolicy::new().with_link_count();
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    set.insert_link(Link::new(context(1), vec![KeyValue::new("link.count", 5)], 0));
    set.insert(&context(1));
    assert_eq!(count(&set.finish().links()[0]), 5);
}

/// A link that gives way takes its duplicates along, and is no longer known.
#[test]
fn evicted_context_is_forgotten() {
    use batchlink::Outcome::{Duplicate, Linked};
    let policy = policy(2, Truncation::KeepLast).with_link_count();
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    let outcomes = [1, 1, 2, 3, 3, 1].map(|number| set.insert(&context(number)));
    assert_eq!(outcomes, [Linked, Duplicate, Linked, Linked, Duplicate, Linked]);
    let batch = set.finish();
    assert_account(&batch);
    assert_eq!((numbers(&batch), batch.truncated(), batch.duplicates()), (vec![3, 1], 3, 1));
    assert_eq!(batch.links().iter().map(count).collect::<Vec<_>>(), [2, 1]);
}
