//! Message attributes: maps of names to text.

use super::headers::Pair;
use super::{TRACESTATE, is_empty_state};
use opentelemetry::propagation::{Extractor, Injector};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// What Google's clients of Pub/Sub put before the names of a propagator's headers, so that
/// `traceparent` is the attribute `googclient_traceparent`.
///
/// ```
/// use batchlink::carrier::{Attributes, PUBSUB_PREFIX, parse_traceparent};
/// use opentelemetry::propagation::Extractor;
/// use std::collections::HashMap;
///
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let message = HashMap::from([("googclient_traceparent".to_owned(), header.to_owned())]);
/// let attributes = Attributes::new(&message).with_prefix(PUBSUB_PREFIX);
///
/// // With the configured propagator: `carrier::extract(&attributes)`. Strictly, with an error:
/// if let Some(header) = attributes.get("traceparent") {
///     let context = parse_traceparent(header, attributes.get("tracestate"))?;
///     assert!(context.is_sampled());
/// }
/// # Ok::<(), batchlink::carrier::CarrierError>(())
/// ```
pub const PUBSUB_PREFIX: &str = "googclient_";

/// The attributes of a received message, for [`extract`](super::extract): a map of names to text.
///
/// Names are compared as they are. A look-up makes the name with its prefix, and so allocates if
/// there is one.
///
/// ```
/// use batchlink::carrier::Attributes;
/// use opentelemetry::propagation::Extractor;
/// use std::collections::HashMap;
///
/// let message = HashMap::from([("traceparent".to_owned(), "00-...".to_owned())]);
/// assert_eq!(Attributes::new(&message).get("traceparent"), Some("00-..."));
/// ```
#[derive(Debug)]
pub struct Attributes<'a, S = RandomState> {
    attributes: &'a HashMap<String, String, S>,
    /// Before each name in the map.
    prefix: &'a str,
}

impl<'a, S> Attributes<'a, S> {
    /// Creates a view of these attributes.
    ///
    /// ```
    /// use batchlink::carrier::Attributes;
    /// use opentelemetry::propagation::Extractor;
    /// use std::collections::HashMap;
    ///
    /// assert_eq!(Attributes::new(&HashMap::new()).get("traceparent"), None);
    /// ```
    pub fn new(attributes: &'a HashMap<String, String, S>) -> Self {
        Self { attributes, prefix: "" }
    }

    /// Sets what stands before each name in the map, such as [`PUBSUB_PREFIX`]. Attributes without
    /// it are not seen.
    ///
    /// ```
    /// use batchlink::carrier::{Attributes, PUBSUB_PREFIX};
    /// use opentelemetry::propagation::Extractor;
    /// use std::collections::HashMap;
    ///
    /// let message = HashMap::from([("traceparent".to_owned(), "00-...".to_owned())]);
    /// assert_eq!(Attributes::new(&message).with_prefix(PUBSUB_PREFIX).get("traceparent"), None);
    /// ```
    pub fn with_prefix(self, prefix: &'a str) -> Self {
        Self { prefix, ..self }
    }
}

impl<S: BuildHasher> Extractor for Attributes<'_, S> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = match self.prefix {
            "" => self.attributes.get(key),
            prefix => self.attributes.get(&[prefix, key].concat()),
        };
        value.map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.attributes.keys().filter_map(|name| name.strip_prefix(self.prefix)).collect()
    }
}

/// The attributes of a message to be sent, for [`inject`](super::inject): a map of names to text.
///
/// - A `traceparent` that is set removes a `tracestate` that was not set with it: a trace state of
///   an earlier hop does not belong to the new context.
/// - An empty `tracestate` is not written.
///
/// ```
/// use batchlink::carrier::{AttributesMut, PUBSUB_PREFIX};
/// use opentelemetry::propagation::Injector;
/// use std::collections::HashMap;
///
/// let mut message = HashMap::from([("googclient_tracestate".to_owned(), "old=1".to_owned())]);
/// let mut attributes = AttributesMut::new(&mut message).with_prefix(PUBSUB_PREFIX);
/// attributes.set("traceparent", "00-mine".to_owned());
/// assert_eq!(message["googclient_traceparent"], "00-mine");
/// assert_eq!(message.len(), 1);
/// ```
#[derive(Debug)]
pub struct AttributesMut<'a, S = RandomState> {
    attributes: &'a mut HashMap<String, String, S>,
    /// Before each name in the map.
    prefix: &'a str,
    pair: Pair,
}

impl<'a, S> AttributesMut<'a, S> {
    /// Creates a writer to these attributes.
    ///
    /// ```
    /// use batchlink::carrier::AttributesMut;
    /// use opentelemetry::propagation::Injector;
    /// use std::collections::HashMap;
    ///
    /// let mut message = HashMap::new();
    /// AttributesMut::new(&mut message).set("traceparent", "00-mine".to_owned());
    /// assert_eq!(message["traceparent"], "00-mine");
    /// ```
    pub fn new(attributes: &'a mut HashMap<String, String, S>) -> Self {
        Self { attributes, prefix: "", pair: Pair::default() }
    }

    /// Sets what to put before each name, such as [`PUBSUB_PREFIX`].
    pub fn with_prefix(self, prefix: &'a str) -> Self {
        Self { prefix, ..self }
    }
}

impl<S: BuildHasher> Injector for AttributesMut<'_, S> {
    fn set(&mut self, key: &str, value: String) {
        if self.pair.replaces_state(key) {
            self.attributes.remove(&[self.prefix, TRACESTATE].concat());
        }
        let name = [self.prefix, key].concat();
        if is_empty_state(key, &value) {
            self.attributes.remove(&name);
        } else {
            self.attributes.insert(name, value);
        }
    }

    fn reserve(&mut self, additional: usize) {
        self.attributes.reserve(additional);
    }
}
