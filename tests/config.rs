//! Configuration: errors, defaults, and what overrides what.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

mod common;
#[cfg(feature = "internal-logs")]
#[path = "common/log.rs"]
mod log;

use batchlink::{ConfigError, FlushPolicy, LinkCollector, LinkCollectorBuilder, LinkSet};
use common::*;
use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

fn builder() -> LinkCollectorBuilder {
    LinkCollector::builder().with_shards(2)
}

#[test]
fn wrong_value_is_named() {
    let max = usize::MAX;
    let size = "1 to 1048576";
    let table = [
        (builder().with_max_batch_size(0), "max_batch_size", 0, size),
        (builder().with_max_batch_size(1_048_577), "max_batch_size", 1_048_577, size),
        (builder().with_max_batch_size(max), "max_batch_size", max, size),
        (builder().with_max_links(0), "max_links", 0, size),
        (builder().with_max_links(1_048_577), "max_links", 1_048_577, size),
        (builder().with_max_links(max), "max_links", max, size),
        (builder().with_shards(0), "shards", 0, "1 to 128"),
        (builder().with_shards(129), "shards", 129, "1 to 128"),
        (builder().with_shards(max), "shards", max, "1 to 128"),
        (builder().with_queue_capacity(0), "queue_capacity", 0, "max_batch_size = 128 to 16777216"),
        (
            builder().with_queue_capacity(127),
            "queue_capacity",
            127,
            "max_batch_size = 128 to 16777216",
        ),
        (
            builder().with_max_batch_size(4096).with_queue_capacity(4095),
            "queue_capacity",
            4095,
            "max_batch_size = 4096 to 16777216",
        ),
        (
            builder().with_queue_capacity(16_777_217),
            "queue_capacity",
            16_777_217,
            "max_batch_size = 128 to 16777216",
        ),
        (
            builder().with_queue_capacity(max),
            "queue_capacity",
            max,
            "max_batch_size = 128 to 16777216",
        ),
        (
            builder().with_max_batch_size(1 << 20).with_shards(17),
            "shards",
            17,
            "1 to 16, since every shard has 1048576 slots (max_batch_size or more) and all \
             together at most 16777216",
        ),
        (
            builder().with_max_batch_size(1_000_000).with_shards(128),
            "shards",
            128,
            "1 to 16, since every shard has 1048576 slots (max_batch_size or more) and all \
             together at most 16777216",
        ),
        // Two wrong fields: one of them is named, and it is wrong.
        (builder().with_max_batch_size(0).with_shards(0), "max_batch_size", 0, size),
    ];
    for (builder, field, value, allowed) in table {
        let error = builder.build().expect_err(field);
        check(&error, field, &value.to_string(), allowed);
    }
    for links in [0, 1_048_577, max] {
        let error = LinkSet::builder().with_max_links(links).build().unwrap_err();
        check(&error, "max_links", &links.to_string(), size);
    }
}

fn check(error: &ConfigError, field: &str, value: &str, allowed: &str) {
    assert_eq!((error.field(), error.value(), error.allowed()), (field, value, allowed));
    assert_eq!(error.to_string(), format!("invalid {field}: {value} (allowed: {allowed})"));
    println!("{error}");
}

#[test]
fn range_ends_are_allowed() {
    let builders = [
        builder().with_max_batch_size(1),
        builder().with_max_batch_size(1 << 20),
        builder().with_max_links(1),
        builder().with_max_links(1 << 20),
        builder().with_shards(1),
        builder().with_shards(128),
        builder().with_max_batch_size(1).with_queue_capacity(1),
        builder().with_queue_capacity(1 << 24),
        builder().with_max_delay(Duration::ZERO),
        builder().with_max_delay(Duration::MAX),
    ];
    for builder in builders {
        builder.clone().build().unwrap_or_else(|error| panic!("{builder:?}: {error}"));
    }
}

/// Returns how many contexts one shard takes, from a thread that has it to itself.
fn slots(builder: LinkCollectorBuilder) -> usize {
    let (collector, _flusher) = builder.build().expect("valid");
    (1..).take_while(|&number| collector.push(&context(number)).is_ok()).count()
}

#[test]
fn shard_holds_batch_and_share() {
    assert_eq!(slots(by_size(10).with_queue_capacity(10).with_shards(4)), 16);
    assert_eq!(slots(by_size(10).with_queue_capacity(256).with_shards(4)), 64);
    assert_eq!(slots(by_size(100).with_queue_capacity(256).with_shards(4)), 128);
    assert_eq!(slots(by_size(128).with_shards(1)), 2048, "the default");
    assert_eq!(slots(by_size(1000).with_shards(1)), 4096, "4 batches, rounded up");
}

