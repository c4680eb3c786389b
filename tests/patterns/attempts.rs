//! Attempts: what their spans say, and what they link to, as exported.

use super::common::{context, number, watchdog, with_flags};
use super::exported::*;
use batchlink::patterns::{Attempts, SpanGuard};
use batchlink::{LinkPolicy, LinkSet, Unsampled};
use futures_util::FutureExt;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::{future, thread};

/// The attempts that the span links to, by the links' attributes; each must lead where it says.
fn linked(spans: &[SpanData], index: usize) -> Vec<usize> {
    let to = |link: &opentelemetry::trace::Link| {
        let Value::I64(number) = attribute(&link.attributes, "previous.attempt_number") else {
            panic!("{link:?}")
        };
        assert!(leads_to(link, &spans[number as usize - 1].span_context), "attempt {number}");
        number as usize
    };
    spans[index].links.iter().map(to).collect()
}

#[test]
fn attempt_links_all_earlier_ones() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("charge_card").with_kind(SpanKind::Client);
    for error in ["timeout", "503"] {
        assert_eq!(attempts.run(&tracer, |_| Err::<(), _>(error)), Err(error));
    }
    assert_eq!(attempts.run(&tracer, |_| Ok::<_, String>(7)), Ok(7));

    let spans = exporter.spans();
    assert_eq!(spans.iter().map(|span| span.name.as_ref()).collect::<Vec<_>>(), ["charge_card"; 3]);
    assert!(spans.iter().all(|span| span.span_kind == SpanKind::Client && is_root(span)));
    assert_eq!((error(&spans[0]), error(&spans[1])), ("timeout", "503"));
    assert_eq!(spans[2].status, Status::Unset);
    for (index, span) in spans.iter().enumerate() {
        let mut said = vec![format!("retry.attempt_number={}", index + 1)];
        said.splice(0..0, (index < 2).then(|| "error.type=_OTHER".to_owned()));
        assert_eq!(attributes(&span.attributes), said);
        assert_eq!(linked(&spans, index), (1..=index).collect::<Vec<_>>());
    }
    let texts: Vec<_> = spans[2].links.iter().map(|link| attributes(&link.attributes)).collect();
    let expected = |number: usize, error: &str| {
        [
            "link.type=retry".to_owned(),
            format!("previous.attempt_number={number}"),
            format!("previous.error={error}"),
            "retry.attempt_number=3".to_owned(),
        ]
    };
    assert_eq!(texts, [expected(1, "timeout"), expected(2, "503")]);

    let outcome = attempts.outcome();
    assert_eq!((outcome.attempts, outcome.failed, outcome.succeeded_on), (3, 2, Some(3)));
    assert_eq!(outcome.last_error.as_deref(), Some("503"));
    assert!(!outcome.exhausted());
    assert_eq!(
        attributes(&outcome.attributes()),
        ["retry.attempts=3", "retry.failed=2", "retry.succeeded_on=3"]
    );
}

#[test]
fn last_allowed_attempt_says_exhausted() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    for (results, exhausted) in [([false, false], true), ([false, true], false)] {
        let attempts = Attempts::new("call").with_max_attempts(2);
        assert!(!attempts.outcome().exhausted(), "nothing was tried");
        for succeeds in results {
            let attempt = attempts.start(&tracer);
            if succeeds { attempt.succeed() } else { attempt.fail("no") }
        }
        assert_eq!(attempts.outcome().exhausted(), exhausted);
        let outcome = attributes(&attempts.outcome().attributes());
        assert_eq!(outcome.contains(&"retry.exhausted=true".to_owned()), exhausted);
    }
    let marked: Vec<_> = exporter
        .spans()
        .iter()
        .map(|span| attributes(&span.attributes).contains(&"retry.exhausted=true".to_owned()))
        .collect();
    assert_eq!(marked, [false, true, false, false]);
}

