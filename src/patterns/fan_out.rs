//! One request spread over workers in traces of their own, and their results put together.

use crate::link_set::policy::LinkPolicy;
use crate::link_set::{DEFAULT_MAX_LINKS, LinkSet};
use crate::links;
use crate::links::relation::Relation;
use crate::panic::{error_text, unpoisoned};
use crate::patterns::operation::{SpanGuard, shortened};
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, Tracer};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard};

const WORKER_INDEX: &str = "worker.index";

/// A request that is spread over workers, and their results put together: a span for each worker,
/// in a trace of its own and linked to the request, and one aggregation span, linked to the request
/// and the workers.
///
/// A trace with a thousand workers below one request can hardly be read, and many backends cut it.
/// Here each worker has a trace of its own, and the aggregation leads to all of them and marks
/// those that failed.
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
///             let worker = fan.start(&tracer, "resize"); // workers are numbered in this order
///             let resize = move || if size < 200 { Ok(size) } else { Err("too large") };
///             scope.spawn(move || worker.run(|_cx| resize()));
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
/// | `error.type`, see [`SpanGuard`] | ● if it failed | |
///
/// A worker's link to the request has the type `spawned_from`, the aggregation's has `caused_by`,
/// and those to the workers have `aggregation`. The aggregation span has `workers.started`,
/// `workers.succeeded` and `workers.failed`.
///
/// # Guarantees
///
/// - Every worker is counted. One that is dropped (a panic, a cancelled task) has failed.
/// - A failed worker's span has status `Error`; success leaves the status as it is.
/// - Memory is bounded. Links go into a [`LinkSet`] as the workers end, the request's first. What
///   does not fit is counted, and the aggregation span says so (`links.truncated`,
///   `links.original_count`).
/// - Workers that still run when the aggregation starts are not linked, but counted as started.
/// - A fan-out can be shared among threads and tasks, and cloned. Clones count together.
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

/// The results of the workers so far.
///
/// ```
/// use batchlink::patterns::FanOut;
/// use opentelemetry::trace::SpanContext;
///
/// let fan = FanOut::new(&SpanContext::NONE);
/// fan.collect("resize", &SpanContext::NONE, Err("too large"));
/// let counts = fan.counts();
/// assert_eq!((counts.started, counts.succeeded, counts.failed), (1, 0, 1));
/// assert_eq!(counts.result().unwrap_err().to_string(), "1 of 1 workers failed");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FanCounts {
    /// Workers that were started.
    pub started: usize,
    /// Workers that succeeded.
    pub succeeded: usize,
    /// Workers that failed.
    pub failed: usize,
}

impl FanOut {
    /// Creates a fan-out without workers, with at most 128 links on the aggregation span.
    pub fn new(request: &SpanContext) -> Self {
        Self::with_link_set(request, LinkSet::new(LinkPolicy::default(), DEFAULT_MAX_LINKS))
    }