#[test]
fn shards_hold_the_capacity() {
    assert!(2 * slots(by_size(16).with_queue_capacity(33).with_shards(2)) >= 33);
}

/// What [`child`] was asked for, in its environment.
const ASKED: &str = "TEST_CONFIG_CHILD";

/// For the tests below, in a process of its own: changing the environment of this one is unsafe.
/// Prints what the environment makes of the builder, and the batch size and links it then has.
#[test]
fn child() {
    if std::env::var_os(ASKED).is_some() {
        let (builder, warnings) = with_warnings(LinkCollectorBuilder::from_env);
        let answer = builder.and_then(answer);
        println!("<<{}|{}>>", answer.unwrap_or_else(|error| error.to_string()), warnings.join("|"));
    }
}

#[cfg(feature = "internal-logs")]
fn with_warnings<R>(work: impl FnOnce() -> R) -> (R, Vec<String>) {
    log::Log::around(|log| (work(), log.lines()))
}

#[cfg(not(feature = "internal-logs"))]
fn with_warnings<R>(work: impl FnOnce() -> R) -> (R, Vec<String>) {
    (work(), Vec::new())
}

fn answer(builder: LinkCollectorBuilder) -> Result<String, ConfigError> {
    let debug = format!("{builder:?}");
    if std::env::var_os(ASKED).is_some_and(|asked| asked == "policy") {
        let policy = |debug: &str| debug.split("flush_policy: ").nth(1).unwrap().to_owned();
        let later = builder.with_flush_policy(FlushPolicy::Balanced { min_size: 1 });
        let (env, later) = (policy(&debug), policy(&format!("{later:?}")));
        let of = |text: String| text.strip_suffix(" }").unwrap().to_owned();
        return Ok(format!("policy {}, balanced:1: {}", of(env), of(later)));
    }
    let delay = debug.split("max_delay: ").nth(1).and_then(|rest| rest.split(", queue").next());
    drop(builder.clone().build()?);
    let (collector, mut flusher) = builder.clone().with_max_delay(NEVER).with_shards(1).build()?;
    let mut size = 0;
    let batch = loop {
        size += 1;
        collector.push(&context(size)).unwrap();
        if let Ok(batch) = flusher.next_batch_timeout(Duration::ZERO) {
            break batch.unwrap();
        }
    };
    let overridden =
        builder.clone().with_max_batch_size(3).with_max_links(2).with_queue_capacity(8);
    let (collector, mut flusher) = overridden.with_shards(1).build()?;
    collector.push_all(&[context(1), context(2), context(3)]);
    let then = flusher.next_batch().unwrap();
    assert_eq!((then.received(), then.linked()), (3, 2), "with_* comes after the environment");
    let slots = slots(builder.with_max_batch_size(1).with_max_delay(NEVER));
    Ok(format!("size {size} links {} delay {} slots {slots}", batch.linked(), delay.unwrap()))
}

/// What [`child`] answers and warns of, given these variables and no other that is read.
fn in_child(variables: &[(&str, OsString)]) -> (String, String) {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BATCHLINK_")
            || name.to_string_lossy().starts_with("OTEL_")
        {
            command.env_remove(name);
        }
    }
    command.env(ASKED, "1").envs(variables.iter().map(|(name, value)| (*name, value.clone())));
    let output = command.output().expect("a child process");
    let printed = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{variables:?}: {printed} {errors}");
    let (_, rest) = printed.split_once("<<").expect("an answer");
    let (answer, warnings) =
        rest.split_once(">>").expect("an answer").0.split_once('|').expect("two parts");
    (answer.to_owned(), warnings.to_owned())
}

fn from_env(variables: &[(&str, OsString)]) -> String {
    in_child(variables).0
}

const NAMES: [&str; 6] = [
    "BATCHLINK_MAX_BATCH_SIZE",
    "BATCHLINK_MAX_DELAY_MS",
    "BATCHLINK_QUEUE_CAPACITY",
    "BATCHLINK_SHARDS",
    "BATCHLINK_MAX_LINKS",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
];

#[test]
fn wrong_variable_is_named() {
    let [size, delay, capacity, shards, links, _otel] = NAMES;
    let table = [
        (size, "0", "1 to 1048576"),
        (size, "-1", "1 to 1048576"),
        (size, "12.5", "1 to 1048576"),
        (size, "1e3", "1 to 1048576"),
        (size, "0x10", "1 to 1048576"),
        (size, "many \"\n", "1 to 1048576"),
        (size, "1_000", "1 to 1048576"),
        (size, " ", "1 to 1048576"),
        (size, "1048577", "1 to 1048576"),
        (size, "99999999999999999999999", "1 to 1048576"),
        (delay, "200ms", "0 to 18446744073709551615"),
        (delay, "-5", "0 to 18446744073709551615"),
        (delay, "18446744073709551616", "0 to 18446744073709551615"),
        (capacity, "0", "1 to 16777216"),
        (capacity, "16777217", "1 to 16777216"),
        (capacity, "none", "1 to 16777216"),
        (shards, "0", "1 to 128"),
        (shards, "129", "1 to 128"),
        (shards, "auto", "1 to 128"),
        (links, "0", "1 to 1048576"),
        (links, "1048577", "1 to 1048576"),
        (links, "unlimited", "1 to 1048576"),
    ];
    for (name, value, range) in table {
        let expected = format!("invalid {name}: {value:?} (allowed: a whole number from {range})");
        assert_eq!(from_env(&[(name, value.into())]), expected);
        println!("{expected}");
    }
}