#[test]
fn first_and_latest_are_linked() {
    for (bound, attempts, expected) in [
        (3, 7, vec![1, 5, 6]),
        (1, 4, vec![1]),
        (2, 3, vec![1, 2]),
        (2, 9, vec![1, 8]),
        (32, 40, vec![]),
    ] {
        let exporter = Exporter::default();
        let tracer = exporter.tracer();
        let set = LinkSet::builder().with_max_links(bound).build().unwrap();
        let tried = match bound {
            32 => Attempts::new("call"),
            _ => Attempts::new("call").with_link_set(set),
        };
        for number in 1..=attempts {
            let _ = tried.run(&tracer, |_| Err::<(), _>(format!("error {number}")));
        }
        let spans = exporter.spans();
        let last = &spans[attempts - 1];
        let links = linked(&spans, attempts - 1);
        if bound == 32 {
            assert_eq!(
                links,
                (1..=1).chain(attempts - 31..attempts).collect::<Vec<_>>(),
                "the default"
            );
        } else {
            assert_eq!(links, expected);
        }
        for (link, number) in last.links.iter().zip(links) {
            assert_eq!(
                attribute(&link.attributes, "previous.error"),
                format!("error {number}").into()
            );
        }
        let said = attributes(&last.attributes);
        assert_eq!(said.contains(&"links.truncated=true".into()), attempts - 1 > bound, "{said:?}");
        let original = format!("links.original_count={}", attempts - 1);
        assert_eq!(said.contains(&original), attempts - 1 > bound, "{said:?}");
    }
}

/// An attempt that cannot be linked does not take the place of the first.
#[test]
fn unlinkable_attempt_is_not_first() {
    let exporter = Exporter::default();
    let set = LinkSet::builder().with_max_links(2).build().unwrap();
    let attempts = Attempts::new("call").with_link_set(set);
    attempts.collect(&with_flags(1, TraceFlags::NOT_SAMPLED), Err("not sampled"));
    (2..=4).for_each(|number| attempts.collect(&context(number), Err("no")));
    attempts.start(&exporter.tracer()).succeed();
    let links = &exporter.span("call").links;
    assert_eq!(links.iter().map(number).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn dropped_attempt_fails() {
    const DROPPED: &str = "dropped before it finished";
    const PANICKED: &str = "panicked before it finished";
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("call");
    drop(attempts.start(&tracer));
    let panicking =
        || attempts.run(&tracer, |_| -> Result<(), String> { panic!("bad luck, and meant to be") });
    assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
    let mut cancelled =
        Box::pin(attempts.run_async(&tracer, future::pending::<Result<(), String>>()));
    assert!((&mut cancelled).now_or_never().is_none());
    assert_eq!(exporter.spans().len(), 2, "it is under way");
    drop(cancelled);
    drop(attempts.run_async(&tracer, future::pending::<Result<(), String>>()));
    let panicking = async { panic!("bad luck, and meant to be") };
    let panicking = attempts.run_async(&tracer, AssertUnwindSafe(panicking).map(Ok::<(), String>));
    assert!(catch_unwind(AssertUnwindSafe(|| panicking.now_or_never())).is_err());
    let spans = exporter.spans();
    let ends = spans.iter().map(|span| (error(span), attribute(&span.attributes, "error.type")));
    let (dropped, panicked) = ((DROPPED, "dropped".into()), (PANICKED, "panicked".into()));
    assert!(ends.eq([dropped.clone(), panicked.clone(), dropped.clone(), dropped, panicked]));
    assert_eq!(linked(&spans, 3), [1, 2, 3]);
    assert_eq!(attribute(&spans[3].links[2].attributes, "previous.error"), DROPPED.into());
    let outcome = attempts.outcome();
    assert_eq!(
        (outcome.attempts, outcome.failed, outcome.last_error.as_deref()),
        (5, 5, Some(PANICKED))
    );
}

/// The library sets a status and an `error.type` only on failure, and only where the work did not.
/// (Of two errors the SDK would keep the one that is later in the alphabet.)
#[test]
fn user_status_stays() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("call");
    let set = |cx: &Context, status: Status| {
        cx.span().set_status(status);
        Ok::<_, String>(())
    };
    let results = [
        attempts.run(&tracer, |cx| set(cx, Status::error("partial"))),
        attempts.run(&tracer, |cx| set(cx, Status::Ok)),
        attempts.run(&tracer, |cx| set(cx, Status::Ok).and(Err("no".into()))),
        attempts.run(&tracer, |cx| set(cx, Status::error("a mine")).and(Err("no".into()))),
        attempts.run(&tracer, |cx| {
            cx.span().set_attribute(KeyValue::new("error.type", "timeout"));
            Err("no".into())
        }),
        attempts.run(&tracer, |_| Ok(())),
    ];
    assert_eq!(results.map(|result| result.is_ok()), [true, true, false, false, false, true]);
    let spans = exporter.spans();
    let statuses: Vec<_> = spans.iter().map(|span| span.status.clone()).collect();
    let own = [Status::error("partial"), Status::Ok, Status::Ok, Status::error("a mine")];
    assert_eq!(statuses[..4], own);
    assert_eq!(statuses[4..], [Status::error("no"), Status::Unset]);
    assert_eq!(attribute(&spans[3].attributes, "error.type"), Value::from("_OTHER"));
    assert_eq!(attribute(&spans[4].attributes, "error.type"), Value::from("timeout"));
}

/// An error whose text has no end, and panics when it is dropped.
#[test]
fn endless_error_text_is_cut() {
    struct Endless;
    impl std::fmt::Display for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            loop {
                f.write_str("no ")?;
            }
        }
    }
    impl Drop for Endless {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let exporter = Exporter::default();
    Attempts::new("call").start(&exporter.tracer()).fail(Endless);
    let spans = exporter.spans();
    assert_eq!(error(&spans[0]).len(), 4096 + '…'.len_utf8());
}

