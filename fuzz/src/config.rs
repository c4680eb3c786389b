//! Builder and environment: whatever they say, a collector of just that shape or an error that
//! names field, value and what is allowed.
//!
//! The input is text, `NAME=value` in each line: an environment variable or, in lower case, a field
//! of the builder. What is allowed is said here once more, in numbers that do not overflow.

use crate::common::{NEVER, context};
use batchlink::{ConfigError, LinkCollector, LinkCollectorBuilder, LinkSet};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

const MOST: u128 = 1 << 20;
const MOST_SLOTS: u128 = 1 << 24;
const MOST_SHARDS: u128 = 128;
/// Collectors with more slots than this are not built: half a gigabyte in every run tells nothing
/// that a smaller one does not. That they are refused if they must be is seen without building
/// them.
const BUILT_SLOTS: u128 = 1 << 11;

const VARIABLES: [(&str, u128, u128); 6] = [
    ("BATCHLINK_MAX_BATCH_SIZE", 1, MOST),
    ("BATCHLINK_MAX_DELAY_MS", 0, u64::MAX as u128),
    ("BATCHLINK_QUEUE_CAPACITY", 1, MOST_SLOTS),
    ("BATCHLINK_SHARDS", 1, MOST_SHARDS),
    ("BATCHLINK_MAX_LINKS", 1, MOST),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", 0, u32::MAX as u128),
];

/// By name.
type Lines<'a> = BTreeMap<&'a [u8], &'a [u8]>;

/// Field, value, what is allowed.
type Refusal = (String, String, String);

/// The numeric fields of the builder, as far as they are set.
#[derive(Clone, Debug, Default)]
struct Fields {
    max_batch_size: Option<u128>,
    max_delay: Option<Duration>,
    queue_capacity: Option<u128>,
    shards: Option<u128>,
    max_links: Option<u128>,
}

/// What errors call a field: the variable, if the value came from there.
struct Names {
    max_batch_size: &'static str,
    queue_capacity: &'static str,
    shards: &'static str,
}

/// What a collector is like.
struct Shape {
    size: usize,
    shards: usize,
    slots: usize,
    max_links: usize,
}

pub fn config(data: &[u8]) {
    let lines: Lines<'_> = data.split(|&byte| byte == b'\n').filter_map(assignment).collect();
    set_environment(&lines);
    let (mut builder, mut fields) = match (LinkCollectorBuilder::from_env(), from_env(&lines)) {
        (Ok(builder), Ok(fields)) => (builder, fields),
        (Err(error), Err(expected)) => return assert_refused(&error, &expected),
        (found, expected) => panic!("{found:?}, expected {expected:?}"),
    };
    // The same by other means.
    assert_eq!(
        format!("{builder:?}"),
        format!("{:?}", configured(LinkCollector::builder(), &fields))
    );
    let own = own_fields(&lines);
    builder = configured(builder, &own);
    let name = |field, own: Option<u128>, env: Option<u128>, index: usize| match (own, env) {
        (None, Some(_)) => VARIABLES[index].0,
        _ => field,
    };
    let names = Names {
        max_batch_size: name("max_batch_size", own.max_batch_size, fields.max_batch_size, 0),
        queue_capacity: name("queue_capacity", own.queue_capacity, fields.queue_capacity, 2),
        shards: name("shards", own.shards, fields.shards, 3),
    };
    fields = Fields {
        max_batch_size: own.max_batch_size.or(fields.max_batch_size),
        max_delay: own.max_delay.or(fields.max_delay),
        queue_capacity: own.queue_capacity.or(fields.queue_capacity),
        shards: own.shards.or(fields.shards),
        max_links: own.max_links.or(fields.max_links),
    };
    match validate(&fields, &names) {
        Ok(shape) if (shape.slots * shape.shards) as u128 > BUILT_SLOTS => {}
        // No batch ends by time while it is looked at.
        Ok(shape) => check(builder.with_max_delay(NEVER), &shape),
        Err(expected) => {
            assert_refused(&builder.build().map(drop).expect_err("refused"), &expected)
        }
    }
    let max_links = fields.max_links.unwrap_or(128);
    let set = || LinkSet::builder().with_max_links(max_links as usize).build();
    match within("max_links", max_links, 1, MOST) {
        Ok(links) if links > BUILT_SLOTS as usize => {}
        Ok(_) => assert!(set().is_ok()),
        Err(expected) => assert_refused(&set().map(drop).expect_err("refused"), &expected),
    }
}

fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = line.iter().position(|&byte| byte == b'=')?;
    // No environment can hold a zero.
    let value = Some(&line[equals + 1..]).filter(|value| !value.contains(&0))?;
    Some((&line[..equals], value))
}

fn set_environment(lines: &Lines<'_>) {
    for (name, ..) in VARIABLES {
        // SAFETY: a fuzz target has one thread that looks at the environment, which is this one.
        match lines.get(name.as_bytes()) {
            Some(value) => unsafe { std::env::set_var(name, OsStr::from_bytes(value)) },
            None => unsafe { std::env::remove_var(name) },
        }
    }
}

