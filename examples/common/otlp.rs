//! Export by OTLP, if an endpoint is set in the environment.

use super::Result;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Where spans are sent, and whether they arrive.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    url: String,
    /// The first export that failed.
    failure: Arc<OnceLock<String>>,
}

impl Endpoint {
    pub(crate) fn from_env() -> Option<Self> {
        let url = std::env::var(ENDPOINT).ok().filter(|url| !url.is_empty())?;
        Some(Self { url, failure: Arc::default() })
    }

    pub(crate) fn exporter(&self) -> Result<Exporter> {
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .build()
            .map_err(|error| format!("cannot use {ENDPOINT}={}: {error}", self.url))?;
        Ok(Exporter { otlp, failure: Arc::clone(&self.failure) })
    }

    /// Whether every export so far went well.
    pub(crate) fn check(&self) -> Result {
        match self.failure.get() {
            None => Ok(()),
            Some(failure) => {
                Err(format!("cannot export spans to {ENDPOINT}={}: {failure}", self.url).into())
            }
        }
    }

    /// As [`check`](Self::check), with the SDK's own answer after that, which says less.
    pub(crate) fn check_with(&self, sdk: OTelSdkResult) -> Result {
        self.check()?;
        sdk.map_err(|error| {
            format!("cannot export spans to {ENDPOINT}={}: {error}", self.url).into()
        })
    }
}

/// Notes the first failure, which the SDK would only log.
#[derive(Debug)]
pub(crate) struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    failure: Arc<OnceLock<String>>,
}

impl SpanExporter for Exporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let result = self.otlp.export(spans).await;
        if let Err(error) = &result {
            self.failure.get_or_init(|| error.to_string());
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}
