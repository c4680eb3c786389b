//! `traceparent` and `tracestate`, as W3C Trace Context (levels 1 and 2) defines them.

use super::CarrierError;
use arrayvec::ArrayVec;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::str;

/// Length of a `traceparent` of version 00, and of the part that later versions share with it.
const LENGTH: usize = 55;
/// Members of a `tracestate`.
const MAX_MEMBERS: usize = 32;
/// Bytes of a member's key, and of its value.
const MAX_MEMBER_PART: usize = 256;
/// Bytes of a key after its `@`.
const MAX_SYSTEM: usize = 13;

const SAMPLED: u8 = 1;
/// Level 2: the right-most seven bytes of the trace id are random.
const RANDOM: u8 = 2;

// What is allowed.
pub(super) const TRACE_ID: &str = "32 lower-case hex digits, not all zero";
pub(super) const SPAN_ID: &str = "16 lower-case hex digits, not all zero";
const TRACE_FLAGS: &str = "2 lower-case hex digits";
const VERSION: &str = "2 lower-case hex digits, not ff";
const TRACEPARENT: &str = "version-trace_id-span_id-trace_flags with 2, 32, 16 and 2 characters; \
     only versions after 00 may go on, with a dash";
pub(super) const TRACE_STATE: &str = "at most 32 members key=value, separated by commas; \
     keys of up to 256 characters a-z 0-9 _ - * / @, the first a letter or digit, at most one @ \
     with up to 13 characters after it; values of 1 to 256 printable ASCII characters but , and =";

/// Reads a `traceparent` and the `tracestate` that came with it.
///
/// Reading is strict: lower-case hex only, no white space around it, no zero id, no version `ff`,
/// exactly 55 characters in version 00. Of a later version the fields known today are read, as the
/// [specification](https://www.w3.org/TR/trace-context-2/#versioning-of-traceparent) says. Flags that
/// are not defined are cleared: in version 00 all but *sampled* and *random*, in later ones all but
/// *sampled*.
///
/// A `tracestate` that [`parse_tracestate`] refuses is **discarded, and the context kept**: a fault
/// in one must not affect the other. The context is marked remote.
///
/// Allocates for the trace state only.
///
/// # Errors
///
/// [`CarrierError`] that names `traceparent` (as a whole), `version`, `trace_id`, `span_id` or
/// `trace_flags`.
///
/// # Examples
///
/// ```
/// use batchlink::carrier::{format_traceparent, parse_traceparent};
///
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let context = parse_traceparent(header, Some("rojo=1,congo=2"))?;
/// assert!(context.is_sampled() && context.is_remote());
/// assert_eq!(context.trace_state().get("congo"), Some("2"));
/// assert_eq!(format_traceparent(&context), header);
/// # Ok::<(), batchlink::carrier::CarrierError>(())
/// ```
pub fn parse_traceparent(
    traceparent: &str,
    tracestate: Option<&str>,
) -> Result<SpanContext, CarrierError> {
    let malformed = || CarrierError::new("traceparent", traceparent, TRACEPARENT);
    let header = traceparent.as_bytes().first_chunk::<LENGTH>().ok_or_else(malformed)?;
    if [header[2], header[35], header[52]] != [b'-'; 3] {
        return Err(malformed());
    }
    let part = |bytes| str::from_utf8(bytes).unwrap_or(traceparent);

    let version = part(&header[..2]);
    let refused = || CarrierError::new("version", version, VERSION);
    let [version] = hex(version).filter(|&version| version != [0xff]).ok_or_else(refused)?;
    let known = match (version, traceparent.as_bytes().get(LENGTH)) {
        (0, None) => SAMPLED | RANDOM,
        (1.., None | Some(b'-')) => SAMPLED,
        _ => return Err(malformed()),
    };
    let trace_id = parse_trace_id(part(&header[3..35]))?;
    let span_id = parse_span_id(part(&header[36..52]))?;
    let flags = parse_flags(part(&header[53..]))?;
    let state = tracestate.and_then(|text| parse_tracestate(text).ok()).unwrap_or_default();
    Ok(SpanContext::new(trace_id, span_id, TraceFlags::new(flags & known), true, state))
}

