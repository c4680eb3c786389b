//! Every seed once, on any toolchain and without a fuzzer: what was found stays found.

use batchlink_fuzz::seeds;
use std::fs;

/// Runs every seed. One test, since `config` sets the environment of the process.
#[test]
fn seeds_hold() {
    let mut packs = Vec::new();
    for (target, run) in seeds::TARGETS {
        let seeds = seeds::read(target).expect("a pack");
        assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
        for (name, bytes) in &seeds {
            println!("{target}/{name}");
            run(bytes);
        }
        println!("{target}: {} seeds hold", seeds.len());
        packs.push(seeds::pack_of(target));
    }
    let mut found: Vec<_> = fs::read_dir(seeds::folder())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    found.sort();
    assert_eq!(found, packs, "every pack has a target, which runs it");
}

/// Packs what it reads to the same text.
#[test]
fn packing_is_deterministic() {
    for (target, _) in seeds::TARGETS {
        let text = fs::read_to_string(seeds::pack_of(target)).expect("a pack");
        let seeds = seeds::parse(&text).expect("seeds");
        assert!(
            seeds::format(&seeds) == text,
            "{target} is not as packed; run: cargo run --example seeds pack"
        );
    }
}

/// Reads any bytes back from a line of ASCII.
#[test]
fn bytes_survive_packing() {
    let bytes: Vec<u8> = (0..=255).collect();
    let seeds = [("all".to_owned(), bytes), ("empty".to_owned(), Vec::new())].into();
    let text = seeds::format(&seeds);
    assert!(text.is_ascii() && text.lines().count() == 2);
    assert_eq!(seeds::parse(&text), Ok(seeds));
    for bad in [
        "name",
        "name a",
        "name \"",
        r#"name "\""#,
        r#"name "\x4""#,
        r#"name "\q""#,
        r#"name "a"b""#,
        "name \"é\"",
        "name \"a\"\nname \"b\"",
    ] {
        assert!(seeds::parse(bad).is_err(), "{bad:?}");
    }
}
