//! The validated configuration.

use crate::collector::builder::LinkCollectorBuilder;
use crate::collector::flush_policy::{self, FlushPolicy};
use crate::error::{ConfigError, within};
use crate::link_set::policy::LinkPolicy;
use crate::meter::MeterConfig;
use crate::queue::receiver::nanos;
use crate::queue::rules::{Early, Rules};
use crate::queue::trigger::MAX_SHARDS;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) const BATCH_SIZES: RangeInclusive<usize> = 1..=1 << 20;
/// All shards together, after rounding; 512 MiB of slots.
pub(super) const MAX_SLOTS: usize = 1 << 24;
/// A shard for fewer contexts of a batch than this costs more in reports than it saves.
const CONTEXTS_PER_SHARD: usize = 16;
/// A service has more threads than processors. Threads that share a shard make it travel between
/// processors.
const SHARDS_PER_PROCESSOR: usize = 4;
/// Up to here more shards cost next to nothing.
const FEW_SHARDS: usize = 16;

/// A configuration that was found valid.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) max_batch_size: u32,
    pub(crate) max_delay: Duration,
    pub(crate) shards: usize,
    pub(crate) slots_per_shard: u32,
    pub(crate) links: LinkPolicy,
    pub(crate) meter: MeterConfig,
    pub(crate) wait_times: bool,
    early: Early,
}

impl Config {
    pub(crate) fn rules(&self) -> Rules {
        let max_delay = nanos(self.max_delay);
        Rules { size: self.max_batch_size, max_delay, early: self.early }
    }
}

/// A value, and where it came from, for errors.
#[derive(Clone, Copy, Default)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    /// The environment variable; `None` for a value set in code.
    pub(super) variable: Option<&'static str>,
}

impl<T> From<T> for Setting<T> {
    fn from(value: T) -> Self {
        Self { value, variable: None }
    }
}

impl<T: fmt::Debug> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The name that an error gives to a field, and its value.
fn named(
    field: &'static str,
    setting: Option<Setting<usize>>,
    default: impl FnOnce() -> usize,
) -> (&'static str, usize) {
    match setting {
        Some(Setting { value, variable }) => (variable.unwrap_or(field), value),
        None => (field, default()),
    }
}

impl LinkCollectorBuilder {
    pub(crate) fn validate(self) -> Result<Config, ConfigError> {
        let links = self.links.validate()?;
        let (size_name, size) = named("max_batch_size", self.max_batch_size, || 128);
        within(size_name, size, BATCH_SIZES)?;
        let default_shards = || {
            let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
            let fitting = (MAX_SLOTS / size.next_power_of_two()).min(MAX_SHARDS);
            let wanted = processors.max((SHARDS_PER_PROCESSOR * processors).min(FEW_SHARDS));
            let most = (size / CONTEXTS_PER_SHARD).clamp(1, fitting);
            // Threads are spread evenly over a power of two.
            1 << wanted.next_power_of_two().min(most).ilog2()
        };
        let early = flush_policy::validate(self.flush_policy, size_name, size)?;
        let (shards_name, shards) = named("shards", self.shards, default_shards);
        within(shards_name, shards, 1..=MAX_SHARDS)?;
        let (name, capacity) = named("queue_capacity", self.queue_capacity, || {
            (4 * size).max(1024 * shards).max(2048)
        });
        if !(size..=MAX_SLOTS).contains(&capacity) {
            let allowed = format!("{size_name} = {size} to {MAX_SLOTS}");
            return Err(ConfigError::new(name, capacity.to_string(), allowed));
        }
        let slots_per_shard = capacity.div_ceil(shards).max(size).next_power_of_two();
        if slots_per_shard * shards > MAX_SLOTS {
            let most = MAX_SLOTS / slots_per_shard;
            return Err(ConfigError::new(
                shards_name,
                shards.to_string(),
                format!(
                    "1 to {most}, since every shard has {slots_per_shard} slots ({size_name} or \
                     more) and all together at most {MAX_SLOTS}"
                ),
            ));
        }
        Ok(Config {
            // Both are at most MAX_SLOTS.
            max_batch_size: size as u32,
            slots_per_shard: slots_per_shard as u32,
            max_delay: match self.flush_policy.value {
                FlushPolicy::Immediate => Duration::MAX,
                _ => self.max_delay.unwrap_or(Duration::from_millis(200)),
            },
            shards,
            links,
            meter: self.meter,
            wait_times: self.wait_times,
            early,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link_set::policy::{Dedup, Unsampled};

    fn config(configure: impl FnOnce(LinkCollectorBuilder) -> LinkCollectorBuilder) -> Config {
        configure(LinkCollectorBuilder::new()).validate().expect("valid")
    }

    #[test]
    fn defaults_match_their_docs() {
        let config = config(|builder| builder);
        assert_eq!((config.max_batch_size, config.max_delay), (128, Duration::from_millis(200)));
        assert_eq!(config.links.max_links(), 128);
        assert_eq!(config.links.link_type.as_deref(), Some("batch_item"));
        assert_eq!(
            (config.links.unsampled, config.links.dedup),
            (Unsampled::Drop, Dedup::ByContext)
        );
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        assert_eq!(config.shards, if processors == 1 { 4 } else { 8 });
        assert_eq!(config.slots_per_shard, 1024);
    }

    #[test]
    fn small_batches_have_few_shards() {
        for (size, most) in [(1, 1), (16, 1), (31, 1), (32, 2), (63, 2), (1000, 32)] {
            let shards = config(|builder| builder.with_max_batch_size(size)).shards;
            assert!((1..=most).contains(&shards), "{shards} shards for batches of {size}");
        }
        // An explicit number is used as given.
        assert_eq!(config(|builder| builder.with_max_batch_size(1).with_shards(128)).shards, 128);
    }

    #[test]
    fn slots_hold_a_batch() {
        for (size, capacity, shards, slots) in
            [(1, 1, 1, 1), (3, 3, 1, 4), (3, 64, 4, 16), (17, 64, 4, 32), (128, 4096, 2, 2048)]
        {
            let config = config(|builder| {
                builder.with_max_batch_size(size).with_queue_capacity(capacity).with_shards(shards)
            });
            assert_eq!(config.slots_per_shard, slots);
        }
    }
}
