//! One context as it travels: 28 bytes, 32 with the slot's sequence number.

use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::cmp::Reverse;

/// Bytes of trace state that a link keeps, counted as a `tracestate` header. W3C Trace Context asks
/// every participant to pass on at least 512. Beyond that a remote party would decide how much
/// memory is held here.
const MAX_TRACE_STATE: usize = 512;

/// A list member with more characters is the first to be cut, as
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/#tracestate-limits) asks.
const LONG_MEMBER: usize = 128;

/// A link on its way. The common case is stored in place, the rare rest (trace state,
/// attributes) in a box.
pub(crate) enum Record {
    Plain {
        ids: Ids,
        flags: u8,
        remote: bool,
        /// The context had trace state over [`MAX_TRACE_STATE`].
        state_cut: bool,
    },
    /// The link, and whether its trace state was cut.
    Boxed(PackedBox, bool),
}

/// The ids of a context. Invariant: ids-are-the-key. (`SpanContext`'s own equality adds flags,
/// remoteness and trace state.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
}

/// A box without its alignment, which would add 4 bytes to every record.
#[repr(Rust, packed)]
pub(crate) struct PackedBox(pub(super) Box<Link>);

impl Ids {
    #[inline(always)]
    pub(crate) fn of(context: &SpanContext) -> Self {
        Self { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() }
    }
}

/// Returns the length of a header of these members without building it.
fn header_len<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    // key=value, and a comma before every one but the first
    members.map(|(key, value)| key.len() + value.len() + 2).sum::<usize>().saturating_sub(1)
}

/// Returns what is left of a trace state over [`MAX_TRACE_STATE`]; `None` if it fits.
///
/// Whole members are cut until it fits: those over [`LONG_MEMBER`] characters first, then the
/// others, each from the right. The leftmost, which is the last that was changed, and
/// OpenTelemetry's own (`ot`, where samplers keep their threshold) go after all others.
fn shorten(state: &TraceState) -> Option<TraceState> {
    if header_len(state.into_iter()) <= MAX_TRACE_STATE {
        return None;
    }
    Some(cut_members(state))
}

#[cold]
fn cut_members(state: &TraceState) -> TraceState {
    // OpenTelemetry admits 32.
    let mut members: Vec<(usize, (&str, &str))> = state.into_iter().enumerate().collect();
    let order = |&(place, (key, value)): &(usize, (&str, &str))| {
        let long = key.len() + 1 + value.chars().count() > LONG_MEMBER;
        (place == 0 || key == "ot", !long, Reverse(place))
    };
    members.sort_by_cached_key(order);
    let first = (0..members.len()).find(|&first| {
        header_len(members[first..].iter().map(|&(_, member)| member)) <= MAX_TRACE_STATE
    });
    let mut left = members.split_off(first.unwrap_or(members.len()));
    left.sort_unstable_by_key(|&(place, _)| place);
    // Its members were valid before.
    TraceState::from_key_value(left.into_iter().map(|(_, member)| member)).unwrap_or_default()
}

#[inline]
fn with_state(context: &SpanContext, state: TraceState) -> SpanContext {
    SpanContext::new(
        context.trace_id(),
        context.span_id(),
        context.trace_flags(),
        context.is_remote(),
        state,
    )
}

/// A context that waits for its batch elsewhere than in a record.
pub(crate) struct Bounded {
    pub(crate) context: SpanContext,
    /// Its trace state was too long, and lost members.
    pub(super) state_cut: bool,
}

impl Bounded {
    #[cfg(feature = "processor")]
    pub(crate) const NONE: Self = Self { context: SpanContext::NONE, state_cut: false };

    /// Copies the context, with a trace state that fits.
    #[inline]
    pub(crate) fn new(context: &SpanContext) -> Self {
        // Without a state there is nothing to clone, and a clone is a call into another crate.
        if Record::is_plain(context) {
            return Self { context: with_state(context, TraceState::NONE), state_cut: false };
        }
        match shorten(context.trace_state()) {
            Some(short) => Self { context: with_state(context, short), state_cut: true },
            None => Self { context: context.clone(), state_cut: false },
        }
    }
}

impl Record {
    /// Copies a context. Clones trace state, up to the limit, and allocates only then.
    #[inline]
    pub(crate) fn from_context(context: &SpanContext) -> Self {
        if Self::is_plain(context) {
            return Self::plain(context, false);
        }
        Self::from_bounded(Bounded::new(context))
    }

    #[cold]
    pub(super) fn from_bounded(Bounded { context, state_cut }: Bounded) -> Self {
        if Self::is_plain(&context) {
            return Self::plain(&context, state_cut);
        }
        Self::Boxed(PackedBox(Box::new(Link::with_context(context))), state_cut)
    }

