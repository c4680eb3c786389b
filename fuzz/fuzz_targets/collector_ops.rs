//! A collector and its flusher against the oracle.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| batchlink_fuzz::collector_ops(data));
