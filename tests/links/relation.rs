//! `Relation`: its names, there and back, and that a link of each type reaches an exporter under
//! the key that was chosen.

use super::common::*;
use batchlink::{
    LinkCollector, LinkPolicy, LinkSet,
    links::{self, Relation},
};
use opentelemetry::trace::Link;
use opentelemetry::{KeyValue, StringValue, Value};
use std::borrow::Cow;
use std::collections::HashSet;

/// The names that others use, written down here once more.
const NAMES: [&str; 17] = [
    "follows_from",
    "child_of",
    "caused_by",
    "triggered_by",
    "batch_item",
    "batch_member",
    "retry",
    "retry_of",
    "compensation",
    "compensates",
    "aggregation",
    "aggregates",
    "aggregated_trace",
    "derived_from",
    "spawned_from",
    "consumed_from",
    "related_operation",
];

#[test]
fn names_round_trip() {
    let names: Vec<&str> = Relation::STANDARD.iter().map(Relation::as_str).collect();
    assert_eq!(names, NAMES);
    assert_eq!(Relation::STANDARD.iter().collect::<HashSet<_>>().len(), NAMES.len());
    for relation in Relation::STANDARD {
        let name = relation.as_str();
        assert!(relation.is_standard(), "{name}");
        assert_eq!(name.parse(), Ok(relation.clone()));
        assert_eq!(format!("{relation}"), name);
        assert_eq!(Cow::from(relation.clone()), name);
        assert_eq!(StringValue::from(relation.clone()).as_str(), name);
        assert_eq!(Value::from(relation.clone()), Value::from(name));
    }
    assert_eq!(format!("[{:>6}]", Relation::Retry), "[ retry]");
}

#[test]
fn other_names_are_custom() {
    for name in ["shard_of", "Retry", " retry", "retry ", "ретрай", "custom"] {
        let relation: Relation = name.parse().unwrap();
        assert_eq!(relation, Relation::Custom(Cow::Owned(name.to_owned())));
        assert!(!relation.is_standard(), "{name}");
        assert_eq!((relation.as_str(), relation.to_string()), (name, name.to_owned()));
        assert_eq!(Value::from(relation), Value::from(name));
    }
    for name in ["", " ", "\t\n"] {
        let error = name.parse::<Relation>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid relation: an empty or blank name (allowed: any other text)"
        );
    }
    assert!(!Relation::Custom("retry".into()).is_standard());
    assert_ne!(Relation::Custom("retry".into()), Relation::Retry);
}

#[test]
fn relation_is_link_type() {
    for relation in Relation::STANDARD.iter().cloned().chain([Relation::Custom("row".into())]) {
        let builder = LinkCollector::builder()
            .with_link_policy(LinkPolicy::new().with_link_type(relation.clone()));
        let (collector, mut flusher) = builder.build().unwrap();
        collector.push(&context(1)).unwrap();
        let mut set = LinkSet::builder()
            .with_link_policy(LinkPolicy::new().with_link_type(relation.clone()))
            .build()
            .unwrap();
        set.insert(&context(1));
        for batch in [flusher.try_next().unwrap(), set.finish()] {
            let expected = [KeyValue::new("link.type", relation.as_str().to_owned())];
            assert_eq!(exported(batch).links.links[0].attributes, expected);
        }
    }
}

#[test]
fn type_key_is_configurable() {
    let own = || Link::new(context(2), vec![KeyValue::new("link.relationship", "own")], 0);
    let retry = || links::retry(&context(3), 2);
    let both = || {
        let attributes =
            vec![KeyValue::new("link.type", "t"), KeyValue::new("link.relationship", "r")];
        Link::new(context(4), attributes, 0)
    };
    let (collector, mut flusher) = LinkCollector::builder()
        .with_link_policy(LinkPolicy::new().with_link_type_key(links::LINK_RELATIONSHIP))
        .with_shards(1)
        .build()
        .unwrap();
    let mut set = LinkSet::builder()
        .with_link_policy(LinkPolicy::new().with_link_type_key("link.relationship"))
        .build()
        .unwrap();
    collector.push(&context(1)).unwrap();
    set.insert(&context(1));
    for link in [own, retry, both].map(|make| make()) {
        collector.push_link(link.clone()).unwrap();
        set.insert_link(link);
    }
    for batch in [flusher.try_next().unwrap(), set.finish()] {
        let found = exported(batch).links.links;
        assert_eq!(found[0].attributes, [KeyValue::new("link.relationship", "batch_item")]);
        assert_eq!(found[1].attributes, own().attributes);
        // It said its type by the other key, and says it once.
        let renamed =
            [KeyValue::new("link.relationship", "retry"), KeyValue::new("retry.attempt_number", 2)];
        assert_eq!(found[2].attributes, renamed);
        assert_eq!(found[3].attributes, both().attributes, "it says both itself");
    }
}

#[test]
fn untyped_links_stay_unchanged() {
    let mut set = LinkSet::builder()
        .with_link_policy(
            LinkPolicy::new().with_link_type_key("link.relationship").without_link_type(),
        )
        .build()
        .unwrap();
    set.insert(&context(1));
    set.insert_link(links::retry(&context(2), 2));
    let batch = set.finish();
    assert_eq!(batch.links()[0].attributes, []);
    assert_eq!(batch.links()[1], links::retry(&context(2), 2));
}

#[test]
fn empty_key_is_refused() {
    let errors = [
        LinkCollector::builder()
            .with_link_policy(LinkPolicy::new().with_link_type_key(""))
            .build()
            .map(drop)
            .unwrap_err(),
        LinkSet::builder()
            .with_link_policy(LinkPolicy::new().with_link_type_key(String::new()))
            .build()
            .map(drop)
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.field(), "link_type_key");
        assert_eq!(
            error.to_string(),
            "invalid link_type_key: an empty text (allowed: any other text)"
        );
    }
}
