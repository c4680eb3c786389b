//! `AWSTraceHeader`: what is read, what is refused, and that it comes back.

use super::w3c_headers::spoilt;
use super::{common::Random, xray};
use batchlink::carrier::{format_xray, parse_xray};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use proptest::prelude::*;

const ROOT: &str = "Root=1-0af76519-16cd43dd8448eb211c80319c";
const PARENT: &str = "Parent=b7ad6b7169203331";

fn fields(context: &SpanContext) -> (u128, u64, bool) {
    let (trace, span) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    (u128::from_be_bytes(trace), u64::from_be_bytes(span), context.is_sampled())
}

#[test]
fn context_is_read() {
    let expected = |sampled| (0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331, sampled);
    for (header, sampled) in [
        (format!("{ROOT};{PARENT};Sampled=1"), true),
        (format!("{ROOT};{PARENT};Sampled=0"), false),
        (format!("{ROOT};{PARENT};Sampled=?"), false),
        (format!("{ROOT};{PARENT}"), false),
        (format!("Sampled=1;{PARENT};{ROOT}"), true),
        (format!("Self=1-0-0;{ROOT};{PARENT};Sampled=1;Lineage=a87bd80c:1|68fd508a:5"), true),
        (format!("{ROOT};x=;{PARENT};y==;Sampled=1;sampled=0"), true),
    ] {
        let context = parse_xray(&header).unwrap();
        assert_eq!(fields(&context), expected(sampled), "{header}");
        assert!(context.is_remote());
        assert_eq!(*context.trace_state(), TraceState::NONE);
        assert_eq!(xray::header(&header), Some(expected(sampled)), "{header}");
    }
}

#[test]
fn refused_field_is_named() {
    let zeros = "0".repeat(24);
    for (header, field, value) in [
        (String::new(), "AWSTraceHeader", ""),
        (format!("{ROOT};"), "AWSTraceHeader", ""),
        (format!("{ROOT};;{PARENT}"), "AWSTraceHeader", ""),
        (format!("{ROOT};Parent"), "AWSTraceHeader", "Parent"),
        (format!("=1;{ROOT};{PARENT}"), "AWSTraceHeader", "=1"),
        (PARENT.to_owned(), "Root", ""),
        (format!("root=1;{PARENT}"), "Root", ""),
        (format!(" {ROOT};{PARENT}"), "Root", ""),
        (format!("{ROOT} ;{PARENT}"), "Root", "1-0af76519-16cd43dd8448eb211c80319c "),
        (format!("Root=2{};{PARENT}", &ROOT[6..]), "Root", "2-0af76519-16cd43dd8448eb211c80319c"),
        (format!("{ROOT}0;{PARENT}"), "Root", "1-0af76519-16cd43dd8448eb211c80319c0"),
        (format!("Root=1-0af7651-916cd43dd8448eb211c80319c;{PARENT}"), "Root", "1-0af7651-916cd"),
        (format!("Root=1-0af7651916cd43dd8448eb211c80319c;{PARENT}"), "Root", "1-0af7651916cd"),
        (format!("Root=1-0AF76519-16cd43dd8448eb211c80319c;{PARENT}"), "Root", "1-0AF76519-16cd"),
        (format!("Root=1-00000000-{zeros};{PARENT}"), "Root", "1-00000000-"),
        (format!("Root=1-é{};{PARENT}", &zeros[..6]), "Root", "1-é"),
        (ROOT.to_owned(), "Parent", ""),
        (format!("{ROOT};Sampled=1"), "Parent", ""),
        (format!("{ROOT};Parent={}", &zeros[..16]), "Parent", &zeros[..16]),
        (format!("{ROOT};{PARENT}1"), "Parent", "b7ad6b71692033311"),
        (format!("{ROOT};Parent=B7ad6b7169203331"), "Parent", "B7ad6b7169203331"),
        (format!("{ROOT};{PARENT};Sampled="), "Sampled", ""),
        (format!("{ROOT};{PARENT};Sampled=true"), "Sampled", "true"),
        (format!("{ROOT};{PARENT};Sampled=01"), "Sampled", "01"),
        (format!("{ROOT};{PARENT};{ROOT}"), "Root", "1-0af76519"),
        (format!("{ROOT};{PARENT};{PARENT}"), "Parent", "b7ad6b7169203331"),
        (format!("{ROOT};{PARENT};Sampled=1;Sampled=0"), "Sampled", "0"),
    ] {
        let error = parse_xray(&header).unwrap_err();
        assert_eq!(error.field(), field, "{header}");
        assert!(error.value().starts_with(value), "{header}: {error}");
        assert_eq!(error.value().is_empty(), value.is_empty(), "{header}: {error}");
        assert_eq!(xray::header(&header), None, "{header}");
    }
}

#[test]
fn error_shows_allowed_and_little() {
    let text = |header: &str| parse_xray(header).unwrap_err().to_string();
    assert_eq!(
        text(&format!("{ROOT};{PARENT};Sampled=2")),
        r#"invalid Sampled: "2" (allowed: 0, 1 or ?)"#,
    );
    assert_eq!(
        text(&format!("Root=7;{PARENT}")),
        "invalid Root: \"7\" (allowed: 1, 8 and 24 lower-case hex digits with dashes between them, \
         not all zero)",
    );
    assert_eq!(
        text(&format!("{ROOT};{PARENT};{PARENT}")),
        "invalid Parent: \"b7ad6b7169203331\" (allowed: each of Root, Parent and Sampled at \
         most once)",
    );
    let long = text(&"\n".repeat(1_000_000));
    assert!(long.len() < 300 && !long.contains('\n'), "{long}");
}

/// The wrong header is refused as a whole; the right one is read whatever else is in it.
#[test]
fn refusals_agree_with_oracle() {
    let mut generator = Random(6);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let mut parts = [ROOT, PARENT, "Sampled=1", "Lineage=a:1|b:2"];
        parts.rotate_left(generator.below(4) as usize);
        let count = 2 + generator.below(3) as usize;
        let faults = generator.below(3);
        let header = spoilt(&mut generator, &parts[..count].join(";"), faults);
        let found = parse_xray(&header).ok();
        assert_eq!(found.as_ref().map(fields), xray::header(&header), "{header:?}");
        *if found.is_some() { &mut read } else { &mut refused } += 1;
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
}

proptest! {
    /// Ids and the sampled flag survive; trace state and other flags do not.
    #[test]
    fn written_context_is_read_back(
        trace in 1_u128.., span in 1_u64.., flags: u8, remote: bool,
    ) {
        let state = TraceState::from_key_value([("a", "1")]).unwrap();
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        let context = SpanContext::new(trace, span, TraceFlags::new(flags), remote, state);
        let header = format_xray(&context);
        let flags = TraceFlags::new(flags & 1);
        let expected = SpanContext::new(trace, span, flags, true, TraceState::NONE);
        prop_assert_eq!(Some(fields(&expected)), xray::header(&header), "{}", header);
        prop_assert_eq!(parse_xray(&header), Ok(expected), "{}", header);
    }

    #[test]
    fn any_text_agrees_with_oracle(
        header in "(Root|Parent|Sampled|[a-z;]{0,2})=?[0-9a-f;=?-]{0,40}(;[A-Z]?=[0-9a-f-]*){0,3}",
    ) {
        prop_assert_eq!(parse_xray(&header).ok().as_ref().map(fields), xray::header(&header));
    }
}
