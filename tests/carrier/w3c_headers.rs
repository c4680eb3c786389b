//! `traceparent`, `tracestate` and message headers: what is read, what is refused, and that it
//! comes back.

use super::common::Random;
use batchlink::carrier::{
    Headers, HeadersMut, format_traceparent, parse_traceparent, parse_tracestate,
};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn of(version: &str, flags: &str) -> String {
    format!("{version}-{TRACE}-{SPAN}-{flags}")
}

#[test]
fn context_is_read() {
    for (header, flags) in [
        (of("00", "00"), 0),
        (of("00", "01"), 1),
        (of("00", "02"), 2),
        (of("00", "03"), 3),
        (of("00", "ff"), 3),
        (of("01", "ff"), 1),
        (of("cc", "02"), 0),
        (of("fe", "01"), 1),
        (of("01", "01") + "-", 1),
        (of("01", "01") + "-what the future brings: é", 1),
    ] {
        let context = parse_traceparent(&header, None).unwrap();
        assert_eq!(context.trace_id().to_string(), TRACE, "{header}");
        assert_eq!(context.span_id().to_string(), SPAN, "{header}");
        assert_eq!(context.trace_flags(), TraceFlags::new(flags), "{header}");
        assert!(context.is_remote());
        assert_eq!(*context.trace_state(), TraceState::NONE);
    }
}

#[test]
fn refused_field_is_named() {
    let zeros = "0".repeat(32);
    for (header, field) in [
        (String::new(), "traceparent"),
        (of("00", "0"), "traceparent"),
        (of("00", "011"), "traceparent"),
        (of("00", "01-"), "traceparent"),
        (of("00", "01 "), "traceparent"),
        (of(" 00", "01"), "traceparent"),
        (of("000", "01"), "traceparent"),
        (of("01", "012"), "traceparent"),
        (of("01", "01é"), "traceparent"),
        (of("00", "01").replace('-', "_"), "traceparent"),
        (format!("00-{TRACE}{SPAN}01"), "traceparent"),
        (format!("00-{TRACE}-{SPAN}001"), "traceparent"),
        (format!("00-{SPAN}-{TRACE}-01"), "traceparent"),
        (of("ff", "01"), "version"),
        (of("FE", "01"), "version"),
        (of("0g", "01"), "version"),
        (of("é", "01"), "version"),
        (of("+1", "01"), "version"),
        (of("00", "01").to_uppercase(), "trace_id"),
        (format!("00-{zeros}-{SPAN}-01"), "trace_id"),
        (format!("00-+{}-{SPAN}-01", &TRACE[1..]), "trace_id"),
        (format!("00-{}é-{SPAN}-01", &TRACE[2..]), "trace_id"),
        (format!("00-{TRACE}-{}-01", &zeros[16..]), "span_id"),
        (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), "span_id"),
        (format!("00-{TRACE}- {}-01", &SPAN[1..]), "span_id"),
        (of("00", "0G"), "trace_flags"),
        (of("00", "+1"), "trace_flags"),
        (of("00", "0A"), "trace_flags"),
    ] {
        let error = parse_traceparent(&header, Some("a=1")).unwrap_err();
        assert_eq!(error.field(), field, "{header}");
        assert!(header.contains(error.value()), "{header}: {error}");
        assert_eq!(super::w3c::traceparent(&header), None, "{header}");
    }
}

#[test]
fn error_shows_allowed_and_little() {
    let text = |header: &str| parse_traceparent(header, None).unwrap_err().to_string();
    assert_eq!(
        text(&of("ff", "01")),
        r#"invalid version: "ff" (allowed: 2 lower-case hex digits, not ff)"#
    );
    assert_eq!(
        text(&format!("00-{TRACE}-{}-01", "0".repeat(16))),
        r#"invalid span_id: "0000000000000000" (allowed: 16 lower-case hex digits, not all zero)"#,
    );
    assert_eq!(
        text("a\r\nb"),
        "invalid traceparent: \"a\\r\\nb\" (allowed: version-trace_id-span_id-trace_flags with 2, \
         32, 16 and 2 characters; only versions after 00 may go on, with a dash)",
    );
    let long = text(&"é".repeat(1_000_000));
    assert!(long.starts_with(&format!("invalid traceparent: \"{}\"… (", "é".repeat(32))), "{long}");
    let (long_key, long_value) =
        (format!("{}=1", "k".repeat(257)), format!("k={}", "v".repeat(257)));
    for member in
        ["B=2", "b=2=3", "b=é", "t@toolongavendor=1", "t@v@w=1", "=1", &long_key, &long_value]
    {
        let error = parse_tracestate(&format!("a=1,{member}")).unwrap_err();
        assert_eq!((error.field(), error.value()), ("tracestate", &member[..member.len().min(64)]));
        assert!(error.to_string().ends_with(&format!("(allowed: {})", error.allowed())), "{error}");
    }
}

