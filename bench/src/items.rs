//! The items of the contestants' queues.

use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Trace id and span id.
pub type Key = (u128, u64);

/// An item that can be de-duplicated and linked.
pub trait Item {
    fn key(&self) -> Key;
    fn into_link(self) -> Link;
}

/// An item as a queue stores it.
pub trait Stored: Item + Send + Sync + 'static {
    fn from_context(context: &SpanContext) -> Self;
    fn from_link(link: &Link) -> Self;
}

pub fn key(context: &SpanContext) -> Key {
    (
        u128::from_ne_bytes(context.trace_id().to_bytes()),
        u64::from_ne_bytes(context.span_id().to_bytes()),
    )
}

/// The obvious choice.
impl Stored for SpanContext {
    #[inline(always)]
    fn from_context(context: &SpanContext) -> Self {
        context.clone()
    }

    fn from_link(link: &Link) -> Self {
        link.span_context.clone()
    }
}

impl Item for SpanContext {
    #[inline(always)]
    fn key(&self) -> Key {
        key(self)
    }

    #[inline(always)]
    fn into_link(self) -> Link {
        Link::new(self, Vec::new(), 0)
    }
}

/// The obvious choice with attributes.
impl Stored for Link {
    #[inline(always)]
    fn from_context(context: &SpanContext) -> Self {
        Link::new(context.clone(), Vec::new(), 0)
    }

    #[inline(always)]
    fn from_link(link: &Link) -> Self {
        link.clone()
    }
}

impl Item for Link {
    #[inline(always)]
    fn key(&self) -> Key {
        key(&self.span_context)
    }

    #[inline(always)]
    fn into_link(self) -> Link {
        self
    }
}

/// A context that is cloned only if it becomes a link.
pub struct Borrowed<'a>(pub &'a SpanContext);

impl Item for Borrowed<'_> {
    #[inline(always)]
    fn key(&self) -> Key {
        key(self.0)
    }

    #[inline(always)]
    fn into_link(self) -> Link {
        Link::new(self.0.clone(), Vec::new(), 0)
    }
}

/// A context in 32 bytes, without its trace state.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub struct Packed {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
    remote: bool,
}

impl Stored for Packed {
    #[inline(always)]
    fn from_context(context: &SpanContext) -> Self {
        Self {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
            remote: context.is_remote(),
        }
    }

    fn from_link(link: &Link) -> Self {
        Self::from_context(&link.span_context)
    }
}

impl Item for Packed {
    #[inline(always)]
    fn key(&self) -> Key {
        (u128::from_ne_bytes(self.trace), u64::from_ne_bytes(self.span))
    }

    #[inline(always)]
    fn into_link(self) -> Link {
        let context = SpanContext::new(
            TraceId::from_bytes(self.trace),
            SpanId::from_bytes(self.span),
            TraceFlags::new(self.flags),
            self.remote,
            TraceState::NONE,
        );
        Link::new(context, Vec::new(), 0)
    }
}

/// A context in 32 bytes, in a box if it has trace state or attributes.
pub enum Rich {
    Plain { trace: [u8; 16], span: [u8; 8], flags: u8, remote: bool },
    Boxed(Box<Link>),
}

impl Stored for Rich {
    #[inline(always)]
    fn from_context(context: &SpanContext) -> Self {
        if *context.trace_state() == TraceState::NONE {
            let Packed { trace, span, flags, remote } = Packed::from_context(context);
            return Self::Plain { trace, span, flags, remote };
        }
        Self::Boxed(Box::new(Link::from_context(context)))
    }

    #[inline(always)]
    fn from_link(link: &Link) -> Self {
        Self::Boxed(Box::new(link.clone()))
    }
}

impl Item for Rich {
    #[inline(always)]
    fn key(&self) -> Key {
        match self {
            Self::Plain { trace, span, .. } => {
                (u128::from_ne_bytes(*trace), u64::from_ne_bytes(*span))
            }
            Self::Boxed(link) => link.key(),
        }
    }

    #[inline(always)]
    fn into_link(self) -> Link {
        match self {
            Self::Plain { trace, span, flags, remote } => {
                Packed { trace, span, flags, remote }.into_link()
            }
            Self::Boxed(link) => *link,
        }
    }
}

const _: () = assert!(size_of::<Packed>() == 32 && size_of::<Rich>() == 32);
