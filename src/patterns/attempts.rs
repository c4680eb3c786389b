//! The attempts at one piece of work, each linked to those before it.

use crate::link_set::policy::LinkPolicy;
use crate::link_set::record::Bounded;
use crate::link_set::{LinkSet, Outcome};
use crate::links;
use crate::patterns::operation::{SpanGuard, lock, shortened, truncation};
use opentelemetry::trace::{Link, Span, SpanContext, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use std::borrow::Cow;
use std::fmt::Display;
use std::mem;
use std::sync::{Arc, Mutex};

/// Links of an attempt to earlier ones, unless told.
const MAX_LINKS: usize = 32;
const PREVIOUS: &str = "previous.attempt_number";

/// The attempts at one piece of work: a span for each, linked to all that came before it.
///
/// A retry by a scheduler, a queue or a later request is seldom in the trace of the first attempt,
/// and even if it is, its parent does not say that it was tried before, nor why it was tried again.
/// The links do. It fits any retry loop, since a loop need only call [`run`](Self::run) or
/// [`run_async`](Self::run_async), or [`start`](Self::start) where the attempt's end is not that of
/// a closure:
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
/// | `retry.exhausted` | `true` on the failed attempt that was the last one allowed, see [`with_max_attempts`](Self::with_max_attempts) |
/// | `links.truncated`, `links.original_count` | if earlier attempts were left out |
///
/// | attribute of its links | |
/// |---|---|
/// | `link.type` | `retry` |
/// | `retry.attempt_number` | the linking attempt's |
/// | `previous.attempt_number` | the linked attempt's |
/// | `previous.error` | its error, at most 256 bytes; absent as long as it is under way, as with hedged requests |
///
/// # Guarantees
///
/// - Every attempt is counted, and has failed if it was dropped (a panic, a cancelled future): the error
///   is `dropped`.
/// - Memory is bounded: of more attempts than the link set takes (32 unless
///   [told](Self::with_link_set)), the **first** that can be linked
///   and the **latest** are, for where it began
///   and why it is tried again; the span says how many there were.
/// - It can be shared among threads and tasks, and cloned: clones count together.
#[derive(Clone, Debug)]
pub struct Attempts {
    name: Cow<'static, str>,
    kind: SpanKind,
    max_attempts: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    set: LinkSet,
    /// Attempts that are linked by the next one, in order.
    earlier: Vec<Earlier>,
    /// Attempts that were too many for the link set.
    left_out: u64,
    outcome: RetryOutcome,
}

#[derive(Debug)]
struct Earlier {
    number: u32,
    context: SpanContext,
    error: Option<String>,
}

/// What became of the attempts so far.
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
    /// No attempts yet. `name` will be the name of their spans.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        let policy = LinkPolicy::new().with_max_links(MAX_LINKS);
        let set = LinkSet::new(policy, MAX_LINKS);
        let state = State { set, earlier: Vec::new(), left_out: 0, outcome: RetryOutcome::default() };
        Self {
            name: name.into(),
            kind: SpanKind::Internal,
            max_attempts: u32::MAX,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The kind of the spans: `Internal` unless told, mostly `Client`.
    #[must_use]
    pub fn with_kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// How many attempts your loop makes at most, so that the last one can say `retry.exhausted`.
    /// This stops nothing: the loop does. Attempts beyond say so, too.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// How attempts become links: bound, unsampled ones, name of `link.type`.
    ///
    /// If it makes attributes by a closure: the place that is given to it is that in which an attempt is
    /// chosen, so the first attempt has 0, the latest 1, the one before 2. It is called under these
    /// attempts' lock and must not use them, and also for attempts that no span will be linked to.
    #[must_use]
    pub fn with_link_set(self, set: LinkSet) -> Self {
        lock(&self.state).set = set;
        self
    }

    /// Starts the span of the next attempt. Its parent is the current context.
    ///
    /// Takes a lock that is held only for this; allocates the span's links.
    pub fn start<T>(&self, tracer: &T) -> SpanGuard
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let mut state = lock(&self.state);
        let number = state.next();
        let links = state.links(number);
        let mut attributes = truncation(links.len() as u64, state.left_out);
        attributes.push(KeyValue::new("retry.attempt_number", i64::from(number)));
        drop(state); // starting the span runs samplers and processors

        let mut span =
            tracer.span_builder(self.name.clone()).with_kind(self.kind.clone()).with_attributes(attributes);
        span.links = Some(links); // `with_links` would drop what the set's policy keeps
        let (shared, last) = (Arc::clone(&self.state), number >= self.max_attempts);
        let operation = SpanGuard::start(tracer, span, &Context::current(), move |cx, result| {
            if last && result.is_err() {
                cx.span().set_attribute(KeyValue::new("retry.exhausted", true));
            }
            lock(&shared).ended(number, result);
        });
        lock(&self.state).note(number, &operation.span_context());
        operation
    }

    /// Makes the next attempt in a span of its own, which is the current one meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the attempt.
    pub fn run<T, R, E>(&self, tracer: &T, attempt: impl FnOnce(&Context) -> Result<R, E>) -> Result<R, E>
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
        E: Display,
    {
        self.start(tracer).run(attempt)
    }

    /// As [`run`](Self::run), for an attempt that is a future. The span starts when this is called,
    /// not when it is first polled. The future that is returned borrows nothing.
    ///
    /// # Errors
    ///
    /// Those of the attempt.
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

    /// Counts an attempt whose span was made elsewhere, by the process that had the message before for
    /// instance, with its result. The next one links to it as to any other.
    pub fn collect(&self, attempt: &SpanContext, result: Result<(), impl Display>) {
        let result = result.map_err(|error| error.to_string());
        let mut state = lock(&self.state);
        let number = state.next();
        state.note(number, attempt);
        state.ended(number, result.as_ref().map_err(String::as_str).copied());
    }

    /// What became of the attempts so far; of all of them, when the loop has ended.
    pub fn outcome(&self) -> RetryOutcome {
        lock(&self.state).outcome.clone()
    }
}

