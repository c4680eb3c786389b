//! Promise 8: crafted ids cost no more than others, counted in slots that are read.

use super::record::Ids;
use super::table::hash;
use super::*;
use ahash::RandomState;
use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
use std::collections::HashSet;
use std::env;
use std::process::Command;

const IDS: usize = 100_000;
/// A key that the attacker knows.
const KNOWN: [u64; 4] = [1, 2, 3, 4];
/// Set in the process that [`processes_share_no_key`] starts.
const PRINT: &str = "BATCHLINK_TEST_PRINT_LAYOUT";

fn known_key() -> RandomState {
    RandomState::with_seeds(KNOWN[0], KNOWN[1], KNOWN[2], KNOWN[3])
}

fn ids(trace: u128, span: u64) -> Ids {
    Ids { trace: trace.to_be_bytes(), span: span.to_be_bytes() }
}

fn new_set(links: usize) -> LinkSet {
    let policy = LinkPolicy::new().with_max_links(links).without_link_type();
    LinkSet::builder().with_link_policy(policy).build().unwrap()
}

/// Returns slots read per id, while all of them are inserted and then looked up once more. Stops
/// when they are too many beyond doubt.
fn probes(mut set: LinkSet, ids: &[Ids]) -> f64 {
    const TOO_MANY: u64 = 100 * IDS as u64;
    let mut asked = 0;
    for again in [false, true] {
        for ids in ids {
            let (trace, span) = (TraceId::from_bytes(ids.trace), SpanId::from_bytes(ids.span));
            let context =
                SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
            let expected = if again { Outcome::Duplicate } else { Outcome::Linked };
            assert_eq!(set.insert(&context), expected);
            asked += 1;
            if set.table.reads.get() > TOO_MANY {
                return set.table.reads.get() as f64 / f64::from(asked);
            }
        }
    }
    set.table.reads.get() as f64 / f64::from(asked)
}

/// Mixes the bits of a number.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ mixed >> 32
}

fn random_ids() -> Vec<Ids> {
    let trace = |number| u128::from(mixed(number)) << 64 | u128::from(mixed(number + 1) | 1);
    (0..IDS as u64).map(|number| ids(trace(3 * number), mixed(3 * number + 2) | 1)).collect()
}

/// Crafted for tables that take the slot from the id itself: all agree in the low half, from either
/// end.
fn ids_for_an_unkeyed_table() -> Vec<Ids> {
    (1..=IDS as u64).map(|number| ids(7 << 96 | 7, number << 24 | 1)).collect()
}

/// Crafted for a known key: in a set for [`IDS`], all searches start in one 64th of the table.
fn ids_for_a_known_key() -> Vec<Ids> {
    let (key, mask) = (known_key(), new_set(IDS).table.slots.len() - 1);
    let begins_low = |ids: &Ids| (hash(&key, ids) >> 32) as usize & mask < mask / 64;
    (1..).map(|number| ids(9, number)).filter(begins_low).take(IDS).collect()
}

#[test]
fn crafted_ids_cost_no_more() {
    let random = probes(new_set(IDS), &random_ids());
    for (attack, ids) in
        [("unkeyed", ids_for_an_unkeyed_table()), ("known key", ids_for_a_known_key())]
    {
        let crafted = probes(new_set(IDS), &ids);
        println!("{attack}: {crafted:.3} reads per id, random: {random:.3}");
        assert!(crafted <= 1.5 * random, "{attack}: {crafted} reads per id instead of {random}");
    }
}

/// Otherwise the test above would prove nothing.
#[test]
fn attacks_work_without_a_key() {
    let mask = (new_set(IDS).table.slots.len() - 1) as u64;
    let places: HashSet<u64> =
        ids_for_an_unkeyed_table().iter().map(|ids| u64::from_be_bytes(ids.span) & mask).collect();
    assert!(places.len() <= 64, "{} places", places.len());

    let with_known_key = || {
        let mut set = new_set(IDS);
        set.table.hasher = known_key();
        set
    };
    let random = probes(with_known_key(), &random_ids());
    let crafted = probes(with_known_key(), &ids_for_a_known_key());
    println!("with the key known: {crafted:.0} reads per id, random: {random:.3}");
    assert!(crafted > 100.0 * random, "{crafted} reads per id instead of {random}");
}

/// Returns what a set's key decides: the slots of eight ids.
fn layout(set: &mut LinkSet) -> Vec<u32> {
    for number in 1..=8 {
        let Ids { trace, span } = ids(1, number);
        let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
        set.insert(&SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE));
    }
    set.table.slots.to_vec()
}

/// A layout has more than 20 bits of each of 8 hashes: no two are alike by chance.
#[test]
fn sets_share_no_key() {
    let policy = LinkPolicy::new().with_max_links(64);
    let layouts: HashSet<Vec<u32>> =
        (0..1000).map(|_| layout(&mut LinkSet::new(policy.clone(), 64))).collect();
    assert_eq!(layouts.len(), 1000);
}

#[test]
fn processes_share_no_key() {
    if env::var_os(PRINT).is_some() {
        return println!("layout: {:?}", layout(&mut new_set(64)));
    }
    let print = || {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "link_set::flooding::processes_share_no_key", "--nocapture"]);
        let output = command.env(PRINT, "1").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| line.split_once("layout: ")).expect("a layout").1.to_owned()
    };
    assert_ne!(print(), print());
}
