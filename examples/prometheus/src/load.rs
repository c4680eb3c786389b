//! Requests, and what `stats()` says of them.

use batchlink::processor::{ProcessorStats, Submitter};
use batchlink::{LinkCollector, Stats};
use opentelemetry::trace::Tracer;
use opentelemetry_sdk::trace::SdkTracer;
use std::fmt;
use std::time::Duration;

/// What requests need.
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) tracer: SdkTracer,
    pub(crate) collector: LinkCollector,
    pub(crate) submitter: Submitter<u64, (), String>,
}

/// The counters after the load.
pub(crate) struct Counted {
    inserts: Stats,
    mails: ProcessorStats,
}

impl Load {
    /// Makes the requests and waits until their batches are finished. **Blocks** the thread.
    pub(crate) fn run(self) -> Result<Counted, batchlink::FlushError> {
        let Self { requests, tracer, collector, submitter } = self;
        for number in 0..requests {
            tracer.in_span("request", |_cx| {
                // A full queue refuses; the metrics show how often.
                _ = collector.push_current();
                if number % 4 == 0 {
                    _ = collector.push_current(); // a duplicate
                }
                _ = submitter.submit(number);
            });
        }
        let timeout = Duration::from_secs(60);
        let inserts = collector.flush_and_wait(timeout)?;
        let mails = submitter.flush_and_wait(timeout)?;
        Ok(Counted { inserts, mails })
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.inserts.counts();
        writeln!(f, "inserts.linked {}", counts.linked)?;
        writeln!(f, "inserts.duplicate {}", counts.duplicates)?;
        writeln!(f, "inserts.truncated {}", counts.truncated)?;
        writeln!(f, "inserts.unsampled {}", counts.unsampled)?;
        writeln!(f, "inserts.queue_full {}", self.inserts.rejected_full())?;
        writeln!(f, "inserts.batches {}", self.inserts.batches())?;
        writeln!(f, "mails.succeeded {}", self.mails.succeeded())?;
        writeln!(f, "mails.failed {}", self.mails.failed())?;
        write!(f, "mails.batches {}", self.mails.queue().batches())
    }
}
