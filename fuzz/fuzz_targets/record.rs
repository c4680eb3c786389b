//! One link, by every way from a producer to a batch.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| batchlink_fuzz::record(data));
