//! Fan-out and fan-in: what the spans say, and what they link to, as exported.

use super::common::{context, watchdog};
use super::exported::*;
use batchlink::patterns::{Attempts, FanOut};
use batchlink::{Invalid, LinkPolicy, LinkSet};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

fn index(attributes: &[opentelemetry::KeyValue]) -> usize {
    match attribute(attributes, "worker.index") {
        Value::I64(index) => index as usize,
        other => panic!("{other:?}"),
    }
}

fn workers(exporter: &Exporter) -> Vec<SpanData> {
    let mut workers: Vec<_> =
        exporter.spans().into_iter().filter(|span| span.name == "resize").collect();
    workers.sort_by_key(|span| index(&span.attributes));
    workers
}

#[test]
fn aggregation_links_all_workers() {
    let _watchdog = watchdog();
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let request = tracer.in_span("request", |request| {
        let fan = FanOut::new(request.span().span_context());
        thread::scope(|scope| {
            for number in 0..8 {
                let (worker, tracer) = (fan.start(&tracer, "resize"), &tracer);
                scope.spawn(move || {
                    worker.run(|cx| {
                        assert_eq!(
                            Context::current().span().span_context(),
                            cx.span().span_context()
                        );
                        tracer.in_span("child", |_| ());
                        if number == 3 { Err("too large") } else { Ok(()) }
                    })
                });
            }
        });
        let (merge, counts) = fan.aggregate(&tracer, "merge");
        assert_eq!((counts.started, counts.succeeded, counts.failed), (8, 7, 1));
        assert_eq!(
            merge.run(|_| counts.result()).unwrap_err().to_string(),
            "1 of 8 workers failed"
        );
        request.span().span_context().clone()
    });

    let workers = workers(&exporter);
    let traces: HashSet<_> = workers.iter().map(|span| span.span_context.trace_id()).collect();
    assert!(traces.len() == 8 && !traces.contains(&request.trace_id()));
    for (number, span) in workers.iter().enumerate() {
        assert!(is_root(span));
        let mut said = vec![format!("worker.index={number}")];
        said.splice(0..0, (number == 3).then(|| "error.type=_OTHER".to_owned()));
        assert_eq!(attributes(&span.attributes), said);
        assert_eq!(span.links.len(), 1);
        assert!(leads_to(&span.links[0], &request));
        assert_eq!(attributes(&span.links[0].attributes), ["link.type=spawned_from"]);
        match number {
            3 => assert_eq!(error(span), "too large"),
            _ => assert_eq!(span.status, Status::Unset),
        }
    }
    let spans = exporter.spans();
    let children = spans.iter().filter(|span| span.name == "child");
    assert!(children.into_iter().all(|span| traces.contains(&span.span_context.trace_id())));

    let merge = exporter.span("merge");
    assert_eq!(error(&merge), "1 of 8 workers failed");
    assert_eq!(merge.parent_span_id, request.span_id());
    let said =
        ["error.type=_OTHER", "workers.failed=1", "workers.started=8", "workers.succeeded=7"];
    assert_eq!(attributes(&merge.attributes), said);
    assert_eq!(merge.links.len(), 9);
    assert!(leads_to(&merge.links[0], &request));
    assert_eq!(attributes(&merge.links[0].attributes), ["link.type=caused_by"]);
    for link in &merge.links.links[1..] {
        let number = index(&link.attributes);
        assert!(leads_to(link, &workers[number].span_context), "worker {number}");
        let mut said = vec![
            "aggregation.source=resize".to_owned(),
            "link.type=aggregation".to_owned(),
            format!("worker.index={number}"),
        ];
        if number == 3 {
            said.extend(["worker.error=too large".to_owned(), "worker.failed=true".to_owned()]);
            said.sort();
        }
        assert_eq!(attributes(&link.attributes), said);
    }
    let linked: HashSet<_> =
        merge.links.links[1..].iter().map(|link| index(&link.attributes)).collect();
    assert_eq!(linked.len(), 8);
}

#[test]
fn dropped_worker_fails() {
    const ERRORS: [&str; 2] = ["dropped before it finished", "panicked before it finished"];
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let fan = FanOut::new(&context(1));
    drop(fan.start(&tracer, "resize"));
    let worker = fan.start(&tracer, "resize");
    let call = || worker.run(|_| -> Result<(), String> { panic!("bad luck, and meant to be") });
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    let (merge, counts) = fan.aggregate(&tracer, "merge");
    merge.succeed();
    assert_eq!((counts.started, counts.failed), (2, 2));
    let merge = exporter.span("merge");
    assert_eq!(merge.status, Status::Unset, "as its owner decided");
    let mut errors = ERRORS.into_iter();
    for link in &merge.links.links[1..] {
        assert_eq!(attribute(&link.attributes, "worker.error"), errors.next().unwrap().into());
        assert_eq!(attribute(&link.attributes, "worker.failed"), Value::Bool(true));
    }
    assert_eq!(workers(&exporter).iter().map(error).collect::<Vec<_>>(), ERRORS);
}

