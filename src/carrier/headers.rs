//! Message headers whose values are bytes.

use super::{TRACEPARENT, TRACESTATE, is_empty_state, one_list};
use opentelemetry::propagation::{Extractor, Injector};
use std::str;

/// The headers of a received message, for [`extract`](super::extract): any slice of names and
/// bytes.
///
/// Brokers agree on little else, so collect theirs into pairs first. References will do.
///
/// - Names are compared without regard to ASCII case, as W3C Trace Context demands.
/// - A value that is not UTF-8 is ignored, as if its header were not there.
/// - Of several headers with one name, `get` returns the **last**: brokers' headers are lists that
///   hops append to, and the last hop is the one that caused the message. `get_all` returns all, in
///   order.
/// - Several `tracestate` headers are one list, as W3C Trace Context demands: `get` joins them by
///   commas, in order. If there are several `traceparent`s, the last `tracestate` belongs to the
///   last.
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
///
/// let message = [("traceparent", "00-..."), ("tracestate", "rojo=1"), ("tracestate", "congo=2")];
/// assert_eq!(Headers::new(&message).get("tracestate"), Some("rojo=1,congo=2"));
/// ```
#[derive(Debug)]
pub struct Headers<'a, K, V> {
    headers: &'a [(K, V)],
    /// Several `tracestate`s as one list.
    tracestate: Option<String>,
}

impl<'a, K: AsRef<str>, V: AsRef<[u8]>> Headers<'a, K, V> {
    /// Creates a view of these headers. Allocates only if there are several `tracestate`s.
    ///
    /// ```
    /// use batchlink::carrier::Headers;
    /// use opentelemetry::propagation::Extractor;
    ///
    /// // Borrowed from a client's own headers.
    /// let pairs: Vec<(&str, &[u8])> = vec![("traceparent", b"00-..."), ("key", b"\xff")];
    /// assert_eq!(Headers::new(&pairs).keys(), ["traceparent"]); // the other one is not text
    /// ```
    pub fn new(headers: &'a [(K, V)]) -> Self {
        let headers = Self { headers, tracestate: None };
        Self { tracestate: one_list(|name| headers.of(name)), ..headers }
    }

    /// Names and values of the headers that can be read as text, in order.
    fn texts(&self) -> impl DoubleEndedIterator<Item = (&'a str, &'a str)> {
        self.headers
            .iter()
            .filter_map(|(key, value)| Some((key.as_ref(), str::from_utf8(value.as_ref()).ok()?)))
    }

    /// The values of a name, in order.
    fn of(&self, key: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.texts().filter(move |(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }
}

impl<K: AsRef<str>, V: AsRef<[u8]>> Extractor for Headers<'_, K, V> {
    fn get(&self, key: &str) -> Option<&str> {
        match &self.tracestate {
            Some(list) if key.eq_ignore_ascii_case(TRACESTATE) => Some(list),
            _ => self.of(key).next_back(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.texts().map(|(name, _)| name).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let values: Vec<_> = self.of(key).collect();
        (!values.is_empty()).then_some(values)
    }
}

/// The headers of a message to be sent, for [`inject`](super::inject): a `Vec` of names and bytes.
///
/// - A header that is set replaces all of that name, in any case, so that a forwarded message does
///   not name two callers. Other headers stay as they are, in their order.
/// - A `traceparent` that is set removes every `tracestate` that was not set with it: a trace state
///   of an earlier hop does not belong to the new context.
/// - An empty `tracestate` is not written.
///
/// ```
/// use batchlink::carrier::HeadersMut;
/// use opentelemetry::propagation::Injector;
///
/// let mut message = vec![
///     (String::from("Traceparent"), b"of an earlier hop".to_vec()),
///     (String::from("tracestate"), b"of=that-hop".to_vec()),
/// ];
/// HeadersMut::new(&mut message).set("traceparent", "00-mine".to_owned());
/// assert_eq!(message, [("traceparent".to_owned(), b"00-mine".to_vec())]);
/// ```
#[derive(Debug)]
pub struct HeadersMut<'a, K, V> {
    headers: &'a mut Vec<(K, V)>,
    pair: Pair,
}

/// Tells which `tracestate` belongs to a `traceparent` that is set. Propagators set the two in
/// either order.
#[derive(Debug, Default)]
pub(super) struct Pair(
    /// The header that was set last, and waits for the other.
    Option<Half>,
);

#[derive(Debug, PartialEq)]
enum Half {
    Parent,
    State,
}

impl Pair {
    /// Notes that this header is set. Returns whether the `tracestate` that is there has to go.
    pub(super) fn replaces_state(&mut self, key: &str) -> bool {
        if key.eq_ignore_ascii_case(TRACEPARENT) {
            let replaces = self.0.take() != Some(Half::State);
            self.0 = replaces.then_some(Half::Parent);
            return replaces;
        }
        if key.eq_ignore_ascii_case(TRACESTATE) {
            self.0 = if self.0 == Some(Half::Parent) { None } else { Some(Half::State) };
        }
        false
    }
}

impl<'a, K, V> HeadersMut<'a, K, V>
where
    K: AsRef<str> + From<String>,
    V: From<Vec<u8>>,
{
    /// Creates a writer to these headers.
    ///
    /// ```
    /// use batchlink::carrier::HeadersMut;
    /// use opentelemetry::propagation::Injector;
    ///
    /// let mut message: Vec<(String, Vec<u8>)> = Vec::new();
    /// HeadersMut::new(&mut message).set("tracestate", String::new());
    /// assert!(message.is_empty());
    /// ```
    pub fn new(headers: &'a mut Vec<(K, V)>) -> Self {
        Self { headers, pair: Pair::default() }
    }

    fn remove(&mut self, key: &str) {
        self.headers.retain(|(name, _)| !name.as_ref().eq_ignore_ascii_case(key));
    }
}

impl<K, V> Injector for HeadersMut<'_, K, V>
where
    K: AsRef<str> + From<String>,
    V: From<Vec<u8>>,
{
    fn set(&mut self, key: &str, value: String) {
        self.remove(key);
        if self.pair.replaces_state(key) {
            self.remove(TRACESTATE);
        }
        if is_empty_state(key, &value) {
            return;
        }
        self.headers.push((key.to_owned().into(), value.into_bytes().into()));
    }

    fn reserve(&mut self, additional: usize) {
        self.headers.reserve(additional);
    }
}