impl State {
    /// Counts an attempt; its number, from 1.
    fn next(&mut self) -> u32 {
        self.outcome.attempts = self.outcome.attempts.saturating_add(1);
        self.outcome.attempts
    }

    /// Attempts that start at the same time may come in any order.
    fn note(&mut self, number: u32, attempt: &SpanContext) {
        // A trace state that no link would keep does not wait for it.
        let context = Bounded::new(attempt).context;
        let place = self.earlier.partition_point(|earlier| earlier.number < number);
        self.earlier.insert(place, Earlier { number, context, error: None });
        if self.earlier.len() > 2 * self.set.max_links() {
            // Otherwise only `start` forgets what has no room, and it may never be called.
            self.links(number);
        }
    }

    /// The links of attempt `number`.
    fn links(&mut self, number: u32) -> Vec<Link> {
        let set = &mut self.set;
        let mut admit = |earlier: &Earlier| {
            let mut link = links::retry(&earlier.context, number);
            link.attributes.push(KeyValue::new(PREVIOUS, i64::from(earlier.number)));
            let error = earlier.error.clone().map(|error| KeyValue::new("previous.error", error));
            link.attributes.extend(error);
            set.insert_link(link) == Outcome::Linked
        };
        // The set keeps what comes first: so the first attempt that it takes, then the latest. What it does
        // not link now it will not link later: it is forgotten, or memory would not be bounded.
        let mut earlier = mem::take(&mut self.earlier).into_iter();
        self.earlier.extend(earlier.find(&mut admit));
        let latest: Vec<_> = earlier.rev().filter(admit).collect();
        self.earlier.extend(latest.into_iter().rev());

        let batch = self.set.finish();
        self.left_out += batch.truncated();
        let mut links = batch.into_links();
        links.sort_by_key(previous);
        links
    }

