//! What AWS X-Ray says of a trace header, written a second time and in another way. For tests and
//! fuzz targets.
#![allow(unreachable_pub)] // each includes this file

/// Trace id, span id and whether it is sampled; `None` if the header must be refused.
pub fn header(header: &str) -> Option<(u128, u64, bool)> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for part in header.split(';') {
        let at = part.find('=').filter(|&at| at > 0)?;
        fields.push((&part[..at], &part[at + 1..]));
    }
    let one = |name: &str| -> Result<Option<&str>, ()> {
        let values: Vec<_> =
            fields.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value).collect();
        match values[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(()),
        }
    };
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.chars().all(|c| "0123456789abcdef".contains(c))
    };
    let (root, parent, sampled) = (one("Root").ok()??, one("Parent").ok()??, one("Sampled").ok()?);
    let root: Vec<&str> = root.split('-').collect();
    let ["1", time, random] = root[..] else { return None };
    if !hex(time, 8) || !hex(random, 24) || !hex(parent, 16) {
        return None;
    }
    let trace = u128::from_str_radix(&format!("{time}{random}"), 16).ok().filter(|&id| id != 0)?;
    let span = u64::from_str_radix(parent, 16).ok().filter(|&id| id != 0)?;
    let sampled = match sampled {
        None | Some("0") | Some("?") => false,
        Some("1") => true,
        Some(_) => return None,
    };
    Some((trace, span, sampled))
}
