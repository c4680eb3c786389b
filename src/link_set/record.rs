//! One context as it travels: 28 bytes, 32 with the slot's sequence number.

use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Trace state longer than this (in bytes, as a `tracestate` header) is dropped from the link and
/// counted. W3C Trace Context asks every participant to pass on at least 512; beyond that a remote
/// party would decide how much memory we hold.
pub(crate) const MAX_TRACE_STATE: usize = 512;

/// A link on its way. The common case is stored in place, the rare rest (trace state,
/// attributes) in a box.
pub(crate) enum Record {
    Plain {
        ids: Ids,
        flags: u8,
        remote: bool,
        /// The context had trace state over [`MAX_TRACE_STATE`].
        state_dropped: bool,
    },
    Boxed(PackedBox, bool),
}

/// What makes two contexts the same. (`SpanContext`'s own equality adds flags, remoteness and
/// trace state.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
}

/// A box without its alignment, which would add 4 bytes to every record.
#[repr(Rust, packed)]
pub(crate) struct PackedBox(pub(crate) Box<Link>);

impl Ids {
    #[inline(always)]
    pub(crate) fn of(context: &SpanContext) -> Self {
        Self { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() }
    }
}

/// Whether the trace state is over the limit, without building the header.
fn is_too_long(state: &TraceState) -> bool {
    // key=value, and a comma before every one but the first
    let length: usize = state.into_iter().map(|(key, value)| key.len() + value.len() + 2).sum();
    length.saturating_sub(1) > MAX_TRACE_STATE
}

#[inline]
fn without_state(context: &SpanContext) -> SpanContext {
    SpanContext::new(
        context.trace_id(),
        context.span_id(),
        context.trace_flags(),
        context.is_remote(),
        TraceState::NONE,
    )
}

/// A context that waits for its batch elsewhere than in a record.
pub(crate) struct Bounded {
    pub(crate) context: SpanContext,
    /// It had a trace state that was too long.
    #[cfg_attr(not(feature = "processor"), expect(dead_code))]
    pub(crate) state_dropped: bool,
}

impl Bounded {
    #[cfg(feature = "processor")]
    pub(crate) const NONE: Self = Self { context: SpanContext::NONE, state_dropped: false };

    /// A copy of the context, without its trace state if that is too long.
    #[inline]
    pub(crate) fn new(context: &SpanContext) -> Self {
        // Without a state there is nothing to clone, and a clone is a call into another crate.
        if Record::is_plain(context) {
            return Self { context: without_state(context), state_dropped: false };
        }
        match is_too_long(context.trace_state()) {
            true => Self { context: without_state(context), state_dropped: true },
            false => Self { context: context.clone(), state_dropped: false },
        }
    }
}

impl Record {
    /// Clones trace state within the limit; allocates only then.
    #[inline]
    pub(crate) fn from_context(context: &SpanContext) -> Self {
        if Self::is_plain(context) {
            return Self::plain(context, false);
        }
        Self::with_state(context)
    }

    /// Whether [`plain`](Self::plain) says all there is to say.
    #[inline(always)]
    pub(crate) fn is_plain(context: &SpanContext) -> bool {
        *context.trace_state() == TraceState::NONE
    }

    #[inline(always)]
    pub(crate) fn plain(context: &SpanContext, state_dropped: bool) -> Self {
        Self::Plain {
            ids: Ids::of(context),
            flags: context.trace_flags().to_u8(),
            remote: context.is_remote(),
            state_dropped,
        }
    }

    #[cold]
    fn with_state(context: &SpanContext) -> Self {
        if is_too_long(context.trace_state()) {
            return Self::plain(context, true);
        }
        Self::Boxed(PackedBox(Box::new(Link::with_context(context.clone()))), false)
    }

