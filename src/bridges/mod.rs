//! What joins batchlink to the parts of other crates; each is a feature of its own.

#[cfg(feature = "sdk")]
pub mod sampler;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
mod tracing;