#[test]
fn failure_names_its_type() {
    let exporter = Exporter::default();
    let attempts = Attempts::new("call").with_max_attempts(1);
    attempts.start(&exporter.tracer()).fail_as("timeout", "no answer within 5 s");
    let span = exporter.span("call");
    assert_eq!(error(&span), "no answer within 5 s");
    let said = ["error.type=timeout", "retry.attempt_number=1", "retry.exhausted=true"];
    assert_eq!(attributes(&span.attributes), said);
}

/// A guard for any span, such as a batch's.
#[test]
fn any_span_can_be_guarded() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let parent = tracer.in_span("parent", |parent| {
        let guard = SpanGuard::start(&tracer, SpanBuilder::from_name("settle orders"));
        assert_eq!(guard.run(|_| Err::<(), _>("no")), Err("no"));
        parent.span().span_context().span_id()
    });
    let span = exporter.span("settle orders");
    assert_eq!((error(&span), span.parent_span_id), ("no", parent));
    assert_eq!(attributes(&span.attributes), ["error.type=_OTHER"]);
}

#[test]
fn work_runs_in_its_span() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("call");
    tracer.in_span("operation", |operation| {
        let sync = attempts.run(&tracer, |cx| {
            assert_eq!(Context::current().span().span_context(), cx.span().span_context());
            tracer.in_span("sync child", |_| Err::<(), _>("no"))
        });
        assert_eq!(sync, Err("no"));
        let future = async { tracer.in_span("async child", |_| Ok::<_, String>(())) };
        assert_eq!(attempts.run_async(&tracer, future).now_or_never().unwrap(), Ok(()));
        let current = Context::current();
        assert_eq!(current.span().span_context(), operation.span().span_context(), "as before");
    });
    let spans = exporter.spans();
    let parent = |name: &str| exporter.span(name).parent_span_id;
    assert_eq!(parent("sync child"), spans[1].span_context.span_id());
    assert_eq!(parent("async child"), spans[3].span_context.span_id());
    let operation = exporter.span("operation").span_context.span_id();
    assert_eq!((spans[1].parent_span_id, spans[3].parent_span_id), (operation, operation));
}

#[test]
fn held_context_delays_no_end() {
    let exporter = Exporter::default();
    let attempt = Attempts::new("call").start(&exporter.tracer());
    let held = attempt.context().clone();
    assert_eq!(held.span().span_context(), &attempt.span_context());
    attempt.succeed();
    assert_eq!(exporter.span("call").status, Status::Unset);
    drop(held);
    assert_eq!(exporter.spans().len(), 1);
}

