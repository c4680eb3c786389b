//! The attempts at one piece of work, each linked to the earlier ones.

use crate::link_set::LinkSet;
use crate::link_set::policy::LinkPolicy;
use crate::panic::{error_text, unpoisoned};
use crate::patterns::history::History;
use crate::patterns::operation::SpanGuard;
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, SpanKind, Tracer};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};

/// The default bound on an attempt's links.
const MAX_LINKS: usize = 32;

/// The attempts at one piece of work: a span for each, linked to all earlier ones.
///
/// A retry by a scheduler, a queue or a later request is seldom in the trace of the first attempt.
/// Even if it is, its parent does not say that the work was tried before, nor why it failed. The
/// links do. Any retry loop fits: it calls [`run`](Self::run), [`run_async`](Self::run_async), or
/// [`start`](Self::start) where an attempt is not one closure.
///
/// ```
/// use batchlink::patterns::Attempts;
/// use opentelemetry::global;
///
/// let tracer = global::tracer("payments");
/// let attempts = Attempts::new("charge_card");
/// let mut answers = [Err("timeout"), Err("503"), Ok("charged")].into_iter();
/// let result = loop {
///     let result = attempts.run(&tracer, |_cx| answers.next().unwrap_or(Err("out of answers")));
///     if result.is_ok() || attempts.outcome().attempts == 5 {
///         break result;
///     }
///     // ... wait, as your retry crate does it ...
/// };
/// assert_eq!(result, Ok("charged"));
/// assert_eq!(attempts.outcome().succeeded_on, Some(3));
/// ```
///
/// | attribute of the span | |
/// |---|---|
/// | `retry.attempt_number` | from 1 |
/// | `retry.exhausted` | `true` if the last [allowed](Self::with_max_attempts) attempt failed |
/// | `links.truncated`, `links.original_count` | if earlier attempts were left out |
/// | `error.type` | on a failed attempt, see [`SpanGuard`] |
///
/// | attribute of its links | |
/// |---|---|
/// | `link.type` | `retry` |
/// | `retry.attempt_number` | the linking attempt's number |
/// | `previous.attempt_number` | the linked attempt's number |
/// | `previous.error` | its error, at most 256 bytes; absent while it runs (hedged requests) |
///
/// # Guarantees
///
/// - Every attempt is counted. One that is dropped (a panic, a cancelled future) has failed.
/// - A failed attempt's span has status `Error`; success leaves the status as it is.
/// - Memory is bounded. Of more attempts than the [link set](Self::with_link_set) takes (32 by
///   default), the **first** that can be linked and the **latest** are linked: where the work
///   began, and why it is tried again. The span says how many there were.
/// - Attempts can be shared among threads and tasks, and cloned. Clones count together.
#[derive(Clone, Debug)]
pub struct Attempts {
    name: Cow<'static, str>,
    kind: SpanKind,
    max_attempts: u32,
    history: Arc<Mutex<History>>,
}

/// The results of the attempts so far.
///
/// ```
/// use batchlink::patterns::Attempts;
/// use opentelemetry::global;
///
/// let attempts = Attempts::new("charge_card");
/// attempts.start(&global::tracer("payments")).fail("503");
/// let outcome = attempts.outcome();
/// assert!(outcome.exhausted());
/// assert_eq!((outcome.failed, outcome.last_error.as_deref()), (1, Some("503")));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryOutcome {
    /// Attempts that were started.
    pub attempts: u32,
    /// Attempts that failed, dropped ones included.
    pub failed: u32,
    /// The first attempt that succeeded, from 1.
    pub succeeded_on: Option<u32>,
    /// The error of the latest failure, at most 256 bytes.
    pub last_error: Option<String>,
}

