//! Wrong configurations and what each is told; defaults, and what overrides what.

mod common;

use batchlink::{ConfigError, LinkCollector, LinkCollectorBuilder, LinkSet};
use common::*;
use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

fn builder() -> LinkCollectorBuilder {
    LinkCollector::builder().with_shards(2)
}

#[test]
fn wrong_values_are_named_with_what_is_allowed() {
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
        (builder().with_queue_capacity(127), "queue_capacity", 127, "max_batch_size = 128 to 16777216"),
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
        (builder().with_queue_capacity(max), "queue_capacity", max, "max_batch_size = 128 to 16777216"),
        (
            builder().with_max_batch_size(1 << 20).with_shards(17),
            "shards",
            17,
            "1 to 16, since every shard has 1048576 slots (max_batch_size or more) and all together \
             at most 16777216",
        ),
        (
            builder().with_max_batch_size(1_000_000).with_shards(128),
            "shards",
            128,
            "1 to 16, since every shard has 1048576 slots (max_batch_size or more) and all together \
             at most 16777216",
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
fn the_ends_of_every_range_are_allowed() {
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

/// How many contexts one shard takes, from a thread whose shard nobody else uses.
fn slots(builder: LinkCollectorBuilder) -> usize {
    let (collector, _flusher) = builder.build().expect("valid");
    (1..).take_while(|&number| collector.push(&context(number)).is_ok()).count()
}

#[test]
fn a_shard_has_room_for_a_batch_and_for_its_part_of_the_queue() {
    assert_eq!(slots(by_size(10).with_queue_capacity(10).with_shards(4)), 16);
    assert_eq!(slots(by_size(10).with_queue_capacity(256).with_shards(4)), 64);
    assert_eq!(slots(by_size(100).with_queue_capacity(256).with_shards(4)), 128);
    assert_eq!(slots(by_size(128).with_shards(1)), 2048, "the default");
    assert_eq!(slots(by_size(1000).with_shards(1)), 4096, "4 batches, rounded up");
}

#[test]
fn all_shards_together_hold_at_least_the_queue_capacity() {
    assert!(2 * slots(by_size(16).with_queue_capacity(33).with_shards(2)) >= 33);
}

/// For the tests below, in a process of its own: changing the environment of this one is unsafe.
/// Prints what the environment makes of the builder, and the batch size and links it then has.
#[test]
#[ignore = "run by the tests of the environment, as a child process"]
fn child() {
    match LinkCollectorBuilder::from_env() {
        Err(error) => println!("<<{error}>>"),
        Ok(builder) => {
            let delay = format!("{builder:?}");
            let delay = delay.split("max_delay: ").nth(1).and_then(|rest| rest.split(", queue").next());
            let (collector, mut flusher) =
                builder.clone().with_max_delay(NEVER).with_shards(1).build().unwrap();
            let mut size = 0;
            let batch = loop {
                size += 1;
                collector.push(&context(size)).unwrap();
                if let Ok(batch) = flusher.next_batch_timeout(Duration::ZERO) {
                    break batch.unwrap();
                }
            };
            let overridden = builder.clone().with_max_batch_size(3).with_max_links(2).with_queue_capacity(8);
            let (_, mut flusher) = overridden
                .clone()
                .with_shards(1)
                .build()
                .map(|(collector, flusher)| {
                    collector.push_all(&[context(1), context(2), context(3)]);
                    (collector, flusher)
                })
                .unwrap();
            let then = flusher.next_batch().unwrap();
            assert_eq!((then.received(), then.linked()), (3, 2), "with_* comes after the environment");
            let shards_and_capacity = slots(builder.with_max_batch_size(1).with_max_delay(NEVER));
            println!(
                "<<size {size} links {} delay {} slots {shards_and_capacity}>>",
                batch.linked(),
                delay.unwrap()
            );
        }
    }
}

/// What [`child`] prints, given these variables and no other of ours.
fn from_env(variables: &[(&str, OsString)]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    for name in NAMES {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().map(|(name, value)| (*name, value.clone()))).output();
    let output = output.expect("a child process");
    let printed = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{variables:?}: {printed} {errors}");
    let (_, rest) = printed.split_once("<<").expect("an answer");
    rest.split_once(">>").expect("an answer").0.to_owned()
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
fn wrong_variables_are_named_with_what_is_allowed() {
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

#[test]
#[cfg(unix)]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![b'1', 0xff]);
    let expected = "invalid BATCHLINK_SHARDS: \"1\u{fffd}\" (allowed: a whole number from 1 to 128)";
    assert_eq!(from_env(&[("BATCHLINK_SHARDS", value)]), expected);
}

#[test]
fn the_environment_overrides_the_defaults() {
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
        let variables: Vec<_> = variables.iter().map(|&(name, value)| (name, value.into())).collect();
        assert_eq!(from_env(&variables), expected, "{variables:?}");
    }
}

/// The SDK's own variable may say what the SDK understands, "no links at all" included; and what
/// we do not understand of it must not stop us when our own variable says what to do.
#[test]
fn the_sdks_variable_does_not_stop_us() {
    let own = ("BATCHLINK_MAX_LINKS", OsString::from("8"));
    for value in ["0", "4294967295", "nonsense"] {
        let sdk = ("OTEL_SPAN_LINK_COUNT_LIMIT", OsString::from(value));
        assert!(from_env(&[sdk, own.clone()]).contains("links 8"), "{value}");
    }
}