/// `count` members of these lengths.
fn members(count: usize, key: usize, value: usize) -> String {
    let member = |n: usize| format!("{n:0>key$}={}", "v".repeat(value));
    (0..count).map(member).collect::<Vec<_>>().join(",")
}

#[test]
fn malformed_tracestate_is_dropped_whole() {
    for (header, kept) in [
        ("", Some("")),
        (" ,,\t, ", Some("")),
        ("a=1", Some("a=1")),
        ("a=1,b=2", Some("a=1,b=2")),
        (" a=1\t, ,b= 2 ", Some("a=1,b= 2")),
        ("0a_-*/=~!<", Some("0a_-*/=~!<")),
        ("t@v=1", Some("t@v=1")),
        ("a=1,b=2,a=3", Some("a=1,b=2")),
        ("a", None),
        ("a=", None),
        ("a=\t", None),
        ("=1", None),
        ("a==1", None),
        ("a=1=2", None),
        ("A=1", None),
        ("_a=1", None),
        ("a b=1", None),
        ("a=é", None),
        ("a=1\r\nb: 2", None),
        ("a=\u{7f}", None),
        ("t@=1", Some("t@=1")),
        ("t@toolongavendor=1", None),
        ("t@v@w=1", None),
        ("a=1,b", None),
    ] {
        let found = parse_tracestate(header).ok().map(|state| state.header());
        assert_eq!(found.as_deref(), kept, "{header:?}");
        let expected = super::w3c::tracestate(header).map(|kept| {
            kept.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        });
        assert_eq!(expected.as_deref(), kept, "{header:?}");

        let context = parse_traceparent(&of("00", "01"), Some(header)).unwrap();
        assert_eq!(
            context.trace_state().header(),
            kept.unwrap_or_default(),
            "the context is kept: {header:?}"
        );
    }
    for (count, key, value, allowed) in [
        (32, 2, 1, true),
        (33, 2, 1, false),
        (32, 256, 256, true),
        (1, 257, 1, false),
        (1, 2, 257, false),
    ] {
        let header = members(count, key, value);
        assert_eq!(parse_tracestate(&header).is_ok(), allowed, "{count} of {key} and {value}");
        assert_eq!(
            parse_tracestate(&(header + ",,")).is_ok(),
            allowed,
            "empty members do not count"
        );
    }
    let double = (0..33).map(|_| "a=1").collect::<Vec<_>>().join(",");
    assert!(parse_tracestate(&double).is_err(), "doubles do");
}

/// A context with something in every field.
fn random(random: &mut Random) -> SpanContext {
    let trace = TraceId::from(u128::from(random.next()) << 64 | u128::from(random.next()) | 1);
    let span = SpanId::from(random.next() | 1);
    let flags = TraceFlags::new(random.below(4) as u8);
    let count = random.below(33);
    let mut member = |n| {
        let key = format!("k{n}{}", "-x".repeat(random.below(3) as usize));
        (key, format!(" {:x}!", random.next()))
    };
    let members: Vec<_> = (0..count).map(&mut member).collect();
    SpanContext::new(trace, span, flags, true, TraceState::from_key_value(members).unwrap())
}

#[test]
fn written_context_is_read_back() {
    let mut generator = Random(1);
    for _ in 0..2000 {
        let context = random(&mut generator);
        let (header, state) = (format_traceparent(&context), context.trace_state().header());
        assert_eq!(
            parse_traceparent(&header, Some(&state)).as_ref(),
            Ok(&context),
            "{header} {state}"
        );
    }
    let other_flags = SpanContext::new(
        TraceId::from(1_u128),
        SpanId::from(1),
        TraceFlags::new(0xfd),
        false,
        TraceState::NONE,
    );
    assert!(format_traceparent(&other_flags).ends_with("-01"), "undefined flags are not sent");
    assert!(parse_traceparent(&format_traceparent(&SpanContext::NONE), None).is_err());
}