#[test]
fn foreign_attempts_are_collected() {
    let exporter = Exporter::default();
    let attempts = Attempts::new("handle_message");
    attempts.collect(&context(1), Err("crashed"));
    attempts.collect(&SpanContext::NONE, Err("never traced"));
    attempts.start(&exporter.tracer()).succeed();
    let span = exporter.span("handle_message");
    assert_eq!(attributes(&span.attributes), ["retry.attempt_number=3"]);
    assert_eq!(span.links.len(), 1, "one has no span");
    assert!(leads_to(&span.links[0], &context(1)));
    let said = ["previous.attempt_number=1", "previous.error=crashed"];
    assert_eq!(attributes(&span.links[0].attributes)[1..3], said);
    let outcome = attempts.outcome();
    assert_eq!((outcome.attempts, outcome.failed, outcome.succeeded_on), (3, 2, Some(3)));

    attempts.collect(&context(4), Ok::<_, String>(()));
    assert_eq!(attempts.outcome().attempts, 4);
    assert_eq!(attempts.outcome().succeeded_on, Some(3));
}

/// As with hedged requests.
#[test]
fn running_attempt_links_without_error() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("call");
    let first = attempts.start(&tracer);
    attempts.clone().start(&tracer).succeed();
    first.fail("too late");
    attempts.start(&tracer).succeed();
    let spans = exporter.spans();
    let of_second = attributes(&spans[0].links[0].attributes);
    assert_eq!(
        of_second,
        ["link.type=retry", "previous.attempt_number=1", "retry.attempt_number=2"]
    );
    let errors = spans[2]
        .links
        .iter()
        .map(|link| attributes(&link.attributes).contains(&"previous.error=too late".to_owned()));
    assert_eq!(errors.collect::<Vec<_>>(), [true, false]);
    assert_eq!(attempts.outcome().succeeded_on, Some(2), "the first that succeeded");
}

#[test]
fn threads_count_each_attempt_once() {
    let _watchdog = watchdog();
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("call");
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (attempts, start, tracer) = (attempts.clone(), &start, &tracer);
            scope.spawn(move || {
                start.wait();
                for n in 0..50 {
                    let _ = attempts
                        .run(tracer, |_| if (n + thread) % 5 == 0 { Ok(()) } else { Err("no") });
                }
            });
        }
    });
    let outcome = attempts.outcome();
    assert_eq!((outcome.attempts, outcome.failed), (200, 160));
    let mut numbers: Vec<_> = exporter
        .spans()
        .iter()
        .map(|span| match attribute(&span.attributes, "retry.attempt_number") {
            Value::I64(number) => number,
            other => panic!("{other:?}"),
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[test]
fn links_cut_long_errors() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("call");
    let long = format!("x{}", "é".repeat(1000));
    attempts.start(&tracer).fail(&long);
    attempts.start(&tracer).succeed();
    let spans = exporter.spans();
    assert_eq!(error(&spans[0]), long);
    let kept = format!("x{}", "é".repeat(127));
    assert_eq!(attribute(&spans[1].links[0].attributes, "previous.error"), kept.clone().into());
    assert_eq!(attempts.outcome().last_error, Some(kept));
}

#[test]
fn link_policy_applies() {
    let memory = InMemorySpanExporter::default();
    let unsampled =
        SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build().tracer("test");
    let sampled =
        SdkTracerProvider::builder().with_simple_exporter(memory.clone()).build().tracer("test");
    for (policy, links) in [(Unsampled::Drop, 0), (Unsampled::Keep, 1)] {
        let set = LinkSet::builder()
            .with_link_policy(LinkPolicy::new().with_unsampled(policy))
            .build()
            .unwrap();
        let attempts = Attempts::new("call").with_link_set(set);
        attempts.start(&unsampled).fail("no");
        let _parent = Context::new().with_remote_span_context(context(5)).attach();
        attempts.start(&sampled).succeed();
        let spans = memory.get_finished_spans().unwrap();
        assert_eq!(spans.last().unwrap().links.len(), links);
        assert_eq!(spans.last().unwrap().parent_span_id, context(5).span_id());
    }
}

#[test]
fn span_guard_shows_its_context() {
    let exporter = Exporter::default();
    let operation = Attempts::new("charge_card").start(&exporter.tracer());
    assert_eq!(
        format!("{operation:?}"),
        format!("SpanGuard {{ cx: {:?}, .. }}", operation.context())
    );
    operation.succeed();
}
