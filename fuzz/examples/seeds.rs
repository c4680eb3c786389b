//! Packs and unpacks seeds: see README.md. In this directory:
//!
//! ```text
//! cargo run --example seeds unpack
//! cargo run --example seeds pack
//! cargo run --example seeds add <target> <folder>
//! cargo run --example seeds generate
//! ```
//!
//! `unpack` writes to target/seeds/<target>/<name>, for libFuzzer. `pack` sorts and escapes anew,
//! after an edit by hand. `add` adds the files of a folder, each as `min-<its name>`. `generate`
//! makes the first seeds of the targets whose input is bytes.

#[path = "../../tests/common/mod.rs"]
mod common;

use batchlink_fuzz::seeds::{self, Seeds};
use common::Random;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["unpack"] => unpack(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/seeds"))),
        ["pack"] => all(|_, _| ()),
        ["generate"] => all(generate),
        ["add", target, folder] => add(target, Path::new(folder)),
        _ => Err(io::Error::other("usage: seeds unpack | pack | generate | add <target> <folder>")),
    }
}

fn unpack(folder: &Path) -> io::Result<()> {
    for (target, _) in seeds::TARGETS {
        let folder = folder.join(target);
        // What is no longer a seed goes.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds::read(target)? {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

fn add(target: &str, folder: &Path) -> io::Result<()> {
    let mut seeds = seeds::read(target)?;
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name: String = file.file_name().to_string_lossy().chars().take(8).collect();
        seeds.insert(format!("min-{name}"), fs::read(file.path())?);
    }
    seeds::write(target, &seeds)
}

/// Changes the seeds of every target.
fn all(change: fn(&str, &mut Seeds)) -> io::Result<()> {
    for (target, _) in seeds::TARGETS {
        let mut seeds = seeds::read(target)?;
        change(target, &mut seeds);
        seeds::write(target, &seeds)?;
    }
    Ok(())
}

fn generate(target: &str, seeds: &mut Seeds) {
    match target {
        // Any bytes are calls; more of them reach further.
        "collector_ops" | "dedup_truncation" | "operations" | "processor" => {
            for (seed, length) in [20, 50, 100, 200, 400, 800, 1600].into_iter().enumerate() {
                let mut random = Random(seed as u64);
                let bytes = (0..length).map(|_| random.next() as u8).collect();
                seeds.insert(format!("random-{length}"), bytes);
            }
        }
        "record" => {
            for bytes in [0, 3, 256, 511, 512, 513, 1100] {
                for members in [1, 2, 32] {
                    seeds.insert(format!("state-{bytes}-in-{members}"), record(bytes, members));
                }
            }
        }
        _ => {}
    }
}

/// A sampled remote context with this trace state, and two attributes.
fn record(bytes: u16, members: u8) -> Vec<u8> {
    const POLICY: [u8; 3] = [0; 3];
    const ID: [u8; 9] = [7; 9];
    const FLAGS_AND_REMOTE: [u8; 2] = [1, 1];
    let mut seed = [&POLICY[..], &ID, &ID, &ID, &FLAGS_AND_REMOTE].concat();
    seed.extend(bytes.to_be_bytes());
    seed.push(members - 1);
    // The choices of its members (the shortest, but for the last one), then those of the
    // attributes.
    seed.extend([0; 64]);
    seed.extend([2; 32]);
    seed
}
