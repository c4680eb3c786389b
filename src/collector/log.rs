//! What is logged of refusals and losses (feature `internal-logs`): one warning, and one total.

use crate::panic::caught;
use crate::stats::Stats;

/// Logs, through the user's subscriber: its panic must not cost a batch, nor end the process when
/// it comes out of a drop.
pub(crate) fn logged(log: impl FnOnce()) {
    let _ = caught(log);
}

/// The consumer of a queue, as the log names it.
#[derive(Clone, Copy)]
pub(crate) enum Consumer {
    Flusher,
    #[cfg(feature = "processor")]
    Processor,
}

/// Warns once of refusals, because more would flood the log of a service that is overloaded, and
/// gives the total when the consumer goes. Not used by pushes, which a log could block.
pub(crate) struct RefusalLog {
    consumer: Consumer,
    #[cfg(feature = "internal-logs")]
    warned: bool,
}

impl RefusalLog {
    pub(crate) fn new(consumer: Consumer) -> Self {
        Self {
            consumer,
            #[cfg(feature = "internal-logs")]
            warned: false,
        }
    }

    /// Warns if something was refused, the first time. To be called after each batch.
    #[cfg_attr(
        not(feature = "internal-logs"),
        expect(clippy::unused_self, clippy::needless_pass_by_ref_mut)
    )]
    #[inline]
    pub(crate) fn check(&mut self, stats: impl FnOnce() -> Stats) {
        #[cfg(not(feature = "internal-logs"))]
        let _ = stats;
        #[cfg(feature = "internal-logs")]
        if !self.warned && stats().rejected_full() > 0 {
            self.warned = true;
            logged(|| match self.consumer {
                Consumer::Flusher => {
                    opentelemetry::otel_warn!(
                        name: "LinkCollector.ContextsRefused",
                        message = "The flusher is behind and contexts are refused. Raise \
                                   queue_capacity or make the handler faster. This is logged once. \
                                   The total follows when the flusher ends."
                    );
                }
                #[cfg(feature = "processor")]
                Consumer::Processor => {
                    opentelemetry::otel_warn!(
                        name: "BatchProcessor.ItemsRefused",
                        message = "The processor is behind and items are refused. Raise \
                                   queue_capacity or make the handler faster. This is logged once. \
                                   The total follows when the processor ends."
                    );
                }
            });
        }
    }

    /// Logs the total of what was refused and of what is left. To be called when the consumer is
    /// dropped, before it discards anything.
    pub(crate) fn end(&self, stats: &Stats) {
        self.end_links(stats);
        if stats.rejected_full() == 0 && stats.pending() == 0 {
            return;
        }
        logged(|| match self.consumer {
            Consumer::Flusher => {
                opentelemetry::otel_warn!(
                    name: "Flusher.ContextsLost",
                    rejected_full = stats.rejected_full(),
                    pending = stats.pending()
                );
            }
            #[cfg(feature = "processor")]
            Consumer::Processor => {
                opentelemetry::otel_warn!(
                    name: "BatchProcessor.ItemsLost",
                    rejected_full = stats.rejected_full(),
                    pending = stats.pending()
                );
            }
        });
    }

    /// Logs the total of truncated contexts.
    fn end_links(&self, stats: &Stats) {
        let (linked, truncated) = (stats.counts().linked, stats.counts().truncated);
        if truncated == 0 {
            return;
        }
        logged(|| match self.consumer {
            Consumer::Flusher => {
                opentelemetry::otel_warn!(
                    name: "Flusher.LinksTruncated",
                    linked = linked,
                    truncated = truncated
                );
            }
            #[cfg(feature = "processor")]
            Consumer::Processor => {
                opentelemetry::otel_warn!(
                    name: "BatchProcessor.LinksTruncated",
                    linked = linked,
                    truncated = truncated
                );
            }
        });
    }
}
