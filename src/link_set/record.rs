//! One context as it travels: 27 bytes, 32 with the slot's sequence number. A link with trace state
//! or attributes travels beside its slot.

use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::cmp::Reverse;

/// Bytes of trace state that a link keeps, counted as a `tracestate` header. W3C Trace Context asks
/// every participant to pass on at least 512. Beyond that a remote party would decide how much
/// memory is held here.
const MAX_TRACE_STATE: usize = 512;

/// A list member with more characters is the first to be cut, as
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/#tracestate-limits) asks.
const LONG_MEMBER: usize = 128;

/// What a slot holds of a link.
pub(crate) enum Record {
    Plain(Plain),
    /// The link is beside the slot.
    Beside {
        state_cut: bool,
    },
}

/// A valid context without trace state.
#[derive(Clone, Copy)]
pub(crate) struct Plain {
    pub(super) ids: Ids,
    pub(super) flags: u8,
    remote: bool,
    /// The context had trace state over [`MAX_TRACE_STATE`].
    pub(super) state_cut: bool,
}

/// The ids of a context. Invariant: ids-are-the-key. (`SpanContext`'s own equality adds flags,
/// remoteness and trace state.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
}

impl Ids {
    #[inline(always)]
    pub(crate) fn of(context: &SpanContext) -> Self {
        Self { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() }
    }
}

/// Returns the length of a header of these members without building it.
fn header_len<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    let mut bytes: usize = 0;
    // Not a sum: its fold of a short deque costs as much as the clone of a member.
    for (key, value) in members {
        // key=value, and a comma before every one but the first
        bytes += key.len() + value.len() + 2;
    }
    bytes.saturating_sub(1)
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
    pub(crate) state_cut: bool,
}

impl Bounded {
    #[cfg(feature = "processor")]
    pub(crate) const NONE: Self = Self { context: SpanContext::NONE, state_cut: false };

    /// Copies the context, with a trace state that fits.
    #[inline]
    pub(crate) fn new(context: &SpanContext) -> Self {
        // Without a state there is nothing to clone, and a clone is a call into another crate.
        if Plain::is_enough(context) {
            return Self { context: with_state(context, TraceState::NONE), state_cut: false };
        }
        match shorten(context.trace_state()) {
            Some(short) => Self { context: with_state(context, short), state_cut: true },
            None => Self { context: context.clone(), state_cut: false },
        }
    }
}

impl Plain {
    /// Returns whether [`of`](Self::of) loses nothing of a valid context.
    #[inline(always)]
    pub(crate) fn is_enough(context: &SpanContext) -> bool {
        *context.trace_state() == TraceState::NONE
    }

    #[inline(always)]
    pub(crate) fn of(context: &SpanContext) -> Self {
        Self {
            ids: Ids::of(context),
            flags: context.trace_flags().to_u8(),
            remote: context.is_remote(),
            state_cut: false,
        }
    }

    /// Returns the context of a link that is valid and has nothing else.
    pub(crate) fn of_link(link: &Link, state_cut: bool) -> Option<Self> {
        let bare = link.attributes.is_empty() && link.dropped_attributes_count == 0;
        let context = &link.span_context;
        let plain = bare && Self::is_enough(context) && context.is_valid();
        plain.then(|| Self { state_cut, ..Self::of(context) })
    }

    #[inline(always)]
    pub(super) fn into_link(self) -> Link {
        Link::with_context(SpanContext::new(
            TraceId::from_bytes(self.ids.trace),
            SpanId::from_bytes(self.ids.span),
            TraceFlags::new(self.flags),
            self.remote,
            TraceState::NONE,
        ))
    }
}

impl Record {
    /// Copies a context, with its trace state up to the limit. Returns the link that goes
    /// beside the slot, if there is one.
    pub(crate) fn from_context(context: &SpanContext) -> (Self, Option<Link>) {
        if context.is_valid() && Plain::is_enough(context) {
            return (Self::Plain(Plain::of(context)), None);
        }
        let Bounded { context, state_cut } = Bounded::new(context);
        let link = Link::with_context(context);
        match Plain::of_link(&link, state_cut) {
            Some(plain) => (Self::Plain(plain), None),
            None => (Self::Beside { state_cut }, Some(link)),
        }
    }
}

/// Cuts a link's trace state to what fits. Returns the context as it was if that cut something.
pub(crate) fn cut_state(link: &mut Link) -> Option<SpanContext> {
    let short = shorten(link.span_context.trace_state())?;
    let bounded = with_state(&link.span_context, short);
    Some(std::mem::replace(&mut link.span_context, bounded))
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
    fn plain_context_fits_its_slot() {
        for context in [context(true, TraceState::NONE), context(false, TraceState::NONE)] {
            let (Record::Plain(plain), None) = Record::from_context(&context) else {
                panic!("beside its slot");
            };
            assert_eq!(plain.into_link(), Link::with_context(context));
        }
        let stateful = context(true, state(300));
        let (record, beside) = Record::from_context(&stateful);
        assert!(matches!(record, Record::Beside { state_cut: false }));
        assert_eq!(beside, Some(Link::with_context(stateful)));
    }

    #[test]
    fn only_bare_links_are_plain() {
        let bare = || Link::with_context(context(true, TraceState::NONE));
        assert_eq!(Plain::of_link(&bare(), false).unwrap().into_link(), bare());
        let attributes = vec![KeyValue::new("a", 1)];
        let contexts = [SpanContext::NONE, context(true, state(300))];
        let others = [
            Link::new(bare().span_context, attributes, 0),
            Link::new(bare().span_context, Vec::new(), 2),
        ];
        for link in contexts.map(Link::with_context).into_iter().chain(others) {
            assert!(Plain::of_link(&link, false).is_none(), "{link:?}");
        }
    }

    #[test]
    fn cut_state_is_returned() {
        let long =
            TraceState::from_key_value((0..9).map(|n| (format!("k{n}"), "v".repeat(99)))).unwrap();
        let unfit = TraceState::from_key_value([("k".repeat(256), "v".repeat(256))]).unwrap();
        for (state, cut) in
            [(TraceState::NONE, false), (state(300), false), (long, true), (unfit, true)]
        {
            let link = Link::with_context(context(true, state));
            let mut bounded = link.clone();
            let original = cut_state(&mut bounded);
            assert_eq!(original.is_some(), cut);
            assert_eq!(bounded == link, !cut);
            bounded.span_context = original.unwrap_or(bounded.span_context);
            assert_eq!(bounded, link);
        }
    }
}
