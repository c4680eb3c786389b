//! Insertion of many contexts or links at once.

use super::LinkSet;
use crate::links::MaybeContext;
use opentelemetry::trace::Link;

/// Inserts each link.
impl Extend<Link> for LinkSet {
    fn extend<I: IntoIterator<Item = Link>>(&mut self, links: I) {
        links.into_iter().for_each(|link| _ = self.insert_link(link));
    }
}

/// Inserts each context that is not missing; see [`LinkSet::insert_optional`].
impl<C: MaybeContext> Extend<C> for LinkSet {
    fn extend<I: IntoIterator<Item = C>>(&mut self, contexts: I) {
        contexts.into_iter().for_each(|context| _ = self.insert_optional(context));
    }
}