/// Writes a `traceparent` of version 00. Flags other than *sampled* and *random* are cleared, as
/// the specification demands. The `tracestate` that belongs to it is
/// `context.trace_state().header()`, to be left out if it is empty.
///
/// A context that is not valid makes a header that every receiver refuses: check
/// [`SpanContext::is_valid`] first.
///
/// ```
/// use batchlink::carrier::{format_traceparent, parse_traceparent};
/// use opentelemetry::trace::SpanContext;
///
/// let header = format_traceparent(&SpanContext::NONE);
/// assert_eq!(parse_traceparent(&header, None).unwrap_err().field(), "trace_id");
/// ```
pub fn format_traceparent(context: &SpanContext) -> String {
    let flags = context.trace_flags().to_u8() & (SAMPLED | RANDOM);
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}

/// Reads a `tracestate`. Several headers of that name are one list: join them by commas, in order,
/// as
/// [`Headers`](super::Headers) does.
///
/// Empty members and white space around members are skipped. Of two members with one key the first
/// is kept: it is the later one, since members are added in front.
///
/// # Errors
///
/// [`CarrierError`] that names `tracestate` if there are more than 32 members, or one of them is
/// not well-formed. Nothing is kept of such a list; [`parse_traceparent`] goes on without it.
///
/// ```
/// use batchlink::carrier::parse_tracestate;
///
/// assert_eq!(parse_tracestate("rojo=1, ,congo=2")?.header(), "rojo=1,congo=2");
/// assert_eq!(parse_tracestate("rojo=1,CONGO=2").unwrap_err().value(), "CONGO=2");
/// # Ok::<(), batchlink::carrier::CarrierError>(())
/// ```
pub fn parse_tracestate(tracestate: &str) -> Result<TraceState, CarrierError> {
    parse_state("tracestate", tracestate)
}

/// Reads a trace state. `field` is its name in errors.
pub(super) fn parse_state(
    field: &'static str,
    tracestate: &str,
) -> Result<TraceState, CarrierError> {
    let refused = |value| CarrierError::new(field, value, TRACE_STATE);
    let mut members = ArrayVec::<(&str, &str), MAX_MEMBERS>::new();
    let mut all = 0;
    for member in tracestate.split(',').map(|member| member.trim_matches([' ', '\t'])) {
        if member.is_empty() {
            continue;
        }
        let (key, value) =
            member.split_once('=').filter(is_member).ok_or_else(|| refused(member))?;
        all += 1;
        if all > MAX_MEMBERS {
            return Err(refused(tracestate));
        }
        if members.iter().all(|(known, _)| *known != key) {
            members.push((key, value));
        }
    }
    TraceState::from_key_value(members).map_err(|_| refused(tracestate))
}

/// Stricter than the API, which admits empty keys, and any characters but `,` and `=` in values.
fn is_member((key, value): &(&str, &str)) -> bool {
    let within = |part: &str| (1..=MAX_MEMBER_PART).contains(&part.len());
    within(key)
        && is_key(key)
        && within(value)
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

/// Level 2 with level 1's limits on the part after an `@`, which are also the API's.
fn is_key(key: &str) -> bool {
    let (tenant, system) = key.split_once('@').unwrap_or((key, ""));
    let begins = |part: &str| part.starts_with(|first| matches!(first, 'a'..='z' | '0'..='9'));
    let rest = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    begins(tenant)
        && (system.is_empty() || begins(system))
        && system.len() <= MAX_SYSTEM
        && tenant.bytes().chain(system.bytes()).all(rest)
}

pub(super) fn parse_trace_id(text: &str) -> Result<TraceId, CarrierError> {
    let id = hex(text).map(TraceId::from_bytes).filter(|id| *id != TraceId::INVALID);
    id.ok_or_else(|| CarrierError::new("trace_id", text, TRACE_ID))
}

pub(super) fn parse_span_id(text: &str) -> Result<SpanId, CarrierError> {
    let id = hex(text).map(SpanId::from_bytes).filter(|id| *id != SpanId::INVALID);
    id.ok_or_else(|| CarrierError::new("span_id", text, SPAN_ID))
}

pub(super) fn parse_flags(text: &str) -> Result<u8, CarrierError> {
    let [flags] = hex(text).ok_or_else(|| CarrierError::new("trace_flags", text, TRACE_FLAGS))?;
    Ok(flags)
}

/// `2 * N` lower-case hex digits and nothing else. (`from_str_radix` takes capitals and signs,
/// too.)
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