/// A valid header with a few faults.
pub(super) fn spoilt(random: &mut Random, header: &str, faults: u64) -> String {
    let odd: Vec<char> = "0fFg-_+ \t,=@aé\0\n".chars().collect();
    let mut characters: Vec<char> = header.chars().collect();
    for _ in 0..faults {
        let at = random.below(characters.len() as u64 + 1) as usize;
        let character = odd[random.below(odd.len() as u64) as usize];
        match random.below(3) {
            0 => characters.insert(at, character),
            _ if at == characters.len() => {}
            1 => characters[at] = character,
            _ => drop(characters.remove(at)),
        }
    }
    characters.into_iter().collect()
}

#[test]
fn refusals_agree_with_oracle() {
    let mut generator = Random(2);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..5000 {
        let context = random(&mut generator);
        let version = ["00", "00", "01", "ff"][generator.below(4) as usize];
        let faults = generator.below(4);
        let header = spoilt(
            &mut generator,
            &format_traceparent(&context).replacen("00", version, 1),
            faults,
        );
        let found = parse_traceparent(&header, None).ok();
        let fields = found.as_ref().map(|context| {
            let (trace, span) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
            (u128::from_be_bytes(trace), u64::from_be_bytes(span), context.trace_flags().to_u8())
        });
        assert_eq!(fields, super::w3c::traceparent(&header), "{header:?}");
        *if fields.is_some() { &mut read } else { &mut refused } += 1;

        let state = spoilt(&mut generator, &context.trace_state().header(), faults / 2);
        let found = parse_tracestate(&state).ok();
        let members =
            found.map(|state| (&state).into_iter().map(|(k, v)| (k.into(), v.into())).collect());
        assert_eq!(members, super::w3c::tracestate(&state), "{state:?}");
        *if members.is_some() { &mut read } else { &mut refused } += 1;
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
}

/// Stricter than the SDK, and else of one mind with it.
#[test]
fn sdk_reads_the_same() {
    let mut generator = Random(3);
    for _ in 0..2000 {
        let context = random(&mut generator);
        let faults = generator.below(2);
        let header = spoilt(&mut generator, &format_traceparent(&context), faults);
        let state = context.trace_state().header();
        let Ok(ours) = parse_traceparent(&header, Some(&state)) else { continue };
        let headers = [("traceparent", header.as_bytes()), ("tracestate", state.as_bytes())];
        let theirs = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &Headers::new(&headers));
        let theirs = theirs.span().span_context().clone();
        assert_eq!((ours.trace_id(), ours.span_id()), (theirs.trace_id(), theirs.span_id()));
        assert_eq!(ours.trace_state(), theirs.trace_state());
        assert_eq!(ours.is_sampled(), theirs.is_sampled());
    }
}

#[test]
fn any_header_types_are_read() {
    let owned = vec![(String::from("A"), b"1".to_vec()), (String::from("b"), vec![0xc3])];
    assert_eq!(Headers::new(&owned).get("a"), Some("1"));
    assert_eq!(Headers::new(&owned).keys(), ["A"], "what is not UTF-8 is not there");
    assert_eq!(Headers::new(&owned).get("b"), None);
    assert_eq!(Headers::new(&owned).get_all("b"), None);
    let borrowed: Vec<(&str, &[u8])> = owned.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(Headers::new(&borrowed).get("A"), Some("1"));
    assert_eq!(Headers::new(&[("TraceParent", "text")]).get("traceparent"), Some("text"));
    assert_eq!(Headers::new(&[("É", "text")]).get("é"), None, "only ASCII has no case");
    assert_eq!(Headers::<&str, &[u8]>::new(&[]).get("a"), None);
}

#[test]
fn last_readable_header_wins() {
    let headers: [(&str, &[u8]); 5] =
        [("A", b"1"), ("b", b"2"), ("a", b"3"), ("a", &[0xff]), ("aa", b"4")];
    let headers = Headers::new(&headers);
    assert_eq!(headers.get("a"), Some("3"));
    assert_eq!(headers.get_all("a"), Some(vec!["1", "3"]));
    assert_eq!(headers.keys(), ["A", "b", "a", "aa"]);
}