const POLICY: &str = "BATCHLINK_FLUSH_POLICY";

/// What is no policy is an error, and so is one whose number does not fit.
#[test]
fn wrong_policy_is_named() {
    let syntax = "delay, immediate, balanced:MIN_SIZE or idle_restart:MILLISECONDS";
    for value in [
        "Delay",
        "delay:5",
        "immediate:",
        "balanced",
        "balanced:",
        "balanced:-1",
        "balanced: 32",
        "balanced:99999999999999999999999",
        "idle_restart",
        "idle_restart:5ms",
        "idle_restart:18446744073709551616",
        "idle_restart:5:5",
        " ",
        "sometimes",
    ] {
        let expected = format!("invalid {POLICY}: {value:?} (allowed: {syntax})");
        assert_eq!(from_env(&[(POLICY, value.into())]), expected);
    }
    for (size, value, range) in [
        ("", "balanced:0", "1 to max_batch_size = 128"),
        ("", "balanced:129", "1 to max_batch_size = 128"),
        ("64", "balanced:65", "1 to BATCHLINK_MAX_BATCH_SIZE = 64"),
    ] {
        let expected = format!("invalid {POLICY}: {value} (allowed: a min_size of {range})");
        assert_eq!(from_env(&[(NAMES[0], size.into()), (POLICY, value.into())]), expected);
    }
}

/// A policy is the same from the environment and in code, which overrides it.
#[test]
fn environment_sets_policy() {
    let idle = Duration::from_millis(5);
    for (value, policy) in [
        ("", FlushPolicy::Delay),
        ("delay", FlushPolicy::Delay),
        ("immediate", FlushPolicy::Immediate),
        (" balanced:32 ", FlushPolicy::Balanced { min_size: 32 }),
        ("balanced:128", FlushPolicy::Balanced { min_size: 128 }),
        ("idle_restart:5", FlushPolicy::IdleRestart { idle }),
        ("idle_restart:0", FlushPolicy::IdleRestart { idle: Duration::ZERO }),
    ] {
        let expected = format!("policy {policy:?}, balanced:1: Balanced {{ min_size: 1 }}");
        let variables = [(POLICY, value.into()), (ASKED, "policy".into())];
        assert_eq!(in_child(&variables), (expected, String::new()));
    }
}

#[test]
#[cfg(unix)]
fn non_unicode_variable_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![b'1', 0xff]);
    let expected =
        "invalid BATCHLINK_SHARDS: \"1\u{fffd}\" (allowed: a whole number from 1 to 128)";
    assert_eq!(from_env(&[("BATCHLINK_SHARDS", value)]), expected);
}

#[test]
fn environment_overrides_defaults() {
    let default = "size 128 links 128 delay None slots 2048";
    let table: [(&[(&str, &str)], &str); 9] = [
        (&[], default),
        (&[(NAMES[0], ""), (NAMES[1], ""), (NAMES[4], ""), (NAMES[5], "")], default),
        (&[(NAMES[0], " 7 ")], "size 7 links 7 delay None slots 2048"),
        (&[(NAMES[1], "5")], "size 128 links 128 delay Some(5ms) slots 2048"),
        (&[(NAMES[1], "0")], "size 128 links 128 delay Some(0ns) slots 2048"),
        (&[(NAMES[2], "512"), (NAMES[3], "2")], "size 128 links 128 delay None slots 256"),
        (&[(NAMES[4], "5")], "size 128 links 5 delay None slots 2048"),
        (&[(NAMES[5], "6")], "size 128 links 6 delay None slots 2048"),
        (&[(NAMES[5], "6"), (NAMES[4], "8")], "size 128 links 8 delay None slots 2048"),
    ];
    for (variables, expected) in table {
        let variables: Vec<_> =
            variables.iter().map(|&(name, value)| (name, value.into())).collect();
        assert_eq!(from_env(&variables), expected, "{variables:?}");
    }
}