    /// Returns whether [`plain`](Self::plain) loses nothing of the context.
    #[inline(always)]
    pub(crate) fn is_plain(context: &SpanContext) -> bool {
        *context.trace_state() == TraceState::NONE
    }

    #[inline(always)]
    pub(crate) fn plain(context: &SpanContext, state_cut: bool) -> Self {
        Self::Plain {
            ids: Ids::of(context),
            flags: context.trace_flags().to_u8(),
            remote: context.is_remote(),
            state_cut,
        }
    }

    /// Returns the record and, if trace state had to be cut, the context as it was, for
    /// [`into_original`](Self::into_original). An invalid context is always boxed, so that the
    /// others are unpacked without a check.
    pub(crate) fn from_link(mut link: Link) -> (Self, Option<SpanContext>) {
        let original = shorten(link.span_context.trace_state()).map(|short| {
            let bounded = with_state(&link.span_context, short);
            std::mem::replace(&mut link.span_context, bounded)
        });
        let cut = original.is_some();
        let bare = link.attributes.is_empty() && link.dropped_attributes_count == 0;
        let cx = &link.span_context;
        let record = if bare && Self::is_plain(cx) && cx.is_valid() {
            Self::plain(&link.span_context, cut)
        } else {
            Self::Boxed(PackedBox(Box::new(link)), cut)
        };
        (record, original)
    }

    /// Undoes [`from_link`](Self::from_link).
    pub(crate) fn into_original(self, context: Option<SpanContext>) -> Link {
        let (mut link, _) = self.into_link();
        if let Some(context) = context {
            link.span_context = context;
        }
        link
    }

    /// Returns the link, and whether its trace state was cut.
    pub(super) fn into_link(self) -> (Link, bool) {
        match self {
            Self::Plain { ids, flags, remote, state_cut } => {
                (plain_link(ids, flags, remote), state_cut)
            }
            Self::Boxed(PackedBox(link), state_cut) => (*link, state_cut),
        }
    }
}

/// Returns the link of a plain record.
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
    fn record_leaves_four_bytes() {
        assert!(size_of::<Record>() <= 28 && align_of::<Record>() <= 4);
    }

    #[test]
    fn header_length_is_exact() {
        let members = |count: usize, value: usize| {
            let members = (0..count).map(|n| (format!("k{n:02}"), "v".repeat(value)));
            TraceState::from_key_value(members).unwrap()
        };
        for state in
            [members(0, 0), members(27, 14), members(27, 15), members(2, 252), members(32, 256)]
        {
            assert_eq!(header_len(state.into_iter()), state.header().len(), "{}", state.header());
            assert_eq!(shorten(&state).is_some(), state.header().len() > MAX_TRACE_STATE);
        }
    }

    /// Characters decide which member goes first, bytes whether the rest fits.
    #[test]
    fn long_members_count_in_characters() {
        let of = |value: &str| ("b", value.to_owned());
        let state = |second| {
            let others =
                [("a", "v".repeat(126)), second, ("c", "v".repeat(126)), ("d", "v".repeat(120))];
            TraceState::from_key_value(others).unwrap()
        };
        // A member of 128 characters in 254 bytes, and one of a character more.
        for (characters, left) in [(126, "a b c"), (127, "a c d")] {
            let short = shorten(&state(of(&"\u{e9}".repeat(characters)))).unwrap();
            let keys: Vec<_> = short.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys.join(" "), left, "{characters} characters");
        }
    }

    #[test]
    fn plain_contexts_are_not_boxed() {
        let plain = [context(true, TraceState::NONE), context(false, TraceState::NONE)];
        for context in &plain {
            assert!(matches!(Record::from_context(context), Record::Plain { .. }));
            assert_eq!(Record::from_context(context).into_link().0.span_context, *context);
        }
        let stateful = context(true, state(300));
        assert!(matches!(Record::from_context(&stateful), Record::Boxed(..)));
        assert_eq!(Record::from_context(&stateful).into_link().0.span_context, stateful);
    }

    #[test]
    fn link_comes_back_unchanged() {
        let long =
            TraceState::from_key_value((0..9).map(|n| (format!("k{n}"), "v".repeat(99)))).unwrap();
        let unfit = TraceState::from_key_value([("k".repeat(256), "v".repeat(256))]).unwrap();
        for state in [TraceState::NONE, state(300), long, unfit] {
            for (attributes, dropped) in
                [(vec![], 0), (vec![], 2), (vec![KeyValue::new("a", 1)], 0)]
            {
                let link = Link::new(context(true, state.clone()), attributes, dropped);
                let (record, original) = Record::from_link(link.clone());
                assert_eq!(record.into_original(original), link);
                let (Record::Plain { state_cut, .. } | Record::Boxed(_, state_cut)) =
                    Record::from_link(link).0;
                assert_eq!(state_cut, state.header().len() > MAX_TRACE_STATE);
            }
        }
    }
}
