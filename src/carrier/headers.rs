//! Message headers whose values are bytes.

use opentelemetry::propagation::{Extractor, Injector};
use std::str;

/// The headers of a received message, for [`extract`](super::extract): any slice of names and bytes.
///
/// Brokers agree on little else, so collect theirs into pairs first; references will do.
///
/// - Names are compared without regard to ASCII case, as W3C Trace Context demands.
/// - A value that is not UTF-8 is ignored, as if its header were not there.
/// - Of several headers with one name, `get` returns the **last**: brokers' headers are lists that hops
///   append to, and the last hop is the one that caused the message. `get_all` returns all, in order.
///
/// ```
/// use batchlink::carrier::Headers;
/// use opentelemetry::propagation::Extractor;
///
/// let message = vec![
///     (String::from("Traceparent"), b"00-first".to_vec()),
///     (String::from("payload-key"), vec![0xff, 0xfe]),
///     (String::from("traceparent"), b"00-second".to_vec()),
/// ];
/// let headers = Headers::new(&message);
/// assert_eq!(headers.get("traceparent"), Some("00-second"));
/// assert_eq!(headers.get_all("traceparent"), Some(vec!["00-first", "00-second"]));
/// assert_eq!(headers.get("payload-key"), None);
/// ```
#[derive(Debug)]
pub struct Headers<'a, K, V>(&'a [(K, V)]);

impl<'a, K: AsRef<str>, V: AsRef<[u8]>> Headers<'a, K, V> {
    /// Reads from these headers.
    pub fn new(headers: &'a [(K, V)]) -> Self {
        Self(headers)
    }

    /// Names and values of those headers that can be read as text, in order.
    fn texts(&self) -> impl DoubleEndedIterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(|(key, value)| Some((key.as_ref(), str::from_utf8(value.as_ref()).ok()?)))
    }
}

impl<K: AsRef<str>, V: AsRef<[u8]>> Extractor for Headers<'_, K, V> {
    fn get(&self, key: &str) -> Option<&str> {
        self.texts().rev().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    fn keys(&self) -> Vec<&str> {
        self.texts().map(|(name, _)| name).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let values: Vec<_> =
            self.texts().filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value).collect();
        (!values.is_empty()).then_some(values)
    }
}

/// The headers of a message to be sent, for [`inject`](super::inject): a `Vec` of names and bytes.
///
/// A header that is set replaces all of that name, in any case, so that a forwarded message does not
/// name two callers; other headers stay as they are, in their order.
///
/// ```
/// use batchlink::carrier::HeadersMut;
/// use opentelemetry::propagation::Injector;
///
/// let mut message = vec![(String::from("Traceparent"), b"of an earlier hop".to_vec())];
/// HeadersMut::new(&mut message).set("traceparent", "00-mine".to_owned());
/// assert_eq!(message, [("traceparent".to_owned(), b"00-mine".to_vec())]);
/// ```
#[derive(Debug)]
pub struct HeadersMut<'a, K, V>(&'a mut Vec<(K, V)>);

impl<'a, K, V> HeadersMut<'a, K, V>
where
    K: AsRef<str> + From<String>,
    V: From<Vec<u8>>,
{
    /// Writes to these headers.
    pub fn new(headers: &'a mut Vec<(K, V)>) -> Self {
        Self(headers)
    }
}

impl<K, V> Injector for HeadersMut<'_, K, V>
where
    K: AsRef<str> + From<String>,
    V: From<Vec<u8>>,
{
    fn set(&mut self, key: &str, value: String) {
        self.0.retain(|(name, _)| !name.as_ref().eq_ignore_ascii_case(key));
        self.0.push((key.to_owned().into(), value.into_bytes().into()));
    }

    fn reserve(&mut self, additional: usize) {
        self.0.reserve(additional);
    }
}
