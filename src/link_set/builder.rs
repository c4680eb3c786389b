//! From builder calls to a link set.

use super::{LinkPolicy, LinkSet, MAX_LINKS};
use crate::error::ConfigError;

/// Configures a [`LinkSet`]; made by [`LinkSet::builder`].
///
/// ```
/// use batchlink::{LinkPolicy, LinkSet, links::Relation};
///
/// let policy = LinkPolicy::new().with_link_type(Relation::ConsumedFrom);
/// let set = LinkSet::builder().with_link_policy(policy).with_max_links(64).build()?;
/// # drop(set);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct LinkSetBuilder(LinkPolicy);

impl LinkSetBuilder {
    /// Bounds the links of one batch; see [`LinkPolicy::with_max_links`].
    pub fn with_max_links(mut self, links: usize) -> Self {
        self.0 = self.0.with_max_links(links);
        self
    }

    /// Sets how contexts become links. A bound that was set before stays, unless the policy has
    /// one.
    ///
    /// ```
    /// use batchlink::{LinkPolicy, LinkSet, Unsampled};
    ///
    /// let policy = LinkPolicy::new().with_unsampled(Unsampled::Keep);
    /// let set = LinkSet::builder().with_max_links(64).with_link_policy(policy).build()?;
    /// # drop(set);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_link_policy(mut self, policy: LinkPolicy) -> Self {
        self.0 = policy.after(&self.0);
        self
    }

    /// Checks the policy and allocates the table: 16 to 32 bytes per possible link. The links
    /// themselves, 96 bytes each, belong to the batch.
    ///
    /// [`Dedup::ByContextAndAttributes`](crate::Dedup), link counts and every
    /// [`Truncation`](crate::Truncation) but `KeepFirst` hold up to 150 bytes more per link, once a
    /// batch has so many.
    ///
    /// ```
    /// let error = batchlink::LinkSet::builder().with_max_links(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid max_links: 0 (allowed: 1 to 1048576)");
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming `max_links` if it is not between 1 and 1 048 576, `max_pages` of
    /// [`Overflow::Spans`](crate::Overflow) if it is 0 or a batch could have more links than that,
    /// or `link_type_key` if it is empty.
    pub fn build(self) -> Result<LinkSet, ConfigError> {
        Ok(LinkSet::new(self.0.validate()?, MAX_LINKS))
    }
}
