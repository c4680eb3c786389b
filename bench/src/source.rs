//! The contexts that every contestant is given: made up once, the same for all.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// SplitMix64: enough for made-up ids, and the same ones in every run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Each with one member of trace state.
    TraceState,
    /// Links, each with one attribute.
    Attributes,
    /// Plain, and a span of the SDK's is made of the links.
    Span,
}

/// Batches of contexts.
#[derive(Clone, Debug)]
pub struct Source {
    pub kind: Kind,
    pub batch: usize,
    pub contexts: Vec<SpanContext>,
    /// The same as links; for [`Kind::Attributes`] only.
    pub links: Vec<Link>,
}

impl Source {
    /// As many batches as make at least 1024 contexts. `duplicates` of a hundred are copies of
    /// another in the same batch, at random places.
    pub fn new(kind: Kind, batch: usize, duplicates: usize) -> Self {
        let mut random = Random(batch as u64 * 1000 + duplicates as u64);
        let state = match kind {
            Kind::TraceState => {
                TraceState::from_key_value([("vendor", "t61rcWkgMzE")]).expect("valid")
            }
            _ => TraceState::NONE,
        };
        let mut contexts = Vec::new();
        for _ in 0..(1024 / batch).max(1) {
            let unique = (batch * (100 - duplicates)).div_ceil(100);
            let mut picked: Vec<usize> = (0..batch).map(|index| index % unique).collect();
            for index in (1..batch).rev() {
                picked.swap(index, random.below(index + 1));
            }
            let ids: Vec<(u128, u64)> = (0..unique)
                .map(|_| {
                    (
                        u128::from(random.next_u64()) << 64 | u128::from(random.next_u64()),
                        random.next_u64(),
                    )
                })
                .collect();
            contexts.extend(picked.into_iter().map(|index| {
                let (trace, span) = ids[index];
                let state = state.clone();
                SpanContext::new(
                    TraceId::from(trace),
                    SpanId::from(span),
                    TraceFlags::SAMPLED,
                    true,
                    state,
                )
            }));
        }
        let link = |context: &SpanContext| {
            Link::new(context.clone(), vec![KeyValue::new("messaging.message.id", 7)], 0)
        };
        let links = match kind {
            Kind::Attributes => contexts.iter().map(link).collect(),
            _ => Vec::new(),
        };
        Self { kind, batch, contexts, links }
    }

    pub fn batches(&self) -> usize {
        self.contexts.len() / self.batch
    }
}
