//! NATS message headers as carriers of trace context.

use async_nats::HeaderMap;
use opentelemetry::propagation::{Extractor, Injector};

/// Reads from the headers of a received message.
pub struct NatsHeaders<'a>(pub &'a HeaderMap);

impl Extractor for NatsHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get_last(key).map(|value| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}

/// Writes to the headers of a message to be published. A header that is set replaces its namesakes.
pub struct NatsHeadersMut<'a>(pub &'a mut HeaderMap);

impl Injector for NatsHeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.0.insert(key, value); // the SDK sets an empty `tracestate` where there is none
        }
    }
}