/// RFC 9110 and W3C Trace Context: several headers of this name are one list.
#[test]
fn several_tracestates_are_one_list() {
    let once = [
        ("tracestate", "a=1"),
        ("Tracestate", " "),
        ("traceparent", "x"),
        ("TRACESTATE", "b=2,a=3"),
    ];
    let headers = Headers::new(&once);
    assert_eq!(headers.get("tracestate"), Some("a=1,b=2,a=3"), "in order, without the blank one");
    assert_eq!(headers.get_all("tracestate"), Some(vec!["a=1", " ", "b=2,a=3"]), "as they came");
    let tracestate = headers.get("tracestate");
    let context = parse_traceparent(&of("00", "01"), tracestate).unwrap();
    assert_eq!(context.trace_state().header(), "a=1,b=2");

    // Hops that append headers have appended both: the last ones belong together.
    let twice =
        [("traceparent", "x"), ("tracestate", "a=1"), ("traceparent", "y"), ("tracestate", "b=2")];
    assert_eq!(Headers::new(&twice).get("tracestate"), Some("b=2"));

    let headers = [
        ("traceparent", of("00", "01")),
        ("tracestate", "a=1".into()),
        ("tracestate", "b=2".into()),
    ];
    let found = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &Headers::new(&headers));
    assert_eq!(found.span().span_context().trace_state().header(), "a=1,b=2");
}

#[test]
fn repeated_headers_agree_with_oracle() {
    let mut generator = Random(5);
    for _ in 0..5000 {
        let mut one = || -> (&str, String) {
            let name = ["traceparent", "tracestate", "TraceState"][generator.below(3) as usize];
            (name, ["", " ", "a=1", "b=2,c=3", ","][generator.below(5) as usize].to_owned())
        };
        let headers: Vec<_> = (0..4).map(|_| one()).collect();
        let of = |name: &str| -> Vec<&str> {
            let named = headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(
            Headers::new(&headers).get("tracestate"),
            super::w3c::tracestates(of).as_deref()
        );
    }
}

#[test]
fn set_header_replaces_namesakes() {
    let of = |headers: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
        headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect()
    };
    let mut headers = of(&[("TRACEPARENT", "1"), ("b", "2"), ("traceparent", "3"), ("c", "4")]);
    headers.shrink_to_fit();
    HeadersMut::new(&mut headers).reserve(40);
    assert!(headers.capacity() >= 44);
    let mut carrier = HeadersMut::new(&mut headers);
    carrier.set("traceparent", "5".to_owned());
    carrier.set("c", String::new());
    assert_eq!(headers, of(&[("b", "2"), ("traceparent", "5"), ("c", "")]));
}

/// A trace state belongs to its `traceparent`; an empty one is not written.
#[test]
fn new_traceparent_removes_tracestate() {
    let of = |headers: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
        headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect()
    };
    let old = of(&[("traceparent", "1"), ("TraceState", "a=1"), ("b", "2"), ("tracestate", "c=3")]);
    type Sets<'a> = &'a [(&'a str, &'a str)];
    for (sets, expected) in [
        (&[("traceparent", "5")] as Sets<'_>, &[("b", "2"), ("traceparent", "5")] as Sets<'_>),
        (&[("traceparent", "5"), ("tracestate", "")], &[("b", "2"), ("traceparent", "5")]),
        (&[("tracestate", " "), ("TraceParent", "5")], &[("b", "2"), ("TraceParent", "5")]),
        (
            &[("tracestate", "d=4"), ("traceparent", "5")],
            &[("b", "2"), ("tracestate", "d=4"), ("traceparent", "5")],
        ),
        (
            &[("traceparent", "5"), ("tracestate", "d=4")],
            &[("b", "2"), ("traceparent", "5"), ("tracestate", "d=4")],
        ),
        (&[("tracestate", "")], &[("traceparent", "1"), ("b", "2")]),
    ] {
        let mut headers = old.clone();
        let mut carrier = HeadersMut::new(&mut headers);
        sets.iter().for_each(|(key, value)| carrier.set(key, (*value).to_owned()));
        assert_eq!(headers, of(expected), "{sets:?}");
    }
}
