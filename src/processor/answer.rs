//! The way back: every caller gets exactly one answer.

use super::coalesce::Callers;
use super::failure::Failure;
use super::reply::Caller;
use super::span::BatchSpan;
use crate::panic::caught;
use crate::sync::Arc;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Display};
use std::mem::take;

/// Why a [`call`](super::Submitter::call) has no result.
///
/// ```
/// use batchlink::processor::CallError;
///
/// let error: CallError<&str> = CallError::Failed("out of stock");
/// assert_eq!(error.to_string(), "the item failed: out of stock");
/// let error: CallError<&str> = CallError::ResultCount { items: 4, results: 3 };
/// assert_eq!(error.to_string(), "the handler gave 3 results for 4 items");
/// ```
///
/// It implements [`Error`] where `E` does, which `?` into a `Box<dyn Error>` needs. `String` and
/// `&str` are texts and no errors: map the whole error to its text, or take an error type for `E`.
///
/// ```
/// use batchlink::processor::{BatchProcessor, CallError};
/// # use opentelemetry::trace::noop::NoopTracer;
/// # use std::{error::Error, fmt};
///
/// #[derive(Debug)]
/// enum StoreError { OutOfStock }
///
/// impl fmt::Display for StoreError {
///     // ...
/// #   fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("out of stock") }
/// }
/// impl Error for StoreError {}
///
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let tracer = NoopTracer::new();
/// let (store, processor) = BatchProcessor::<u32, (), StoreError>::builder("store").build(tracer)?;
/// # let tracer = NoopTracer::new();
/// let (send, texts) = BatchProcessor::<u32, (), String>::builder("send").build(tracer)?;
/// let _store_handle = processor.spawn(|batch| batch.fail_all(|_| StoreError::OutOfStock))?;
/// let _send_handle = texts.spawn(|batch| batch.succeed_all(|_| ()))?;
///
/// let stored = || -> Result<(), Box<dyn Error>> { Ok(store.call_blocking(3)?) };
/// assert_eq!(stored().unwrap_err().to_string(), "the item failed: out of stock");
/// send.call_blocking(3).map_err(|error| error.to_string())?; // `E` is `String`
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The shard was full, and the item was not accepted. `call_wait` waits instead.
    Full,
    /// The processor is closed, or was dropped before it took the item.
    Closed,
    /// The handler failed this item.
    Failed(E),
    /// The handler panicked while it had this item.
    Panicked,
    /// The item was dropped without an answer: the handler returned early, or its future was
    /// dropped.
    Unanswered,
    /// [`Batch::complete`](super::Batch::complete) was given another number of results than the
    /// batch has items, so no result is known to be this item's.
    ResultCount {
        /// Items of the batch.
        items: usize,
        /// Results given; `items + 1` stands for any number over `items`.
        results: usize,
    },
    /// The item was coalesced with others of its key, and cloning their answer for this caller
    /// panicked; see [`with_coalescing`](super::BatchProcessorBuilder::with_coalescing).
    ClonePanicked,
    /// The timeout elapsed first. The item is processed all the same.
    Timeout,
    /// The call was made in the processor's own handler, which would wait for itself. The item was
    /// not submitted.
    OwnHandler,
    /// A blocking call was made on a thread that polls tokio tasks. The item was not submitted;
    /// await [`call`](super::Submitter::call) instead.
    AsyncContext,
}

impl<E> CallError<E> {
    /// The text, without the handler's own error.
    pub(super) fn reason(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Full => "the item was not accepted: the shard's queue is full",
            Self::Closed => "the item was not processed: the batch processor is closed",
            Self::Failed(_) => "the item failed",
            Self::Panicked => "the handler panicked while it had the item",
            Self::Unanswered => "the handler gave no answer for the item",
            Self::ResultCount { items, results } => {
                let or_more = if results > items { " or more" } else { "" };
                return format!("the handler gave {results}{or_more} results for {items} items")
                    .into();
            }
            Self::ClonePanicked => "the clone of the coalesced items' answer panicked",
            Self::Timeout => "no answer within the given time",
            Self::OwnHandler => {
                "the item was not submitted: the processor's own handler would wait for itself"
            }
            Self::AsyncContext => {
                "the item was not submitted: a blocking call would stop this thread's async tasks"
            }
        })
    }
}

