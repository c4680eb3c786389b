//! Configurations against what is allowed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| batchlink_fuzz::config(data));
