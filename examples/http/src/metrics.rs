//! Metrics, by the SDK's exporter for Prometheus.

use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// What `GET /metrics` shows: everything that was measured on [`Metrics::meter`].
#[derive(Clone)]
pub struct Metrics {
    provider: SdkMeterProvider,
    registry: Registry,
}

impl Metrics {
    pub fn start(service: &'static str) -> Result<Self, Box<dyn std::error::Error>> {
        let registry = Registry::new();
        let reader =
            opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let resource = Resource::builder().with_service_name(service).build();
        let provider =
            SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build();
        Ok(Self { provider, registry })
    }

    pub fn meter(&self, name: &'static str) -> Meter {
        self.provider.meter(name)
    }

    /// Collects, and returns Prometheus' text format.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Answers a scrape.
    pub async fn scrape(self) -> impl IntoResponse {
        match self.text() {
            Ok(text) => Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)),
            Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        }
    }
}
