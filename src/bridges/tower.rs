//! A [`BatchProcessor`] as a [Tower](https://docs.rs/tower) service (feature `tower`).
//!
//! [`BatchService`] submits single requests, and gives each its own response. [`BatchLayer`] puts
//! one before a service that handles whole batches.
//!
//! ```text
//! Service<T> ─► BatchService ─► queue ─► Batch (span, links) ─► Service<Batch> ─► responses
//! ```
//!
//! # Back-pressure
//!
//! A slot of the queue cannot be reserved, so `poll_ready` is ready until the processor is closed.
//! If the queue is full it is the response's future that waits for a slot, as
//! [`call_wait`](Submitter::call_wait) does: no request is refused for want of room. To bound the
//! requests that wait, limit them before this service. With tower's `ConcurrencyLimit` of the
//! queue's capacity nothing waits for a slot, and `poll_ready` is the back-pressure, to which
//! `LoadShed` and balancers answer.
//!
//! A `Timeout` before this service drops the response's future. The item is then processed all the
//! same, unless [`with_skip_canceled`](BatchProcessorBuilder::with_skip_canceled) says otherwise.

use crate::error::ConfigError;
use crate::processor::{Batch, BatchProcessor, BatchProcessorBuilder, CallError, Submitter};
use opentelemetry::trace::Tracer;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// A service of single requests: each is an item of a [`BatchProcessor`], and its response is the
/// item's own result.
///
/// The batch links the span that is active at `call`. Clones are submitters of one processor,
/// which is closed when the last one is dropped. The module says what
/// [`poll_ready`](self#back-pressure) does.
///
/// ```
/// use batchlink::{processor::BatchProcessor, tower::BatchService};
/// # use opentelemetry::trace::noop::NoopTracer;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tracer = NoopTracer::new();
/// let (submitter, mut processor) = BatchProcessor::<u64, u64, std::io::Error>::builder("square")
///     .with_queue_capacity(1024)
///     .build(tracer)?;
/// tokio::spawn(async move {
///     processor.run_async(async |batch| batch.succeed_all(|n| n * n)).await;
/// });
/// let square = ServiceBuilder::new()
///     .concurrency_limit(1024) // the queue's capacity: `poll_ready` is the back-pressure
///     .service(BatchService::new(submitter));
/// assert_eq!(square.oneshot(7).await?, 49);
/// # Ok(())
/// # }
/// ```
pub struct BatchService<T, R, E> {
    /// `None`: there is no processor.
    submitter: Option<Submitter<T, R, E>>,
}

impl<T, R, E> BatchService<T, R, E> {
    /// Makes a service of a submitter.
    pub fn new(submitter: Submitter<T, R, E>) -> Self {
        Self { submitter: Some(submitter) }
    }

    /// Returns the submitter, for its counters and for items without a response; `None` if the
    /// [layer](BatchLayer) could not start a processor.
    pub fn submitter(&self) -> Option<&Submitter<T, R, E>> {
        self.submitter.as_ref()
    }
}

impl<T, R, E> Service<T> for BatchService<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    type Response = R;
    type Error = CallError<E>;
    type Future = ResponseFuture<R, E>;

    /// Is ready at once, or fails with [`CallError::Closed`]; see the
    /// [module](self#back-pressure).
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError<E>>> {
        let open = self.submitter.as_ref().is_some_and(|submitter| !submitter.is_closed());
        Poll::Ready(if open { Ok(()) } else { Err(CallError::Closed) })
    }

    fn call(&mut self, item: T) -> ResponseFuture<R, E> {
        ResponseFuture(match self.submitter.clone() {
            Some(submitter) => Box::pin(submitter.into_call(item)),
            None => Box::pin(async { Err(CallError::Closed) }),
        })
    }
}

impl<T, R, E> Clone for BatchService<T, R, E> {
    fn clone(&self) -> Self {
        Self { submitter: self.submitter.clone() }
    }
}

impl<T, R, E> fmt::Debug for BatchService<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchService").field("submitter", &self.submitter).finish()
    }
}

/// The future of a [`BatchService`]'s response. Dropping it drops the result.
///
/// ```
/// use batchlink::tower::{BatchService, ResponseFuture};
/// use tower::Service;
///
/// fn submit(service: &mut BatchService<u64, u64, String>) -> ResponseFuture<u64, String> {
///     service.call(7) // linked to the span that is active here
/// }
/// # let _ = submit;
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<R, E>(Pin<Box<dyn Future<Output = Result<R, CallError<E>>> + Send>>);

