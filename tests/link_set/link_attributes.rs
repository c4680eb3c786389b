//! Attributes made lazily: for which links, with what, and what a panic in the closure costs.

use super::common::*;
use batchlink::{Dedup, LinkCollector, LinkPolicy, LinkSet, links};
use opentelemetry::trace::{Link, SpanContext, TraceFlags};
use opentelemetry::{KeyValue, Value};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

/// What a closure was called with.
type Calls = Arc<Mutex<Vec<(u64, usize, ThreadId)>>>;

#[allow(clippy::unwrap_used)] // as in tests
fn note(calls: &Calls) -> impl Fn(&SpanContext, usize) -> [KeyValue; 1] + Send + Sync + 'static {
    let calls = Arc::clone(calls);
    move |cx, index| {
        let number = u64::from_be_bytes(cx.span_id().to_bytes());
        calls.lock().unwrap().push((number, index, thread::current().id()));
        [KeyValue::new("item.index", index as i64)]
    }
}

fn of_type(name: &'static str) -> KeyValue {
    KeyValue::new("link.type", name)
}

#[test]
fn only_links_call_the_closure() {
    let calls = Calls::default();
    let mut set = LinkSet::builder()
        .with_max_links(3)
        .with_link_policy(LinkPolicy::new().with_link_attributes(note(&calls)))
        .build()
        .unwrap();
    for _ in 0..2 {
        for number in [1, 1, 2, 3, 4, 2] {
            set.insert(&context(number));
        }
        set.insert(&with_flags(5, TraceFlags::default()));
        set.insert(&SpanContext::NONE);
        set.insert_link(Link::with_context(SpanContext::NONE));
        let batch = set.finish();
        assert_account(&batch);
        let called: Vec<_> = calls.lock().unwrap().drain(..).map(|call| (call.0, call.1)).collect();
        assert_eq!(called, [(1, 0), (2, 1), (3, 2)], "the index begins anew with each batch");
        for (index, link) in (0..).zip(exported(batch).links.iter()) {
            assert_eq!(
                link.attributes,
                [KeyValue::new("item.index", index), of_type("batch_item")]
            );
        }
    }
}

#[test]
fn flusher_calls_the_closure() {
    let calls = Calls::default();
    let builder = LinkCollector::builder()
        .with_max_delay(NEVER)
        .with_link_policy(LinkPolicy::new().with_link_attributes(note(&calls)));
    let (collector, flusher) = builder.with_shards(1).build().unwrap();
    for number in [1, 2, 2] {
        collector.push(&context(number)).unwrap();
    }
    assert_eq!(calls.lock().unwrap().len(), 0);
    let flushing = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&flushing);
    let handle = flusher.spawn(move |batch| {
        assert_eq!(batch.links()[1].attributes[0], KeyValue::new("item.index", 1));
        *seen.lock().unwrap() = Some(thread::current().id());
    });
    handle.unwrap().shutdown().unwrap();
    let flushing = flushing.lock().unwrap().expect("one batch");
    assert_eq!(*calls.lock().unwrap(), [(1, 0, flushing), (2, 1, flushing)]);
    assert_eq!(collector.stats().handler_panics(), 0);
}

#[test]
fn own_attributes_stay() {
    let make = |_: &SpanContext, _| {
        vec![
            KeyValue::new("a", "made"),
            KeyValue::new("b", 1),
            KeyValue::new("b", 2),
            of_type("made"),
        ]
    };
    let mut set = LinkSet::builder()
        .with_link_policy(LinkPolicy::new().with_link_attributes(make))
        .build()
        .unwrap();
    set.insert(&context(1));
    set.insert(&with_state(2, &small_state()));
    set.insert_link(Link::new(context(3), vec![KeyValue::new("a", "own")], 4));
    set.insert_link(links::retry(&context(4), 2));
    let batch = set.finish();
    assert_eq!(batch.links()[2].dropped_attributes_count, 4);
    let arrived = exported(batch).links.links;
    let (a, b) = (KeyValue::new("a", "made"), KeyValue::new("b", 1));
    let made = [a.clone(), b.clone(), of_type("made")];
    assert_eq!((&arrived[0].attributes[..], &arrived[1].attributes[..]), (&made[..], &made[..]));
    assert_eq!(arrived[1].span_context, with_state(2, &small_state()));
    assert_eq!(arrived[2].attributes, [KeyValue::new("a", "own"), b.clone(), of_type("made")]);
    assert_eq!(
        arrived[3].attributes,
        [of_type("retry"), KeyValue::new("retry.attempt_number", 2), a, b]
    );
}

