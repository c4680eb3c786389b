//! What is done to messages.

use opentelemetry::trace::SpanKind;
use std::borrow::Cow;

/// What is done to the messages of a batch: a kind that all systems know, and its name in one of
/// them.
///
/// | operation | kind of its span |
/// |---|---|
/// | [`CREATE`](Self::CREATE) | `PRODUCER` |
/// | [`SEND`](Self::SEND) | `CLIENT` if messages have contexts of their own, else `PRODUCER` |
/// | [`RECEIVE`](Self::RECEIVE) | `CLIENT` |
/// | [`PROCESS`](Self::PROCESS) | `CONSUMER` |
/// | [`SETTLE`](Self::SETTLE) | `CLIENT` |
///
/// ```
/// use batchlink::messaging::Operation;
///
/// let poll = Operation::RECEIVE.named("poll"); // as Kafka calls it
/// # drop(poll);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    kind: Kind,
    pub(super) name: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Create,
    Send,
    Receive,
    Process,
    Settle,
}

impl Operation {
    /// `create`: one message is made, or passed to a client for sending. See
    /// [`BatchSpan::create`](super::BatchSpan::create).
    pub const CREATE: Self = Self::of_kind(Kind::Create);
    /// `send`: messages are sent to a broker.
    pub const SEND: Self = Self::of_kind(Kind::Send);
    /// `receive`: the application asks for messages.
    pub const RECEIVE: Self = Self::of_kind(Kind::Receive);
    /// `process`: the application works on messages.
    pub const PROCESS: Self = Self::of_kind(Kind::Process);
    /// `settle`: the broker is told the messages' results.
    pub const SETTLE: Self = Self::of_kind(Kind::Settle);

    const fn of_kind(kind: Kind) -> Self {
        Self { kind, name: Cow::Borrowed(kind.as_str()) }
    }

    /// Sets the system's own name of the operation, which begins the span's name. The kind stays.
    ///
    /// ```
    /// use batchlink::{LinkSet, messaging::{Operation, batch_span}};
    ///
    /// let batch = LinkSet::builder().build()?.finish();
    /// let commit = batch_span("kafka", Operation::SETTLE.named("commit"), "orders", 3, batch);
    /// assert_eq!(commit.name, "commit orders");
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    #[must_use]
    pub fn named(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The value of `messaging.operation.type`.
    pub(super) fn type_name(&self) -> &'static str {
        self.kind.as_str()
    }

    /// `links`: whether the span links to contexts of the messages' own.
    pub(super) fn span_kind(&self, links: bool) -> SpanKind {
        match self.kind {
            Kind::Create => SpanKind::Producer,
            // Without contexts of the messages, the sending span's is their creation context.
            Kind::Send if !links => SpanKind::Producer,
            Kind::Send | Kind::Receive | Kind::Settle => SpanKind::Client,
            Kind::Process => SpanKind::Consumer,
        }
    }

    /// Whether the span is of a batch, or of one message always.
    pub(super) fn is_batch(&self) -> bool {
        self.kind != Kind::Create
    }
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Process => "process",
            Self::Settle => "settle",
        }
    }
}
