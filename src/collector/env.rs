//! Configuration from environment variables.

use crate::collector::builder::LinkCollectorBuilder;
use crate::collector::config::{BATCH_SIZES, MAX_SLOTS, Setting};
use crate::collector::flush_policy::FlushPolicy;
use crate::collector::log::logged;
use crate::error::ConfigError;
use crate::link_set::{LinkPolicy, MAX_LINKS};
use crate::queue::trigger::MAX_SHARDS;
use std::env;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

const PREFIX: &str = "BATCHLINK_";
const MAX_BATCH_SIZE: &str = "BATCHLINK_MAX_BATCH_SIZE";
const MAX_DELAY_MS: &str = "BATCHLINK_MAX_DELAY_MS";
const QUEUE_CAPACITY: &str = "BATCHLINK_QUEUE_CAPACITY";
const SHARDS: &str = "BATCHLINK_SHARDS";
const OWN_MAX_LINKS: &str = "BATCHLINK_MAX_LINKS";
const FLUSH_POLICY: &str = "BATCHLINK_FLUSH_POLICY";
const SDK_MAX_LINKS: &str = "OTEL_SPAN_LINK_COUNT_LIMIT";
/// A file that replaces all other variables of the SDK.
const SDK_CONFIG_FILE: &str = "OTEL_CONFIG_FILE";

pub(super) fn read() -> Result<LinkCollectorBuilder, ConfigError> {
    warn_of_unknown();
    let max_links = match own(OWN_MAX_LINKS, 1..=MAX_LINKS)? {
        Some(links) => Some(links),
        None => sdk_max_links(),
    };
    Ok(LinkCollectorBuilder {
        max_batch_size: setting(MAX_BATCH_SIZE, BATCH_SIZES)?,
        max_delay: own(MAX_DELAY_MS, 0..=u64::MAX)?.map(Duration::from_millis),
        queue_capacity: setting(QUEUE_CAPACITY, 1..=MAX_SLOTS)?,
        shards: setting(SHARDS, 1..=MAX_SHARDS)?,
        flush_policy: flush_policy()?,
        links: max_links
            .map_or_else(LinkPolicy::new, |links| LinkPolicy::new().with_max_links(links)),
        ..LinkCollectorBuilder::new()
    })
}

fn flush_policy() -> Result<Setting<FlushPolicy>, ConfigError> {
    let allowed = "delay, immediate, balanced:MIN_SIZE or idle_restart:MILLISECONDS";
    let policy = strict(FLUSH_POLICY, FlushPolicy::parse, || allowed.to_owned())?;
    let setting = |value| Setting { value, variable: Some(FLUSH_POLICY) };
    Ok(policy.map(setting).unwrap_or_default())
}

fn setting(
    name: &'static str,
    allowed: RangeInclusive<usize>,
) -> Result<Option<Setting<usize>>, ConfigError> {
    let value = own(name, allowed)?;
    Ok(value.map(|value| Setting { value, variable: Some(name) }))
}

fn own<N>(name: &'static str, allowed: RangeInclusive<N>) -> Result<Option<N>, ConfigError>
where
    N: FromStr + PartialOrd + Display,
{
    strict(
        name,
        |text| text.parse().ok().filter(|number| allowed.contains(number)),
        || format!("a whole number from {} to {}", allowed.start(), allowed.end()),
    )
}

/// One of our own variables: strict, because a wrong one is found when the process starts.
fn strict<V>(
    name: &'static str,
    parse: impl FnOnce(&str) -> Option<V>,
    allowed: impl FnOnce() -> String,
) -> Result<Option<V>, ConfigError> {
    let Some(raw) = env::var_os(name).filter(|raw| !raw.is_empty()) else {
        return Ok(None);
    };
    match raw.to_str().and_then(|text| parse(text.trim())) {
        Some(value) => Ok(Some(value)),
        None => Err(ConfigError::new(name, format!("{:?}", raw.to_string_lossy()), allowed())),
    }
}

/// The SDK's variable, read as the SDK reads it: what cannot be parsed, blanks included, is ignored
/// with a warning, by OpenTelemetry's specification of environment variables.
fn sdk_max_links() -> Option<usize> {
    let is_set = |name| env::var_os(name).filter(|raw| !raw.is_empty());
    if is_set(SDK_CONFIG_FILE).is_some() {
        return None;
    }
    let raw = is_set(SDK_MAX_LINKS)?;
    let limit: Option<u32> = raw.to_str().and_then(|text| text.parse().ok());
    if limit.is_none_or(|limit| limit == 0) {
        logged(|| {
            opentelemetry::otel_warn!(
                name: "LinkCollector.LinkCountLimit",
                variable = SDK_MAX_LINKS,
                value = format!("{raw:?}"),
                message = "Ignored if it is not a whole number. With 0 the SDK keeps no link of \
                           any span: max_links is 1 then, its smallest value."
            );
        });
    }
    limit.map(|limit| (limit as usize).clamp(1, MAX_LINKS))
}

/// A misspelt variable would be ignored without a word.
fn warn_of_unknown() {
    const KNOWN: [&str; 6] =
        [MAX_BATCH_SIZE, MAX_DELAY_MS, QUEUE_CAPACITY, SHARDS, OWN_MAX_LINKS, FLUSH_POLICY];
    let names = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in names.filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str())) {
        logged(|| {
            opentelemetry::otel_warn!(
                name: "LinkCollector.UnknownVariable",
                variable = name.as_str(),
                message = "This environment variable has the prefix of batchlink, and is none of \
                           its variables."
            );
        });
    }
}