    /// Creates a fan-out without workers, with this bound and these policies for the links of the
    /// aggregation span. A closure that makes link attributes runs under the lock of this fan-out
    /// and must not use it.
    ///
    /// ```
    /// use batchlink::{LinkSet, patterns::FanOut};
    /// use opentelemetry::trace::SpanContext;
    ///
    /// let links = LinkSet::builder().with_max_links(64).build()?;
    /// let fan = FanOut::with_link_set(&SpanContext::NONE, links);
    /// # drop(fan);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_link_set(request: &SpanContext, mut set: LinkSet) -> Self {
        set.insert_link(links::typed(request, Relation::CausedBy));
        let state = State { set, counts: FanCounts::default() };
        Self { request: request.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// Starts the span of a worker, as the root of a trace of its own. Send it to where the work is
    /// done. Workers are numbered in the order of these calls.
    ///
    /// ```
    /// use batchlink::patterns::FanOut;
    /// use opentelemetry::{global, trace::SpanContext};
    ///
    /// let fan = FanOut::new(&SpanContext::NONE);
    /// let worker = fan.start(&global::tracer("thumbnails"), "resize");
    /// drop(worker); // its task was cancelled
    /// assert_eq!(fan.counts().failed, 1);
    /// ```
    pub fn start<T>(&self, tracer: &T, name: impl Into<Cow<'static, str>>) -> SpanGuard
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let name = name.into();
        let index = self.started();
        let mut set = LinkSet::new(LinkPolicy::default(), 1);
        set.insert_link(links::typed(&self.request, Relation::SpawnedFrom));
        let span = SpanBuilder::from_name(name.clone())
            .with_links(set.finish().into_links())
            .with_attributes([KeyValue::new(WORKER_INDEX, links::int(index))]);
        let fan = self.clone();
        SpanGuard::start_with(tracer, span, &Context::new(), move |span, result| {
            fan.ended(name, index, span, result);
            None
        })
    }

    /// Counts a worker whose span was made elsewhere, such as in another process.
    pub fn collect(
        &self,
        name: impl Into<Cow<'static, str>>,
        worker: &SpanContext,
        result: Result<(), impl Display>,
    ) {
        let result = result.map_err(error_text);
        let result = result.as_ref().map_err(String::as_str);
        self.ended(name.into(), self.started(), worker, result.copied());
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> FanCounts {
        self.state().counts
    }

    /// Starts the aggregation span, as a child of the current context and linked to the request and
    /// to the workers that have ended. Returns it with their counts.
    ///
    /// ```
    /// use batchlink::patterns::FanOut;
    /// use opentelemetry::{global, trace::SpanContext};
    ///
    /// let fan = FanOut::new(&SpanContext::NONE);
    /// fan.collect("resize", &SpanContext::NONE, Ok::<_, String>(()));
    /// let (merge, counts) = fan.aggregate(&global::tracer("thumbnails"), "merge");
    /// merge.succeed();
    /// assert_eq!(counts.succeeded, 1);
    /// ```
    pub fn aggregate<T>(
        self,
        tracer: &T,
        name: impl Into<Cow<'static, str>>,
    ) -> (SpanGuard, FanCounts)
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let mut state = self.state();
        let (mut batch, counts) = (state.set.finish(), state.counts);
        drop(state);
        let name = name.into();
        let pages = batch.take_pages().named(&name);
        let mut attributes: Vec<_> = batch.truncation(batch.truncated()).collect();
        attributes.extend(counts.attributes());
        let mut span = SpanBuilder::from_name(name).with_attributes(attributes);
        span.links = Some(batch.into_links()); // `with_links` drops what the policy keeps
        let guard = SpanGuard::start(tracer, span);
        pages.start(tracer, &guard.span_context());
        (guard, counts)
    }

    /// Nothing panics while it holds this lock, but for an allocation that fails.
    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }

    /// Counts a new worker and returns its index.
    fn started(&self) -> usize {
        let counts = &mut self.state().counts;
        counts.started += 1;
        counts.started - 1
    }

    fn ended(
        &self,
        name: Cow<'static, str>,
        index: usize,
        worker: &SpanContext,
        result: Result<(), &str>,
    ) {
        let mut link = links::aggregate(worker, name);
        link.attributes.push(KeyValue::new(WORKER_INDEX, links::int(index)));
        let mut state = self.state();
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
    /// Returns `Ok` if no worker failed.
    ///
    /// # Errors
    ///
    /// [`WorkersError`] with the number of workers that did.
    pub fn result(&self) -> Result<(), WorkersError> {
        if self.failed == 0 {
            Ok(())
        } else {
            Err(WorkersError { failed: self.failed, started: self.started })
        }
    }

    /// Returns attributes of the aggregation span: `workers.started`, `workers.succeeded`,
    /// `workers.failed`.
    fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new("workers.started", links::int(self.started)),
            KeyValue::new("workers.succeeded", links::int(self.succeeded)),
            KeyValue::new("workers.failed", links::int(self.failed)),
        ]
    }
}

/// Workers of a [`FanOut`] failed, from [`FanCounts::result`].
///
/// ```
/// use batchlink::patterns::FanOut;
/// use opentelemetry::trace::SpanContext;
///
/// let fan = FanOut::new(&SpanContext::NONE);
/// fan.collect("resize", &SpanContext::NONE, Ok::<_, String>(()));
/// fan.collect("resize", &SpanContext::NONE, Err("too large"));
/// let error = fan.counts().result().unwrap_err();
/// assert_eq!((error.failed, error.started), (1, 2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkersError {
    /// Workers that failed.
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