impl<R, E> Future for ResponseFuture<R, E> {
    type Output = Result<R, CallError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<R, E> fmt::Debug for ResponseFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// A layer that puts a [`BatchProcessor`] before a service of batches.
///
/// Each service that it makes has a processor of its own, which runs in a task of the tokio runtime
/// that is current in `layer`, until the last clone of the service is dropped and what is queued
/// was handled. Without a runtime there is no processor: the service is closed, and so it is if the
/// configuration has become invalid since [`new`](Self::new).
///
/// The inner service gets a [`Batch`] when it is ready, and answers its items. The batch's span is
/// current while it does. Items that it does not answer are failed as
/// [`Unanswered`](CallError::Unanswered): so are those of a batch for which it is not ready but
/// failed. Its own error is dropped, so answer the items with what went wrong.
///
/// ```
/// use batchlink::{processor::{Batch, BatchProcessor}, tower::BatchLayer};
/// # use opentelemetry::trace::noop::NoopTracer;
/// use std::{convert::Infallible, io};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tracer = NoopTracer::new();
/// let insert = service_fn(async |batch: Batch<String, usize, io::Error>| {
///     // ... one statement for all rows
///     batch.succeed_all(|row| row.len());
///     Ok::<(), Infallible>(())
/// });
/// let layer = BatchLayer::new(tracer, || {
///     BatchProcessor::builder("insert_batch").with_max_batch_size(64)
/// })?;
/// let service = ServiceBuilder::new().layer(layer).service(insert);
/// assert_eq!(service.oneshot("a row".to_owned()).await?, 5);
/// # Ok(())
/// # }
/// ```
pub struct BatchLayer<T, R, E> {
    build: Arc<dyn Fn() -> Built<T, R, E> + Send + Sync>,
}

/// Both ends of a new processor.
type Built<T, R, E> = Result<(Submitter<T, R, E>, BatchProcessor<T, R, E>), ConfigError>;

impl<T, R, E> BatchLayer<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Makes a layer of processors that `configure` configures, each anew. Checks the configuration
    /// and builds none yet.
    ///
    /// With metrics, let `configure` give each processor a name of its own: of two with one name,
    /// one hides the other's counters.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first field whose value is not allowed.
    ///
    /// ```
    /// use batchlink::{processor::BatchProcessor, tower::BatchLayer};
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// let layer = BatchLayer::new(NoopTracer::new(), || {
    ///     BatchProcessor::<u64, u64, String>::builder("square").with_max_batch_size(0)
    /// });
    /// let error = layer.unwrap_err().to_string();
    /// assert_eq!(error, "invalid max_batch_size: 0 (allowed: 1 to 1048576)");
    /// ```
    pub fn new<Tr>(
        tracer: Tr,
        configure: impl Fn() -> BatchProcessorBuilder<T, R, E> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError>
    where
        Tr: Tracer + Clone + Send + Sync + 'static,
        Tr::Span: Send + Sync + 'static,
    {
        configure().check()?;
        let build = move || configure().build(tracer.clone());
        Ok(Self { build: Arc::new(build) })
    }
}

impl<T, R, E, S> Layer<S> for BatchLayer<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
    S: Service<Batch<T, R, E>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Service = BatchService<T, R, E>;

    fn layer(&self, inner: S) -> BatchService<T, R, E> {
        let start = || {
            let runtime = tokio::runtime::Handle::try_current().ok()?;
            let (submitter, processor) = (self.build)().ok()?;
            runtime.spawn(run(processor, inner));
            Some(submitter)
        };
        BatchService { submitter: start() }
    }
}

/// Runs a processor with a service as its handler, until it is closed and empty.
async fn run<T, R, E, S>(mut processor: BatchProcessor<T, R, E>, service: S)
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
    S: Service<Batch<T, R, E>> + Clone,
{
    let handler = move |batch| {
        let mut service = service.clone();
        async move {
            if poll_fn(|cx| service.poll_ready(cx)).await.is_ok() {
                let _ = service.call(batch).await;
            }
        }
    };
    processor.run_async(handler).await;
}

impl<T, R, E> Clone for BatchLayer<T, R, E> {
    fn clone(&self) -> Self {
        Self { build: Arc::clone(&self.build) }
    }
}

impl<T, R, E> fmt::Debug for BatchLayer<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLayer").finish_non_exhaustive()
    }
}