    /// The record, and the context as it was if its trace state had to be dropped, for
    /// [`into_original`](Self::into_original). An invalid context is always boxed, so that whoever
    /// unpacks the others need not look.
    pub(crate) fn from_link(mut link: Link) -> (Self, Option<SpanContext>) {
        let original = is_too_long(link.span_context.trace_state()).then(|| {
            let stripped = without_state(&link.span_context);
            std::mem::replace(&mut link.span_context, stripped)
        });
        let dropped = original.is_some();
        let bare = link.attributes.is_empty() && link.dropped_attributes_count == 0;
        let cx = &link.span_context;
        let record = if bare && Self::is_plain(cx) && cx.is_valid() {
            Self::plain(&link.span_context, dropped)
        } else {
            Self::Boxed(PackedBox(Box::new(link)), dropped)
        };
        (record, original)
    }

    /// Undoes [`from_link`](Self::from_link).
    pub(crate) fn into_original(self, context: Option<SpanContext>) -> Link {
        let mut link = self.into_link();
        if let Some(context) = context {
            link.span_context = context;
        }
        link
    }

    pub(crate) fn into_link(self) -> Link {
        match self {
            Self::Plain { ids, flags, remote, .. } => plain_link(ids, flags, remote),
            Self::Boxed(PackedBox(link), _) => *link,
        }
    }
}

/// The link of a plain record.
#[inline(always)]
pub(crate) fn plain_link(ids: Ids, flags: u8, remote: bool) -> Link {
    Link::with_context(SpanContext::new(
        TraceId::from_bytes(ids.trace),
        SpanId::from_bytes(ids.span),
        TraceFlags::new(flags),
        remote,
        TraceState::NONE,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::KeyValue;

    fn context(remote: bool, state: TraceState) -> SpanContext {
        let ids = (TraceId::from(u128::MAX - 1), SpanId::from(u64::MAX - 2));
        SpanContext::new(ids.0, ids.1, TraceFlags::new(0xa5), remote, state)
    }

    /// A state whose header has `bytes` bytes, in two members.
    fn state(bytes: usize) -> TraceState {
        let values = ["v".repeat(200), "w".repeat(bytes - 200 - "a=,b=".len())];
        let state = TraceState::from_key_value(["a", "b"].into_iter().zip(values)).unwrap();
        assert_eq!(state.header().len(), bytes);
        state
    }

    #[test]
    fn a_record_leaves_four_bytes_of_a_slot() {
        assert!(size_of::<Record>() <= 28 && align_of::<Record>() <= 4);
    }

    #[test]
    fn the_length_of_a_header_is_found_without_building_it() {
        for bytes in [207, 400, 450] {
            assert!(!is_too_long(&state(bytes)));
        }
        let members = |count: usize, value: usize| {
            let members = (0..count).map(|n| (format!("k{n:02}"), "v".repeat(value)));
            TraceState::from_key_value(members).unwrap()
        };
        assert!(!is_too_long(&TraceState::NONE));
        for state in [members(27, 14), members(27, 15), members(2, 251), members(2, 252), members(32, 256)] {
            assert_eq!(is_too_long(&state), state.header().len() > MAX_TRACE_STATE, "{}", state.header());
        }
    }

    #[test]
    fn only_what_needs_it_is_boxed() {
        let plain = [context(true, TraceState::NONE), context(false, TraceState::NONE)];
        for context in &plain {
            assert!(matches!(Record::from_context(context), Record::Plain { .. }));
            assert_eq!(Record::from_context(context).into_link().span_context, *context);
        }
        let stateful = context(true, state(300));
        assert!(matches!(Record::from_context(&stateful), Record::Boxed(..)));
        assert_eq!(Record::from_context(&stateful).into_link().span_context, stateful);
    }

    #[test]
    fn a_link_can_be_had_back() {
        let long = TraceState::from_key_value((0..9).map(|n| (format!("k{n}"), "v".repeat(99)))).unwrap();
        for state in [TraceState::NONE, state(300), long] {
            for (attributes, dropped) in [(vec![], 0), (vec![], 2), (vec![KeyValue::new("a", 1)], 0)] {
                let link = Link::new(context(true, state.clone()), attributes, dropped);
                let (record, original) = Record::from_link(link.clone());
                assert_eq!(record.into_original(original), link);
                let (Record::Plain { state_dropped, .. } | Record::Boxed(_, state_dropped)) =
                    Record::from_link(link).0;
                assert_eq!(state_dropped, is_too_long(&state));
            }
        }
    }
}