#[test]
fn cut_links_are_counted() {
    for (bound, links, said) in [(5, 5, true), (9, 9, false), (8, 8, true), (1, 1, true)] {
        let exporter = Exporter::default();
        let tracer = exporter.tracer();
        let set = LinkSet::builder().with_max_links(bound).build().unwrap();
        let fan = FanOut::with_link_set(&context(1), set);
        for _ in 0..8 {
            fan.start(&tracer, "resize").fail("no");
        }
        let (merge, counts) = fan.aggregate(&tracer, "merge");
        merge.succeed();
        assert_eq!(counts.failed, 8);
        let merge = exporter.span("merge");
        assert_eq!(merge.links.len(), links);
        assert!(leads_to(&merge.links[0], &context(1)), "the request's is never cut");
        let attributes = attributes(&merge.attributes);
        assert_eq!(attributes.contains(&"links.truncated=true".to_owned()), said, "{attributes:?}");
        assert_eq!(
            attributes.contains(&"links.original_count=9".to_owned()),
            said,
            "{attributes:?}"
        );
    }
}

/// More links than the SDK keeps of a span, 128.
#[test]
fn sdk_limit_counts_as_cut() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let set = || LinkSet::builder().with_max_links(500).build().unwrap();
    let fan = FanOut::with_link_set(&context(1), set());
    (2..=200).for_each(|number| fan.collect("resize", &context(number), Ok::<_, String>(())));
    fan.aggregate(&tracer, "merge").0.succeed();
    let attempts = Attempts::new("call").with_link_set(set());
    (1..=200).for_each(|number| attempts.collect(&context(number), Err("no")));
    attempts.start(&tracer).succeed();
    for span in [exporter.span("merge"), exporter.span("call")] {
        assert_eq!((span.links.len(), span.links.dropped_count), (128, 72));
        assert_eq!(attribute(&span.attributes, "links.truncated"), Value::Bool(true));
        assert_eq!(attribute(&span.attributes, "links.original_count"), Value::I64(200));
    }
}

#[test]
fn running_worker_is_only_counted() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let fan = FanOut::new(&context(1));
    let late = fan.start(&tracer, "resize");
    fan.clone().start(&tracer, "resize").succeed();
    let (merge, counts) = fan.clone().aggregate(&tracer, "merge");
    assert_eq!((counts.started, counts.succeeded, counts.failed), (2, 1, 0));
    assert_eq!(counts.result(), Ok(()));
    merge.succeed();
    late.succeed();
    assert_eq!(exporter.span("merge").links.len(), 2);
    assert_eq!(fan.counts().succeeded, 2);
}

#[test]
fn foreign_workers_are_collected() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let fan = FanOut::new(&context(1));
    fan.start(&tracer, "resize").succeed();
    fan.collect("remote", &context(2), Ok::<_, String>(()));
    fan.collect("remote", &context(3), Err("no answer"));
    fan.collect("remote", &SpanContext::NONE, Ok::<_, String>(()));
    let (merge, counts) = fan.aggregate(&tracer, "merge");
    merge.succeed();
    assert_eq!((counts.started, counts.succeeded, counts.failed), (4, 3, 1));
    let links = exporter.span("merge").links;
    assert_eq!(links.len(), 4, "one has no span");
    assert!(leads_to(&links[2], &context(2)) && leads_to(&links[3], &context(3)));
    assert_eq!(index(&links[3].attributes), 2);
    assert_eq!(attribute(&links[3].attributes, "worker.error"), "no answer".into());
    assert_eq!(attribute(&links[3].attributes, "aggregation.source"), "remote".into());
}

#[test]
fn link_policy_applies() {
    let exporter = Exporter::default();
    let set = LinkSet::builder()
        .with_link_policy(LinkPolicy::new().with_invalid(Invalid::Keep))
        .build()
        .unwrap();
    let fan = FanOut::with_link_set(&context(1), set);
    fan.collect("remote", &SpanContext::NONE, Ok::<_, String>(()));
    fan.aggregate(&exporter.tracer(), "merge").0.succeed();
    assert_eq!(exporter.span("merge").links.len(), 2);
}