impl<E: Display> Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        match self {
            Self::Failed(error) => write!(f, ": {error}"),
            _ => Ok(()),
        }
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// What a caller gets.
pub(super) type CallResult<R, E> = Result<R, CallError<E>>;

/// A handle to report the result of one item.
///
/// An item counts as succeeded only if its handle says so. Dropping the handle reports a failure,
/// whether or not a caller waits: [`CallError::Panicked`] while a panic unwinds, otherwise
/// [`CallError::Unanswered`].
///
/// ```
/// use batchlink::processor::{BatchProcessor, CallError};
/// # use opentelemetry::trace::noop::NoopTracer;
///
/// let (submitter, mut processor) = BatchProcessor::<u64, u64, String>::builder("square")
///     .with_max_batch_size(2)
///     .with_shards(1)
///     .build(NoopTracer::new())?;
/// submitter.submit(3)?;
/// submitter.submit(4)?;
/// let mut items = processor.next_batch().expect("two items are due").into_iter();
///
/// let (number, answer) = items.next().expect("the first").into_parts();
/// answer.succeed(number * number);
/// drop(items); // and the second item with them
/// assert_eq!((submitter.stats().succeeded(), submitter.stats().failed()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it fails the item"]
pub struct Answer<R, E> {
    pub(super) callers: Callers<R, E>,
    /// `None` once answered.
    pub(super) span: Option<Arc<BatchSpan>>,
}

impl<R, E> Answer<R, E> {
    pub(super) fn new(caller: Option<Caller<R, E>>, span: Arc<BatchSpan>) -> Self {
        Self { callers: caller.into(), span: Some(span) }
    }

    /// Reports success. Does not wait for the caller; one that has given up makes no difference.
    ///
    /// Cost: one uncontended lock. Its only other holder is a caller's thread for the moment in
    /// which its future is dropped, or polled with another waker.
    pub fn succeed(self, result: R) {
        self.give(Ok(result), Failure::of);
    }

    /// Reports a failure. The text of a batch's first error is on the batch span, cut at 4096
    /// bytes.
    pub fn fail(self, error: E)
    where
        E: Display,
    {
        self.give(Err(CallError::Failed(error)), |error| match error {
            CallError::Failed(error) => Failure::error(error),
            error => Failure::of(error),
        });
    }

    /// Reports `result`.
    pub fn complete(self, result: Result<R, E>)
    where
        E: Display,
    {
        match result {
            Ok(result) => self.succeed(result),
            Err(error) => self.fail(error),
        }
    }

    /// Returns whether a caller waits for the answer. None does if the item was only submitted, or
    /// the caller has given up: work for it can be skipped.
    pub fn is_awaited(&self) -> bool {
        self.callers.is_awaited()
    }

    /// Counts the item, then answers its caller, then lets the span end
    /// (invariant `count-answer-end`).
    pub(super) fn give(
        mut self,
        reply: CallResult<R, E>,
        why: impl FnOnce(&CallError<E>) -> Failure,
    ) {
        let Some(span) = self.span.take() else { return };
        let caller = match take(&mut self.callers) {
            Callers::None => None,
            Callers::One(caller) => Some(caller),
            Callers::Many(group) => return group.answer(reply, &span, why),
        };
        match &reply {
            Ok(_) => span.succeed(),
            Err(error) => span.fail(|| why(error)),
        }
        send(caller, reply);
    }
}

impl<R, E> Drop for Answer<R, E> {
    fn drop(&mut self) {
        if self.span.is_some() {
            let panicking = std::thread::panicking();
            let error = if panicking { CallError::Panicked } else { CallError::Unanswered };
            let answer = Self { callers: take(&mut self.callers), span: self.span.take() };
            answer.give(Err(error), Failure::of);
        }
    }
}

/// Sends a reply, or drops it if there is no caller. A caller that has given up, or does so now,
/// drops it here or at its own end.
///
/// Dropping a reply and waking a caller are user code: a panic of theirs must not cost other
/// callers their answers.
pub(super) fn send<R, E>(caller: Option<Caller<R, E>>, reply: CallResult<R, E>) {
    let _ = caught(|| match caller {
        Some(caller) => caller.answer(reply),
        None => drop(reply),
    });
}

impl<R, E> fmt::Debug for Answer<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("is_awaited", &self.is_awaited()).finish_non_exhaustive()
    }
}
