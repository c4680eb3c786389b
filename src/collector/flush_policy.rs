//! When to flush, beside size and delay.

use crate::collector::config::Setting;
use crate::error::ConfigError;
use crate::queue::rules::Early;
use std::time::Duration;

/// When a batch that is not full is due: a choice between few, large batches and short waits.
///
/// Under every policy a batch is due at `max_batch_size` pending contexts, by weight, on request,
/// and when the collector is closed. A push costs the same under all of them: they concern the
/// flusher. An idle collector wakes nothing.
///
/// | policy | a smaller batch is due | waits for others |
/// |---|---|---|
/// | [`Delay`](Self::Delay) | `max_delay` after its first context | always |
/// | [`Immediate`](Self::Immediate) | as soon as the flusher is free | never |
/// | [`Balanced`](Self::Balanced) | at once if idle, else by number or `max_delay` | under load |
/// | [`IdleRestart`](Self::IdleRestart) | some time after its last context | while they come |
///
/// Batches that a policy makes due have the trigger [`Trigger::Policy`](crate::Trigger::Policy).
///
/// ```
/// use batchlink::{FlushPolicy, LinkCollector, Trigger};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = |n| SpanContext::new(
/// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
///
/// let builder = LinkCollector::builder().with_flush_policy(FlushPolicy::Immediate);
/// let (collector, mut flusher) = builder.build()?;
/// collector.push(&context(1))?;
/// assert_eq!(flusher.next_batch().unwrap().trigger(), Trigger::Policy);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushPolicy {
    /// A batch is due `max_delay` after its first context.
    #[default]
    Delay,
    /// A batch is due as soon as the flusher is free and anything is pending. Under load it is what
    /// came while the last batch was handled. `max_delay` is not used.
    Immediate,
    /// Adapts to the load. If nothing is pending when the flusher becomes free, the next context is
    /// due at once. If something is, there is load: the batch waits until `min_size` contexts are
    /// pending, for `max_delay` at most.
    ///
    /// A processor that handles several batches at once
    /// (`BatchProcessorBuilder::with_max_concurrent_batches`) is under load while any is in flight.
    Balanced {
        /// Pending contexts that are enough for a batch under load; 1 to `max_batch_size`.
        min_size: usize,
    },
    /// A batch is due when no context came for `idle`: each push starts that time again, until
    /// `max_delay` after the first one at most.
    ///
    /// The flusher finds out by polling, four times in `idle` while anything is pending. So a batch
    /// is due no sooner than `idle` after its last context as the flusher saw it, and up to a
    /// quarter of `idle` later. What was pushed while the flusher was busy counts as pushed when it
    /// became free. A processor's batches by key (`BatchProcessorBuilder::with_key_batches`) go by
    /// the submission of each key's last item instead, exactly.
    IdleRestart {
        /// How long no context must have come.
        idle: Duration,
    },
}

impl FlushPolicy {
    /// Returns whether it has contexts wait for others, and so needs a delay.
    #[cfg(feature = "processor")]
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Balanced { .. } | Self::IdleRestart { .. })
    }

    /// Reads a value of `BATCHLINK_FLUSH_POLICY`; `None` if it is none. The least and the greatest
    /// `min_size` are checked by [`validate`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once(':') {
            None if text == "delay" => Self::Delay,
            None if text == "immediate" => Self::Immediate,
            Some(("balanced", size)) => Self::Balanced { min_size: size.parse().ok()? },
            Some(("idle_restart", idle)) => {
                Self::IdleRestart { idle: Duration::from_millis(idle.parse().ok()?) }
            }
            _ => return None,
        })
    }
}

pub(super) fn validate(
    policy: Setting<FlushPolicy>,
    size_name: &str,
    size: usize,
) -> Result<Early, ConfigError> {
    Ok(match policy.value {
        FlushPolicy::Delay => Early::Never,
        FlushPolicy::Immediate => Early::Enough(1),
        // At most the batch size, which fits.
        FlushPolicy::Balanced { min_size } if (1..=size).contains(&min_size) => {
            Early::Enough(min_size as u32)
        }
        FlushPolicy::Balanced { min_size } => {
            let range = format!("1 to {size_name} = {size}");
            return Err(match policy.variable {
                None => ConfigError::new("min_size", min_size.to_string(), range),
                Some(variable) => {
                    let allowed = format!("a min_size of {range}");
                    ConfigError::new(variable, format!("balanced:{min_size}"), allowed)
                }
            });
        }
        FlushPolicy::IdleRestart { idle } => Early::Quiet(crate::queue::receiver::nanos(idle)),
    })
}
