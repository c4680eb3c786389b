//! The tests of `carrier`, one process.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/w3c.rs"]
mod w3c;
#[path = "../common/xray.rs"]
mod xray;

mod attributes;
#[cfg(feature = "serde")]
mod documents;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "serde")]
mod otlp_json;
mod w3c_headers;
mod xray_header;
