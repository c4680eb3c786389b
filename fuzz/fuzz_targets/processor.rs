//! A batch processor, its callers and batches, against the oracle.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| batchlink_fuzz::processor(data));