    fn ended(&mut self, number: u32, result: Result<(), &str>) {
        let Err(error) = result else {
            self.outcome.succeeded_on.get_or_insert(number);
            return;
        };
        let error = shortened(error);
        self.outcome.failed = self.outcome.failed.saturating_add(1);
        if let Some(attempt) = self.earlier.iter_mut().find(|earlier| earlier.number == number) {
            attempt.error = Some(error.clone());
        }
        self.outcome.last_error = Some(error);
    }
}

fn previous(link: &Link) -> i64 {
    let number = link.attributes.iter().find(|attribute| attribute.key.as_str() == PREVIOUS);
    number.map_or(0, |number| if let Value::I64(number) = number.value { number } else { 0 })
}

impl RetryOutcome {
    /// Whether all attempts have failed. Asked after the loop, this says that it gave up.
    pub fn exhausted(&self) -> bool {
        self.attempts > 0 && self.failed == self.attempts
    }

    /// For the span of the whole: `retry.attempts`, `retry.failed`, and `retry.succeeded_on` or
    /// `retry.exhausted = true`.
    pub fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("retry.attempts", i64::from(self.attempts)),
            KeyValue::new("retry.failed", i64::from(self.failed)),
        ];
        attributes
            .extend(self.succeeded_on.map(|number| KeyValue::new("retry.succeeded_on", i64::from(number))));
        if self.exhausted() {
            attributes.push(KeyValue::new("retry.exhausted", true));
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    #[test]
    fn no_more_attempts_are_kept_than_can_be_linked() {
        for flags in [TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED] {
            let set = LinkSet::builder().with_max_links(3).build().unwrap();
            let attempts = Attempts::new("call").with_link_set(set);
            for number in 1..=100 {
                let ids = (TraceId::from(1_u128), SpanId::from(number));
                let context = SpanContext::new(ids.0, ids.1, flags, false, TraceState::NONE);
                attempts.collect(&context, Err("no"));
                attempts.start(&opentelemetry::global::tracer("no sdk")).fail("no");
                let kept = lock(&attempts.state).earlier.len();
                assert!(kept <= 3 + 2, "{kept} are kept");
            }
        }
    }

    #[test]
    fn attempts_of_others_are_not_kept_either_nor_are_their_long_trace_states() {
        for (bound, expected) in [(1, vec![1]), (3, vec![1, 999, 1000])] {
            let set = LinkSet::builder().with_max_links(bound).build().unwrap();
            let attempts = Attempts::new("call").with_link_set(set);
            let state =
                TraceState::from_key_value(["a", "b", "c"].map(|key| (key, "v".repeat(200)))).unwrap();
            for number in 1..=1000 {
                let ids = (TraceId::from(1_u128), SpanId::from(number));
                let context = SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, true, state.clone());
                attempts.collect(&context, Err("no"));
                let earlier = &lock(&attempts.state).earlier;
                assert!(earlier.len() <= 2 * bound, "{} are kept", earlier.len());
                assert!(earlier.iter().all(|attempt| attempt.context.trace_state() == &TraceState::NONE));
            }
            let links = lock(&attempts.state).links(1001);
            assert_eq!(links.iter().map(previous).collect::<Vec<_>>(), expected);
            assert_eq!(lock(&attempts.state).left_out, 1000 - bound as u64);
        }
    }

    #[test]
    fn attempts_that_overlap_are_linked_in_order() {
        let mut state = State {
            set: LinkSet::builder().with_max_links(2).build().unwrap(),
            earlier: Vec::new(),
            left_out: 0,
            outcome: RetryOutcome::default(),
        };
        for number in [2, 1, 3] {
            let ids = (TraceId::from(1_u128), SpanId::from(number));
            let context = SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, false, TraceState::NONE);
            state.note(number as u32, &context);
        }
        assert_eq!(state.links(4).iter().map(previous).collect::<Vec<_>>(), [1, 3]);
    }
}
