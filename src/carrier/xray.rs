//! The trace header of AWS X-Ray, as an SQS message carries it.

use super::{CarrierError, w3c};
use arrayvec::ArrayString;
use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};

/// The message system attribute of SQS that carries the trace header: `AWSTraceHeader`.
///
/// A message has it if its sender set it or was traced by X-Ray, and `ReceiveMessage` returns it if
/// it is asked for by this name. It does not count as one of the ten message attributes.
///
/// ```
/// use batchlink::carrier::{AWS_TRACE_HEADER, parse_xray};
/// use std::collections::HashMap;
///
/// // The system attributes of a message, as in an event of AWS Lambda.
/// let header = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
/// let attributes = HashMap::from([("SentTimestamp", "17820000"), (AWS_TRACE_HEADER, header)]);
///
/// let context = attributes.get(AWS_TRACE_HEADER).map(|header| parse_xray(header)).transpose()?;
/// assert!(context.is_some_and(|context| context.is_sampled()));
/// # Ok::<(), batchlink::carrier::CarrierError>(())
/// ```
pub const AWS_TRACE_HEADER: &str = "AWSTraceHeader";

const ROOT: &str = "1, 8 and 24 lower-case hex digits with dashes between them, not all zero";
const SAMPLED: &str = "0, 1 or ?";
const HEADER: &str = "name=value, separated by semicolons: Root, Parent and perhaps others";
const ONCE: &str = "each of Root, Parent and Sampled at most once";

/// Reads the value of an [`AWS_TRACE_HEADER`], which is that of the HTTP header `X-Amzn-Trace-Id`.
///
/// The [format](https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader)
/// is `Root=1-…-…;Parent=…;Sampled=…`, in any order. Root's digits are the trace id, those of
/// Parent the span id. Reading is strict: lower-case hex only, no white space, no empty part.
///
/// - A header without `Parent` names a trace and no span of it, and is refused.
///   [`links::whole_trace`](crate::links::whole_trace) makes a link of such a trace.
/// - Only `Sampled=1` is sampled. With `?` or none the sender left the decision open. A context
///   that is not sampled becomes no link, unless the policy has
///   [`Unsampled::Keep`](crate::Unsampled::Keep).
/// - Other names, such as `Self` and `Lineage`, are ignored.
/// - The format has no trace state. The context is marked remote.
///
/// Does not allocate.
///
/// # Errors
///
/// [`CarrierError`] that names `Root`, `Parent`, `Sampled`, or `AWSTraceHeader` as a whole. The
/// value of a field that is missing is empty.
///
/// # Examples
///
/// ```
/// use batchlink::carrier::{format_xray, parse_xray};
///
/// let header = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
/// let context = parse_xray(header)?;
/// assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
/// assert_eq!(format_xray(&context), header);
///
/// let error = parse_xray("Root=1-0af76519-16cd43dd8448eb211c80319c;Sampled=1").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "invalid Parent: \"\" (allowed: 16 lower-case hex digits, not all zero)",
/// );
/// # Ok::<(), batchlink::carrier::CarrierError>(())
/// ```
pub fn parse_xray(header: &str) -> Result<SpanContext, CarrierError> {
    let (mut root, mut parent, mut sampled) = (None, None, None);
    for part in header.split(';') {
        let named = part.split_once('=').filter(|(name, _)| !name.is_empty());
        let refused = || CarrierError::new(AWS_TRACE_HEADER, part, HEADER);
        let (field, value, found) = match named.ok_or_else(refused)? {
            ("Root", value) => ("Root", value, &mut root),
            ("Parent", value) => ("Parent", value, &mut parent),
            ("Sampled", value) => ("Sampled", value, &mut sampled),
            _ => continue,
        };
        if found.replace(value).is_some() {
            return Err(CarrierError::new(field, value, ONCE));
        }
    }
    let (root, parent) = (root.unwrap_or_default(), parent.unwrap_or_default());
    let trace_id = w3c::parse_trace_id(&trace_digits(root).unwrap_or_default())
        .map_err(|_| CarrierError::new("Root", root, ROOT))?;
    let span_id = w3c::parse_span_id(parent)
        .map_err(|_| CarrierError::new("Parent", parent, w3c::SPAN_ID))?;
    let flags = match sampled {
        Some("1") => TraceFlags::SAMPLED,
        None | Some("0" | "?") => TraceFlags::NOT_SAMPLED,
        Some(other) => return Err(CarrierError::new("Sampled", other, SAMPLED)),
    };
    Ok(SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE))
}

/// The digits of a root, without its version and dashes.
fn trace_digits(root: &str) -> Option<ArrayString<32>> {
    let (time, random) = root.strip_prefix("1-")?.split_once('-')?;
    let mut digits = ArrayString::new();
    if time.len() != 8 || digits.try_push_str(time).is_err() {
        return None;
    }
    digits.try_push_str(random).ok()?;
    Some(digits)
}

/// Writes the value of an [`AWS_TRACE_HEADER`]: root, parent and whether it is sampled.
///
/// The trace state and all other flags are lost: the format has no place for them. X-Ray takes any
/// trace id, though its own begin with the time. To send both kinds of context, write
/// `traceparent` as a message attribute, too.
///
/// A context that is not valid makes a header that every receiver refuses: check
/// [`SpanContext::is_valid`] first.
///
/// ```
/// use batchlink::carrier::{format_xray, parse_xray};
/// use opentelemetry::trace::SpanContext;
///
/// assert_eq!(parse_xray(&format_xray(&SpanContext::NONE)).unwrap_err().field(), "Root");
/// ```
pub fn format_xray(context: &SpanContext) -> String {
    let trace_id = context.trace_id().to_string();
    let (time, random) = trace_id.split_at(8);
    let sampled = u8::from(context.is_sampled());
    format!("Root=1-{time}-{random};Parent={};Sampled={sampled}", context.span_id())
}
