//! One request spread over workers in traces of their own, and put together again.

use crate::link_set::policy::LinkPolicy;
use crate::link_set::{DEFAULT_MAX_LINKS, LinkSet};
use crate::links;
use crate::links::relation::Relation;
use crate::patterns::operation::{SpanGuard, lock, shortened, truncation};
use opentelemetry::trace::{Span, SpanContext, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex};

const WORKER_INDEX: &str = "worker.index";

/// Spreads a request over workers and puts their results together: a span for each worker, in a
/// trace of its own and linked to the request, and one aggregation span that is linked to the
/// request and to the workers.
///
/// A trace with a thousand workers below one request can hardly be read, and many backends cut it.
/// Here each worker has a trace, and the aggregation leads to all of them, with those marked that
/// have failed.
///
/// ```
/// use batchlink::patterns::FanOut;
/// use opentelemetry::{global, trace::{TraceContextExt, Tracer}};
/// use std::thread;
///
/// let tracer = global::tracer("thumbnails");
/// tracer.in_span("request", |request| {
///     let fan = FanOut::new(request.span().span_context());
///     thread::scope(|scope| {
///         for size in [64, 128, 256] {
///             let worker = fan.start(&tracer, "resize"); // here: workers are numbered in this order
///             scope.spawn(move || worker.run(|_cx| if size < 200 { Ok(size) } else { Err("too large") }));
///         }
///     });
///     let (merge, counts) = fan.aggregate(&tracer, "merge");
///     let _ = merge.run(|_cx| counts.result());
///     assert_eq!((counts.succeeded, counts.failed), (2, 1));
/// });
/// ```
///
/// | attribute | of a worker's span | of the aggregation's links to workers |
/// |---|---|---|
/// | `worker.index`, from 0 | ● | ● |
/// | `worker.failed` = `true`, `worker.error` (at most 256 bytes) | | ● if it failed |
/// | `aggregation.source`, the worker's name | | ● |
///
/// Links to the request have the type `spawned_from` on workers and `caused_by` on the aggregation,
/// those to the workers `aggregation`. The aggregation span has `workers.started`,
/// `workers.succeeded` and `workers.failed`.
///
/// # Guarantees
///
/// - Every worker is counted; one that was dropped (a panic, a cancelled task) has failed.
/// - Memory is bounded: links go into a [`LinkSet`] as the workers end, the request's first. What
///   it has no room for is counted, and the aggregation span says so (`links.truncated`,
///   `links.original_count`).
/// - Workers that are still under way when the aggregation starts are not linked, but counted as
///   started.
/// - It can be shared among threads and tasks, and cloned: clones count together.
#[derive(Clone, Debug)]
pub struct FanOut {
    request: SpanContext,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    set: LinkSet,
    counts: FanCounts,
}

/// What became of the workers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FanCounts {
    /// Workers that were started.
    pub started: usize,
    /// Workers that have succeeded.
    pub succeeded: usize,
    /// Workers that have failed.
    pub failed: usize,
}

impl FanOut {
    /// No workers yet. At most 128 links on the aggregation span.
    pub fn new(request: &SpanContext) -> Self {
        Self::with_link_set(request, LinkSet::new(LinkPolicy::default(), DEFAULT_MAX_LINKS))
    }

    /// As [`new`](Self::new), with your own bound and policies for the links of the aggregation span.
    pub fn with_link_set(request: &SpanContext, mut set: LinkSet) -> Self {
        set.insert_link(links::typed(request, Relation::CausedBy));
        let state = State { set, counts: FanCounts::default() };
        Self { request: request.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// Starts the span of a worker, as the root of a trace of its own. Send it to where the work is
    /// done.
    pub fn start<T>(&self, tracer: &T, name: impl Into<Cow<'static, str>>) -> SpanGuard
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let name = name.into();
        let index = self.started();
        let mut set = LinkSet::new(LinkPolicy::default(), 1);
        set.insert_link(links::typed(&self.request, Relation::SpawnedFrom));
        let span = tracer
            .span_builder(name.clone())
            .with_links(set.finish().into_links())
            .with_attributes([KeyValue::new(WORKER_INDEX, links::int(index))]);
        let fan = self.clone();
        SpanGuard::start(tracer, span, &Context::new(), move |cx, result| {
            fan.ended(name, index, cx.span().span_context(), result);
        })
    }

    /// Counts a worker whose span was made elsewhere, by another process for instance, with its result.
    pub fn collect(
        &self,
        name: impl Into<Cow<'static, str>>,
        worker: &SpanContext,
        result: Result<(), impl Display>,
    ) {
        let result = result.map_err(|error| error.to_string());
        let result = result.as_ref().map_err(String::as_str);
        self.ended(name.into(), self.started(), worker, result.copied());
    }

    /// What became of the workers so far.
    pub fn counts(&self) -> FanCounts {
        lock(&self.state).counts
    }

    /// Starts the aggregation span, linked to the request and to the workers that have ended. Its
    /// parent is the current context.
    pub fn aggregate<T>(self, tracer: &T, name: impl Into<Cow<'static, str>>) -> (SpanGuard, FanCounts)
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let mut state = lock(&self.state);
        let (batch, counts) = (state.set.finish(), state.counts);
        drop(state);
        let mut attributes = truncation(batch.linked(), batch.truncated());
        attributes.extend(counts.attributes());
        let mut span = tracer.span_builder(name).with_attributes(attributes);
        span.links = Some(batch.into_links()); // `with_links` would drop what the set's policy keeps
        (SpanGuard::start(tracer, span, &Context::current(), |_, _| ()), counts)
    }

    /// Returns the index of the new worker.
    fn started(&self) -> usize {
        let counts = &mut lock(&self.state).counts;
        counts.started += 1;
        counts.started - 1
    }

    fn ended(&self, name: Cow<'static, str>, index: usize, worker: &SpanContext, result: Result<(), &str>) {
        let mut link = links::aggregate(worker, name);
        link.attributes.push(KeyValue::new(WORKER_INDEX, links::int(index)));
        let mut state = lock(&self.state);
        match result {
            Ok(()) => state.counts.succeeded += 1,
            Err(error) => {
                state.counts.failed += 1;
                link.attributes.push(KeyValue::new("worker.failed", true));
                link.attributes.push(KeyValue::new("worker.error", shortened(error)));
            }
        }
        state.set.insert_link(link);
    }
}

impl FanCounts {
    /// `Ok` if no worker has failed.
    ///
    /// # Errors
    ///
    /// [`WorkersError`], with how many did.
    pub fn result(&self) -> Result<(), WorkersError> {
        if self.failed == 0 {
            Ok(())
        } else {
            Err(WorkersError { failed: self.failed, started: self.started })
        }
    }

    /// Of the aggregation span: `workers.started`, `workers.succeeded`, `workers.failed`.
    fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new("workers.started", links::int(self.started)),
            KeyValue::new("workers.succeeded", links::int(self.succeeded)),
            KeyValue::new("workers.failed", links::int(self.failed)),
        ]
    }
}

/// Some workers of a [`FanOut`] have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkersError {
    /// Workers that have failed.
    pub failed: usize,
    /// Workers that were started.
    pub started: usize,
}

impl fmt::Display for WorkersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} workers failed", self.failed, self.started)
    }
}

impl Error for WorkersError {}