/// Each fits by itself; together they do not. The error names what was set, and where.
#[test]
fn build_error_names_the_variable() {
    let [size, _delay, capacity, shards, ..] = NAMES;
    let range = "to 16777216";
    let cases: [(&[(&str, &str)], String); 3] = [
        (&[(capacity, "100")], format!("{capacity}: 100 (allowed: max_batch_size = 128 {range})")),
        (
            &[(capacity, "100"), (size, "300")],
            format!("{capacity}: 100 (allowed: {size} = 300 {range})"),
        ),
        (
            &[(size, "1048576"), (shards, "17")],
            format!(
                "{shards}: 17 (allowed: 1 to 16, since every shard has 1048576 slots ({size} or \
                 more) and all together at most 16777216)"
            ),
        ),
    ];
    for (variables, expected) in cases {
        let variables: Vec<_> =
            variables.iter().map(|&(name, value)| (name, value.into())).collect();
        assert_eq!(from_env(&variables), format!("invalid {expected}"));
    }
    // Set in code, the field is named.
    let error = LinkCollectorBuilder::new().with_queue_capacity(100).build().unwrap_err();
    assert_eq!(error.field(), "queue_capacity");
    let policy = FlushPolicy::Balanced { min_size: 129 };
    let error = LinkCollectorBuilder::new().with_flush_policy(policy).build().unwrap_err();
    assert_eq!((error.field(), error.value()), ("min_size", "129"));
}

/// By OpenTelemetry's specification: a wrong value is ignored. 0 is a limit of the SDK's; here it
/// is the smallest bound.
#[test]
fn sdk_limit_follows_the_specification() {
    let sdk = NAMES[5];
    let warning =
        |value: &str| format!("LinkCollector.LinkCountLimit variable={sdk:?} value={value:?}");
    for (value, links, warned) in [
        ("6", 6, false),
        ("+6", 6, false),
        ("0", 1, true),
        ("4294967295", 128, false),
        ("4294967296", 128, true),
        (" 6 ", 128, true),
        ("-1", 128, true),
        ("nonsense", 128, true),
        ("", 128, false),
    ] {
        let (answer, warnings) = in_child(&[(sdk, value.into())]);
        assert!(answer.contains(&format!("links {links} ")), "{value:?}: {answer}");
        if cfg!(feature = "internal-logs") {
            let expected = if warned { warning(&format!("{value:?}")) } else { String::new() };
            assert_eq!(warnings, expected, "{value:?}");
        }
        // Not read at all where it does not count.
        for other in [("BATCHLINK_MAX_LINKS", "8"), ("OTEL_CONFIG_FILE", "sdk.yaml")] {
            let (answer, warnings) = in_child(&[(sdk, value.into()), (other.0, other.1.into())]);
            let links = if other.1 == "8" { 8 } else { 128 };
            assert!(answer.contains(&format!("links {links} ")), "{value:?}, {other:?}: {answer}");
            assert_eq!(warnings, "", "{value:?}, {other:?}");
        }
    }
}

/// Also one that differs in case only.
#[test]
#[cfg(feature = "internal-logs")]
fn unknown_variable_is_logged() {
    for name in ["BATCHLINK_MAX_BATCHSIZE", "BATCHLINK_", "BATCHLINK_max_links"] {
        let (_, warnings) = in_child(&[(name, "7".into()), (NAMES[0], "7".into())]);
        assert_eq!(warnings, format!("LinkCollector.UnknownVariable variable={name:?}"));
    }
    assert_eq!(in_child(&[("BATCHLINKS", "7".into())]).1, "");
}

/// What one thread can have pending, for the figures at `with_queue_capacity`.
#[test]
fn capacity_is_divided_among_shards() {
    for (capacity, shards, one_thread) in
        [(None, 1, 2048), (None, 2, 1024), (None, 8, 1024), (Some(2048), 8, 256)]
    {
        let mut builder = LinkCollector::builder().with_shards(shards);
        if let Some(capacity) = capacity {
            builder = builder.with_queue_capacity(capacity);
        }
        let (collector, mut flusher) = builder.build().unwrap();
        let contexts: Vec<_> = (1..=3000).map(context).collect();
        assert_eq!(collector.push_all(&contexts), one_thread);
        let stats = collector.stats();
        assert_eq!(
            (stats.fullest_shard(), stats.shard_capacity()),
            (one_thread as u64, one_thread as u64)
        );
        // One more in each of the others, which is nearer to no refusal.
        let others = (0..shards).filter(|_| collector.producer().push(&context(1)).is_ok()).count();
        let stats = collector.stats();
        assert_eq!((others, stats.pending()), (shards - 1, (one_thread + others) as u64));
        assert_eq!(stats.fullest_shard(), one_thread as u64);
        assert!(flusher.try_next().is_some());
        assert!(collector.stats().fullest_shard() < one_thread as u64);
    }
}
