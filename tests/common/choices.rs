//! The source of random calls, and the contexts that they use.

use super::{Random, state_of};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::sync::LazyLock;

/// A source of decisions. Small numbers stand for simple ones.
pub trait Choices {
    /// A number in `0..end`, or 0.
    fn below(&mut self, end: u64) -> u64;
}

impl Choices for Random {
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Decisions from bytes, as a fuzzer gives; zeros after the last.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// Returns how many bytes one decision takes.
    pub fn width(end: u64) -> usize {
        match end {
            0..=1 => 0,
            2..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 8,
        }
    }
}

impl Choices for Bytes<'_> {
    fn below(&mut self, end: u64) -> u64 {
        let (bytes, rest) = self.0.split_at(Self::width(end).min(self.0.len()));
        self.0 = rest;
        bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)) % end.max(1)
    }
}

/// Returns an entry of the table.
pub fn one_of<T: Copy>(choices: &mut impl Choices, table: &[T]) -> T {
    table[choices.below(table.len() as u64) as usize]
}

/// One of few different contexts, possibly with attributes.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// 0: none, and no span id either if that is 1; 3: no span id.
    trace: u8,
    span: u16,
    flags: u8,
    remote: bool,
    /// Index in `STATES`.
    state: usize,
    attributes: u8,
    dropped: u32,
}

/// Trace states: none, one that had a member, short ones, both sides of the limit, and long
/// members.
static STATES: LazyLock<[TraceState; 8]> = LazyLock::new(|| {
    let emptied = state_of(10).delete("ka").expect("valid");
    let of = |members: &[(&str, usize)]| {
        let members = members.iter().map(|&(key, length)| (key, "v".repeat(length)));
        TraceState::from_key_value(members).expect("valid")
    };
    // Long members, OpenTelemetry's own among them; and one that does not fit.
    let long = of(&[("a", 130), ("b", 200), ("c", 9), ("d", 120), ("ot", 140)]);
    let unfit = of(&[(&"k".repeat(256), 256)]);
    [
        TraceState::NONE,
        state_of(10),
        state_of(512),
        state_of(513),
        emptied,
        state_of(1000),
        long,
        unfit,
    ]
});

impl Item {
    /// With `spans` different span ids.
    pub fn choose(choices: &mut impl Choices, spans: u64) -> Self {
        Self {
            span: 1 + choices.below(spans) as u16,
            trace: one_of(choices, &[1, 1, 1, 1, 1, 2, 3, 0]),
            flags: one_of(choices, &[1, 1, 1, 1, 3, 0, 0xfe, 0xff]),
            remote: choices.below(2) == 1,
            state: one_of(choices, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 7, 1, 1, 2, 3, 4, 5]),
            attributes: one_of(choices, &[0, 0, 1, 2]),
            dropped: one_of(choices, &[0, 0, 0, 7]),
        }
    }

    /// Returns the context. Its ids are `shift` bits (up to 40) from the right, next to `mark` in
    /// the trace id.
    pub fn context(&self, mark: usize, shift: u32) -> SpanContext {
        let trace = match self.trace {
            0 => 0,
            trace => (mark as u128 + 1) << 64 | u128::from(trace) << shift,
        };
        let state = STATES[self.state].clone();
        let span = match (self.trace, self.span) {
            (3, _) | (0, 1) => 0,
            (_, span) => u64::from(span) << shift,
        };
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        SpanContext::new(trace, span, TraceFlags::new(self.flags), self.remote, state)
    }

    pub fn link(&self, mark: usize, shift: u32) -> Link {
        let mut attributes = vec![KeyValue::new("n", 7), KeyValue::new("link.type", "its own")];
        attributes.truncate(self.attributes.into());
        Link::new(self.context(mark, shift), attributes, self.dropped)
    }
}

/// Returns the mark of a context that [`Item`] made.
pub fn mark(context: &SpanContext) -> usize {
    (u128::from_be_bytes(context.trace_id().to_bytes()) >> 64) as usize - 1
}
