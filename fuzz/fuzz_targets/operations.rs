//! Attempts, fan-outs and sagas against the oracle.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| batchlink_fuzz::operations(data));