impl Attempts {
    /// Creates an account without attempts. `name` is the name of their spans.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        let policy = LinkPolicy::new().with_max_links(MAX_LINKS);
        let set = LinkSet::new(policy, MAX_LINKS);
        Self {
            name: name.into(),
            kind: SpanKind::Internal,
            max_attempts: u32::MAX,
            history: Arc::new(Mutex::new(History::new(set))),
        }
    }

    /// Sets the kind of the spans, mostly `Client`. It defaults to `Internal`.
    ///
    /// ```
    /// use batchlink::patterns::Attempts;
    /// use opentelemetry::trace::SpanKind;
    ///
    /// let attempts = Attempts::new("charge_card").with_kind(SpanKind::Client);
    /// # drop(attempts);
    /// ```
    #[must_use]
    pub fn with_kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets how many attempts the loop makes at most, so that the last one can say
    /// `retry.exhausted`. It does not stop the loop. Attempts beyond the number say so, too.
    ///
    /// ```
    /// use batchlink::patterns::Attempts;
    /// use opentelemetry::global;
    ///
    /// let attempts = Attempts::new("charge_card").with_max_attempts(3);
    /// for _ in 0..3 {
    ///     attempts.start(&global::tracer("payments")).fail("503"); // the third is the last
    /// }
    /// ```
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets how attempts become links: bound, unsampled ones, the key of `link.type`. Over the
    /// bound are always those between the first attempt and the latest: the policy's
    /// [`Truncation`](crate::Truncation) is not used. Nor is `link.count` added.
    ///
    /// A closure that makes link attributes gets the index in which an attempt is chosen: the first
    /// attempt has 0, the latest 1, the one before 2. The closure runs under the lock of these
    /// attempts and must not use them. It also runs for attempts that no span will link.
    ///
    /// ```
    /// use batchlink::{LinkSet, patterns::Attempts};
    ///
    /// let links = LinkSet::builder().with_max_links(4).build()?; // the first and the latest three
    /// let attempts = Attempts::new("charge_card").with_link_set(links);
    /// # drop(attempts);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_link_set(self, mut set: LinkSet) -> Self {
        set.keep_first();
        self.history().set = set;
        self
    }

    /// Starts the span of the next attempt, as a child of the current context.
    ///
    /// Takes a lock for the links, not for the span's start. Allocates the links.
    ///
    /// ```
    /// use batchlink::patterns::Attempts;
    /// use opentelemetry::global;
    ///
    /// let attempts = Attempts::new("deliver");
    /// let attempt = attempts.start(&global::tracer("mailer"));
    /// // ... sent, and its receipt awaited elsewhere ...
    /// attempt.fail_as("timeout", "no receipt within 5 s");
    /// assert_eq!(attempts.outcome().failed, 1);
    /// ```
    pub fn start<T>(&self, tracer: &T) -> SpanGuard
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let mut history = self.history();
        let number = history.next();
        let (links, mut attributes) = history.links(number);
        attributes.push(KeyValue::new("retry.attempt_number", i64::from(number)));
        drop(history); // starting the span runs samplers and processors

        let mut span = SpanBuilder::from_name(self.name.clone())
            .with_kind(self.kind.clone())
            .with_attributes(attributes);
        span.links = Some(links); // `with_links` would drop what the set's policy keeps
        let (attempts, last) = (self.clone(), number >= self.max_attempts);
        let guard = SpanGuard::start_with(tracer, span, &Context::current(), move |_, result| {
            attempts.history().ended(number, result);
            (last && result.is_err()).then(|| KeyValue::new("retry.exhausted", true))
        });
        self.history().note(number, &guard.span_context());
        guard
    }

    /// Makes the next attempt in a span of its own, which is the current one meanwhile. A panic of
    /// the attempt is counted and goes on to the caller.
    ///
    /// # Errors
    ///
    /// The error of the attempt.
    ///
    /// ```
    /// # use batchlink::patterns::Attempts;
    /// # use opentelemetry::global;
    /// let attempts = Attempts::new("charge_card");
    /// let result = attempts.run(&global::tracer("payments"), |_cx| Err::<(), _>("503"));
    /// assert_eq!(result, Err("503"));
    /// ```
    pub fn run<T, R, E>(
        &self,
        tracer: &T,
        attempt: impl FnOnce(&Context) -> Result<R, E>,
    ) -> Result<R, E>
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
        E: Display,
    {
        self.start(tracer).run(attempt)
    }

    /// Makes the next attempt, a future, in a span of its own. The span starts with this call, not
    /// with the first poll. The returned future borrows nothing from the attempts.
    ///
    /// # Errors
    ///
    /// The error of the attempt.
    ///
    /// ```
    /// use batchlink::patterns::Attempts;
    /// use opentelemetry::global;
    ///
    /// # async fn charge() -> Result<(), String> { Ok(()) }
    /// # async fn example() -> Result<(), String> {
    /// let attempts = Attempts::new("charge_card");
    /// attempts.run_async(&global::tracer("payments"), charge()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_async<T, F, R, E>(
        &self,
        tracer: &T,
        attempt: F,
    ) -> impl Future<Output = Result<R, E>> + use<T, F, R, E>
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
        F: Future<Output = Result<R, E>>,
        E: Display,
    {
        self.start(tracer).run_async(attempt)
    }

    /// Counts an attempt that was made elsewhere, such as in the process that had the message
    /// before. The next attempt links to it as to any other.
    ///
    /// ```
    /// use batchlink::{carrier, patterns::Attempts};
    ///
    /// let attempts = Attempts::new("handle_message");
    /// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    /// attempts.collect(&carrier::parse_traceparent(header, None)?, Err("the worker crashed"));
    /// assert_eq!(attempts.outcome().failed, 1);
    /// # Ok::<(), carrier::CarrierError>(())
    /// ```
    pub fn collect(&self, attempt: &SpanContext, result: Result<(), impl Display>) {
        let result = result.map_err(error_text);
        let mut history = self.history();
        let number = history.next();
        history.note(number, attempt);
        history.ended(number, result.as_ref().map_err(String::as_str).copied());
    }

    /// Returns the results so far.
    pub fn outcome(&self) -> RetryOutcome {
        self.history().outcome.clone()
    }

    /// Nothing panics while it holds this lock, but for an allocation that fails.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        unpoisoned(self.history.lock())
    }
}

impl RetryOutcome {
    /// Returns whether all attempts failed: after the loop, whether it gave up.
    pub fn exhausted(&self) -> bool {
        self.attempts > 0 && self.failed == self.attempts
    }

    /// Returns attributes for the span of the whole work: `retry.attempts`, `retry.failed`, and
    /// `retry.succeeded_on` or `retry.exhausted = true`.
    ///
    /// ```
    /// use batchlink::patterns::Attempts;
    /// use opentelemetry::{global, trace::{TraceContextExt, Tracer}};
    ///
    /// let tracer = global::tracer("payments");
    /// tracer.in_span("pay_order", |order| {
    ///     let attempts = Attempts::new("charge_card");
    ///     let _ = attempts.run(&tracer, |_cx| Err::<(), _>("503"));
    ///     order.span().set_attributes(attempts.outcome().attributes());
    /// });
    /// ```
    pub fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("retry.attempts", i64::from(self.attempts)),
            KeyValue::new("retry.failed", i64::from(self.failed)),
        ];
        attributes.extend(
            self.succeeded_on.map(|number| KeyValue::new("retry.succeeded_on", i64::from(number))),
        );
        if self.exhausted() {
            attributes.push(KeyValue::new("retry.exhausted", true));
        }
        attributes
    }
}