/// The environment: links first, then in the order of `VARIABLES`. The SDK's own variable is
/// ignored if it is no number without blanks around it.
fn from_env(lines: &Lines<'_>) -> Result<Fields, Refusal> {
    let read = |index: usize| {
        let (name, least, most) = VARIABLES[index];
        let Some(value) = lines.get(name.as_bytes()).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let number = std::str::from_utf8(value).ok().and_then(|text| number(text.trim()));
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let value = format!("{:?}", String::from_utf8_lossy(value));
                Err((name.to_owned(), value, format!("a whole number from {least} to {most}")))
            }
        }
    };
    let [links, size, delay, capacity, shards] = [read(4)?, read(0)?, read(1)?, read(2)?, read(3)?];
    let sdk = || {
        let text = std::str::from_utf8(lines.get(VARIABLES[5].0.as_bytes())?).ok()?;
        let limit = number(text).filter(|&limit| limit <= VARIABLES[5].2)?;
        Some(limit.clamp(1, MOST))
    };
    Ok(Fields {
        max_batch_size: size,
        max_delay: delay.map(milliseconds),
        queue_capacity: capacity,
        shards,
        max_links: links.or_else(sdk),
    })
}

/// Digits, after a plus sign at most; as large as it may be, but not larger.
fn number(text: &str) -> Option<u128> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let mut number = 0_u128;
    for digit in digits.chars() {
        number = number.saturating_mul(10).saturating_add(digit.to_digit(10)?.into());
    }
    (!digits.is_empty()).then_some(number)
}

fn milliseconds(number: u128) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(u64::MAX))
}

/// The fields that are set by calls; what is no number is not set.
fn own_fields(lines: &Lines<'_>) -> Fields {
    let read = |name: &str| {
        let text = std::str::from_utf8(lines.get(name.as_bytes())?).ok()?;
        Some(number(text)?.min(usize::MAX as u128))
    };
    Fields {
        max_batch_size: read("max_batch_size"),
        max_delay: read("max_delay").map(milliseconds),
        queue_capacity: read("queue_capacity"),
        shards: read("shards"),
        max_links: read("max_links"),
    }
}

fn configured(mut builder: LinkCollectorBuilder, fields: &Fields) -> LinkCollectorBuilder {
    if let Some(size) = fields.max_batch_size {
        builder = builder.with_max_batch_size(size as usize);
    }
    if let Some(delay) = fields.max_delay {
        builder = builder.with_max_delay(delay);
    }
    if let Some(capacity) = fields.queue_capacity {
        builder = builder.with_queue_capacity(capacity as usize);
    }
    if let Some(shards) = fields.shards {
        builder = builder.with_shards(shards as usize);
    }
    if let Some(links) = fields.max_links {
        builder = builder.with_max_links(links as usize);
    }
    builder
}

fn within(field: &str, value: u128, least: u128, most: u128) -> Result<usize, Refusal> {
    match (least..=most).contains(&value) {
        true => Ok(value as usize),
        false => Err((field.to_owned(), value.to_string(), format!("{least} to {most}"))),
    }
}

/// In the order in which `build` looks.
fn validate(fields: &Fields, names: &Names) -> Result<Shape, Refusal> {
    let max_links = within("max_links", fields.max_links.unwrap_or(128), 1, MOST)?;
    let size = within(names.max_batch_size, fields.max_batch_size.unwrap_or(128), 1, MOST)? as u128;
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get()) as u128;
    // Four a processor, if that is few; a power of two; at least 16 contexts of a batch each.
    let wanted = processors.max((4 * processors).min(16));
    let fitting = (MOST_SLOTS / size.next_power_of_two()).min(MOST_SHARDS);
    let most = (size / 16).clamp(1, fitting);
    let default = 1 << wanted.next_power_of_two().min(most).ilog2();
    let shards = within(names.shards, fields.shards.unwrap_or(default), 1, MOST_SHARDS)? as u128;
    let capacity = fields.queue_capacity.unwrap_or(2048.max(4 * size).max(1024 * shards));
    let allowed = |(field, value, _)| {
        (field, value, format!("{} = {size} to {MOST_SLOTS}", names.max_batch_size))
    };
    within(names.queue_capacity, capacity, size, MOST_SLOTS).map_err(allowed)?;
    let slots = capacity.div_ceil(shards).max(size).next_power_of_two();
    if slots * shards > MOST_SLOTS {
        let most = MOST_SLOTS / slots;
        let allowed = format!(
            "1 to {most}, since every shard has {slots} slots ({} or more) and all together at \
             most {MOST_SLOTS}",
            names.max_batch_size
        );
        return Err((names.shards.into(), shards.to_string(), allowed));
    }
    Ok(Shape { size: size as usize, shards: shards as usize, slots: slots as usize, max_links })
}

fn assert_refused(error: &ConfigError, expected: &Refusal) {
    let (field, value, allowed) = expected;
    assert_eq!((error.field(), error.value(), error.allowed()), (&**field, &**value, &**allowed));
    assert_eq!(error.to_string(), format!("invalid {field}: {value} (allowed: {allowed})"));
}

/// It has so many shards with so many slots, and gives batches of that size with so many links.
fn check(builder: LinkCollectorBuilder, shape: &Shape) {
    let (collector, mut flusher) = builder.build().unwrap_or_else(|error| panic!("{error}"));
    let contexts: Vec<_> = (1..=shape.slots as u64 + 1).map(context).collect();
    for _ in 0..shape.shards {
        assert_eq!(collector.producer().push_all(&contexts), shape.slots);
    }
    assert_eq!(collector.producer().push_all(&contexts), 0, "a shard too many");
    let pending = shape.shards * shape.slots;
    assert_eq!(collector.stats().pending(), pending as u64);
    // With one shard all contexts of a batch are different.
    let batch = flusher.try_next().expect("pending");
    assert_eq!(batch.received(), shape.size.min(pending) as u64);
    if shape.shards == 1 {
        assert_eq!(batch.linked(), shape.size.min(shape.max_links) as u64);
    }
}
