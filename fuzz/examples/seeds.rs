//! Writes the first seeds of the targets whose input is bytes: `cargo run --example seeds` in this
//! directory. (Those of `config` are text, written by hand.)

#[path = "../../tests/common/mod.rs"]
mod common;

use common::Random;
use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    // Any bytes are calls; more of them reach further.
    for target in ["collector_ops", "dedup_truncation", "operations", "processor"] {
        for (seed, length) in [20, 50, 100, 200, 400, 800, 1600].into_iter().enumerate() {
            let mut random = Random(seed as u64);
            let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            write(target, &format!("random-{length}"), &bytes)?;
        }
    }
    for bytes in [0, 3, 256, 511, 512, 513, 1100_u16] {
        for members in [1, 2, 32] {
            write("record", &format!("state-{bytes}-in-{members}"), &record(bytes, members))?;
        }
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// A sampled remote context with this trace state, and two attributes.
fn record(bytes: u16, members: u8) -> Vec<u8> {
    const POLICY: [u8; 3] = [0; 3];
    const ID: [u8; 9] = [7; 9];
    const FLAGS_AND_REMOTE: [u8; 2] = [1, 1];
    let mut seed = [&POLICY[..], &ID, &ID, &ID, &FLAGS_AND_REMOTE].concat();
    seed.extend(bytes.to_be_bytes());
    seed.push(members - 1);
    // The choices of its members (the shortest, but for the last one), then those of the attributes.
    seed.extend([0; 64]);
    seed.extend([2; 32]);
    seed
}
