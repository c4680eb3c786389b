//! `LinkCache`: what is made once, what is kept, and that it never holds more than it may.

use super::common::*;
use batchlink::links::LinkTemplate;
use batchlink::{
    LinkSet,
    links::{LinkCache, Relation},
};
use opentelemetry::KeyValue;
use static_assertions::assert_impl_all;
use std::cell::Cell;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

assert_impl_all!(LinkCache<String>: Send, Sync, Debug);

fn template(number: u64) -> LinkTemplate {
    LinkTemplate::new(Relation::ConsumedFrom).with_attribute(KeyValue::new("number", number as i64))
}

#[test]
fn template_is_made_once() {
    let (cache, made) = (LinkCache::<String>::new(8).unwrap(), Cell::new(0));
    assert!(cache.is_empty());
    let mut set = LinkSet::builder().build().unwrap();
    for number in 1..=9 {
        let source = 1 + number % 3;
        let template = cache.get_or_create(&*format!("source {source}"), || {
            made.set(made.get() + 1);
            template(source)
        });
        set.insert_link(template.link(&context(number)));
    }
    assert_eq!((made.get(), cache.len(), cache.is_empty()), (3, 3, false));
    assert!(format!("{cache:?}").contains("len: 3, capacity: 8"));
    for link in exported(set.finish()).links.iter() {
        let source = 1 + number(link) % 3;
        assert_eq!(link.attributes, template(source).attributes());
    }
}

#[test]
fn capacity_is_never_exceeded() {
    for capacity in [1, 2, 31, 32, 33, 96, 100, 101, 128, 1000, 1001, 1024] {
        let cache = LinkCache::<u64>::new(capacity).unwrap();
        assert_eq!(cache.capacity(), capacity);
        for key in 0..5 * capacity as u64 {
            assert_eq!(*cache.get_or_create(&key, || template(key)), template(key));
            assert!(cache.len() <= capacity, "{} of {capacity}", cache.len());
        }
        assert!(2 * cache.len() >= capacity, "{} of {capacity} is little", cache.len());
    }
}

#[test]
fn recurring_key_stays() {
    let (cache, made) = (LinkCache::<u64>::new(64).unwrap(), Cell::new(0));
    for passing in 1..10_000 {
        cache.get_or_create(&0, || {
            made.set(made.get() + 1);
            template(0)
        });
        cache.get_or_create(&passing, || template(passing));
    }
    assert_eq!(made.get(), 1);
}

#[test]
fn capacity_is_checked() {
    for capacity in [0, (1 << 20) + 1, usize::MAX] {
        let error = LinkCache::<u64>::new(capacity).unwrap_err();
        assert_eq!((error.field(), error.value()), ("capacity", &*capacity.to_string()));
        assert_eq!(error.allowed(), "1 to 1048576");
    }
    assert_eq!(LinkCache::<u64>::new(1 << 20).unwrap().capacity(), 1 << 20);
}

#[test]
fn panic_leaves_cache_unchanged() {
    let cache = LinkCache::<u64>::new(8).unwrap();
    let call = AssertUnwindSafe(|| cache.get_or_create(&1, || panic!("no template")));
    assert!(catch_unwind(call).is_err());
    assert_eq!(cache.len(), 0);
    let _watchdog = watchdog();
    // The same key, from inside: a wait for the maker would never end.
    let outer = cache.get_or_create(&1, || {
        let inner = cache.get_or_create(&1, || template(1));
        assert_eq!(*inner, template(1));
        template(2)
    });
    assert_eq!((*outer).clone(), template(2));
    assert_eq!(cache.len(), 1);
}

#[test]
fn threads_share_the_cache() {
    let _watchdog = watchdog();
    let (cache, made) = (LinkCache::<u64>::new(256).unwrap(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for seed in 0..4 {
            let (cache, made) = (&cache, &made);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..20_000 {
                    let key = random.below(64);
                    let found = cache.get_or_create(&key, || {
                        made.fetch_add(1, Ordering::Relaxed);
                        template(key)
                    });
                    assert_eq!(*found, template(key));
                }
            });
        }
    });
    assert_eq!(cache.len(), 64);
    assert!((64..=4 * 64).contains(&made.into_inner()), "each thread makes each at most once");
    let again = cache.get_or_create(&7, || template(0));
    assert!(Arc::strong_count(&again) >= 2, "it is the one that the cache holds");
}
