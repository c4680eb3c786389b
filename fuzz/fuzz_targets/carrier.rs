//! Message headers, `traceparent` and `tracestate` against the specification.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| batchlink_fuzz::carrier(data));
