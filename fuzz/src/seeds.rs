//! Seeds of a target, packed: `seeds/<target>.txt` has one a line, its name and its bytes as in a
//! Rust string, in the order of the names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

/// What a fuzz target does with one input.
pub type Target = fn(&[u8]);

/// The targets, each with what it does with its input.
pub const TARGETS: [(&str, Target); 8] = [
    ("carrier", crate::carrier),
    ("collector_ops", crate::collector_ops),
    ("config", crate::config),
    ("dedup_truncation", crate::dedup_truncation),
    ("json", crate::json),
    ("operations", crate::operations),
    ("processor", crate::processor),
    ("record", crate::record),
];

/// Seeds by name.
pub type Seeds = BTreeMap<String, Vec<u8>>;

/// Returns the file of a target's seeds.
pub fn pack_of(target: &str) -> PathBuf {
    folder().join(target).with_extension("txt")
}

/// Returns the folder of the packs.
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds"))
}

/// Reads the seeds of a target. An error names the line.
pub fn read(target: &str) -> io::Result<Seeds> {
    let path = pack_of(target);
    let text = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    parse(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// Writes the seeds of a target: the same seeds are the same file.
pub fn write(target: &str, seeds: &Seeds) -> io::Result<()> {
    fs::write(pack_of(target), format(seeds))
}

/// Formats seeds, a line each.
pub fn format(seeds: &Seeds) -> String {
    seeds.iter().map(|(name, bytes)| format!("{name} \"{}\"\n", bytes.escape_ascii())).collect()
}

/// Parses what [`format`] writes.
pub fn parse(text: &str) -> Result<Seeds, String> {
    let mut seeds = Seeds::new();
    for (number, line) in text.lines().enumerate() {
        let (name, bytes) =
            seed(line).ok_or(format!("line {}: not a name and a string", number + 1))?;
        if seeds.insert(name.to_owned(), bytes).is_some() {
            return Err(format!("line {}: a second {name}", number + 1));
        }
    }
    Ok(seeds)
}

fn seed(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, quoted) = line.split_once(' ')?;
    Some((name, unescape(quoted.strip_prefix('"')?.strip_suffix('"')?)?))
}

/// Undoes `escape_ascii`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut unescaped = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        unescaped.push(match byte {
            b'"' => return None,
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
                quoted @ (b'\\' | b'\'' | b'"') => quoted,
                _ => return None,
            },
            b' '..=b'~' => byte,
            _ => return None,
        });
    }
    Some(unescaped)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|digit| digit as u8)
}
