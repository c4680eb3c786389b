//! What W3C Trace Context says of a `traceparent` and a `tracestate`, written a second time and in
//! another way: from the specification's grammar, field by field. For tests and fuzz targets.
#![allow(unreachable_pub)] // each includes this file

/// Trace id, span id and flags; `None` if the header must be ignored.
pub fn traceparent(header: &str) -> Option<(u128, u64, u8)> {
    let fields: Vec<&str> = header.split('-').collect();
    let [version, trace, span, flags, more @ ..] = &fields[..] else { return None };
    let lower_hex = |text: &str| text.chars().all(|c| "0123456789abcdef".contains(c));
    let lengths = [version.len(), trace.len(), span.len(), flags.len()];
    if lengths != [2, 32, 16, 2]
        || ![version, trace, span, flags].iter().all(|field| lower_hex(field))
    {
        return None;
    }
    if *version == "ff" || *version == "00" && !more.is_empty() {
        return None;
    }
    let known = if *version == "00" { 0b11 } else { 0b01 };
    let trace = u128::from_str_radix(trace, 16).ok().filter(|&id| id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|&id| id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace, span, flags & known))
}

/// The one value of the `tracestate` headers of a message, given the values of its headers by name.
pub fn tracestates<'a>(values: impl Fn(&str) -> Vec<&'a str>) -> Option<String> {
    let (parents, states) = (values("traceparent").len(), values("tracestate"));
    match &states[..] {
        [] => None,
        // Whole pairs were appended, or there is only one.
        [.., last] if parents > 1 || states.len() == 1 => Some((*last).to_owned()),
        _ => {
            let mut list = String::new();
            for state in states.iter().filter(|state| !state.trim().is_empty()) {
                list += if list.is_empty() { "" } else { "," };
                list += state;
            }
            Some(list)
        }
    }
}

/// The members that are kept; `None` if the header must be discarded.
pub fn tracestate(header: &str) -> Option<Vec<(String, String)>> {
    let space = |c: char| c == ' ' || c == '\t';
    let members: Vec<&str> = header
        .split(',')
        .map(|member| member.trim_matches(space))
        .filter(|member| !member.is_empty())
        .collect();
    if members.len() > 32 {
        return None;
    }
    let mut kept: Vec<(String, String)> = Vec::new();
    for member in members {
        let mut halves = member.splitn(2, '=');
        let (key, value) = (halves.next()?, halves.next()?);
        if !key_allowed(key) || !value_allowed(value) {
            return None;
        }
        if !kept.iter().any(|(earlier, _)| earlier == key) {
            kept.push((key.to_owned(), value.to_owned()));
        }
    }
    Some(kept)
}

/// Level 1's multi-tenant keys, with level 2's freedom to begin with a digit.
fn key_allowed(key: &str) -> bool {
    let begins = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |text: &str| {
        text.chars().all(|c| begins(c) || "_-*/".contains(c)) && text.starts_with(begins)
    };
    let system = |text: &str| text.is_empty() || part(text);
    match key.split_once('@') {
        None => part(key) && key.len() <= 256,
        Some((tenant, name)) => {
            part(tenant) && system(name) && name.len() <= 13 && key.len() <= 256
        }
    }
}

fn value_allowed(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.chars().all(|c| (' '..='~').contains(&c) && !",=".contains(c))
}