/// Panics when dropped, if it is not being dropped by a panic already.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::panicking(), "dropped");
    }
}

/// For some spans panics, in each way in which a closure can: at once, in the middle of what it
/// makes, and with something that panics again.
fn panicking(cx: &SpanContext, _index: usize) -> impl Iterator<Item = KeyValue> + use<> {
    let number = u64::from_be_bytes(cx.span_id().to_bytes());
    match number % 4 {
        1 => panic!("at once"),
        2 => std::panic::panic_any(Bomb),
        _ => {}
    }
    (0..3).map(move |n| {
        assert!(number % 4 != 3 || n < 2, "in the middle");
        KeyValue::new(["a", "b", "c"][n], Value::from(number as i64))
    })
}

#[test]
fn panic_costs_only_attributes() {
    let (collector, mut flusher) = by_size(16)
        .with_max_links(12)
        .with_link_policy(
            LinkPolicy::new().with_dedup(Dedup::ByContext).with_link_attributes(panicking),
        )
        .with_shards(1)
        .build()
        .unwrap();
    let mut set = LinkSet::builder()
        .with_max_links(12)
        .with_link_policy(LinkPolicy::new().with_link_attributes(panicking))
        .build()
        .unwrap();
    for round in 1..=3 {
        for number in (1..=14).chain([1, 2]) {
            let own = Link::new(context(number), vec![KeyValue::new("own", number as i64)], 0);
            collector.push_link(own.clone()).unwrap();
            set.insert_link(own);
        }
        for batch in [flusher.next_batch().unwrap(), set.finish()] {
            assert_account(&batch);
            assert_eq!((batch.linked(), batch.duplicates(), batch.truncated()), (12, 2, 2));
            assert_eq!(batch.counts().attribute_panics, 9);
            for link in exported(batch).links.iter() {
                let number = number(link);
                let value = |key: &'static str| KeyValue::new(key, number as i64);
                let expected = match number % 4 {
                    0 => vec![
                        value("own"),
                        value("a"),
                        value("b"),
                        value("c"),
                        of_type("batch_item"),
                    ],
                    _ => vec![value("own"), of_type("batch_item")],
                };
                assert_eq!(link.attributes, expected);
            }
        }
        assert_eq!(collector.stats().counts().attribute_panics, 9 * round);
        assert_stats(&collector.stats(), 16 * round, 0, 0, 0);
    }
}

#[test]
fn copied_policy_works_alike() {
    let calls = Calls::default();
    let builder =
        LinkSet::builder().with_link_policy(LinkPolicy::new().with_link_attributes(note(&calls)));
    assert!(format!("{builder:?}").contains("LinkAttributes"));
    for builder in [builder.clone(), builder] {
        let mut set = builder.build().unwrap();
        set.insert(&context(1));
        assert_eq!(set.finish().links()[0].attributes[0], KeyValue::new("item.index", 0));
    }
    assert_eq!(calls.lock().unwrap().len(), 2);
}

/// The closure runs while its batch is being taken, on a queue that is full.
#[test]
fn closure_may_use_its_collector() {
    let _watchdog = watchdog();
    let own: Arc<Mutex<Option<LinkCollector>>> = Arc::default();
    let inside = Arc::clone(&own);
    let make = move |cx: &SpanContext, _| {
        let own = inside.lock().unwrap();
        let collector = own.as_ref().unwrap();
        let refused = collector.push(cx).is_err();
        collector.flush();
        [
            KeyValue::new("refused", refused),
            KeyValue::new("pending", collector.stats().pending() as i64),
        ]
    };
    let builder = by_size(4)
        .with_queue_capacity(4)
        .with_shards(1)
        .with_link_policy(LinkPolicy::new().with_link_attributes(make));
    let (collector, mut flusher) = builder.build().unwrap();
    *own.lock().unwrap() = Some(collector.clone());
    (1..=4).for_each(|number| collector.push(&context(number)).unwrap());
    let batch = flusher.next_batch().unwrap();
    assert_account(&batch);
    let full = [KeyValue::new("refused", true), KeyValue::new("pending", 4), of_type("batch_item")];
    assert!(batch.links().iter().all(|link| link.attributes == full), "{batch:?}");
    assert_stats(&collector.stats(), 4, 4, 0, 0);
    collector.push(&context(5)).unwrap();
    assert_eq!(numbers(&flusher.try_next().unwrap()), [5]);
    assert_eq!(
        flusher.try_next().unwrap().links()[0].attributes[0],
        KeyValue::new("refused", false)
    );
    *own.lock().unwrap() = None;
}
