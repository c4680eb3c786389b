//! Serves `POST /items`: a response waits until its row is committed. And `GET /metrics`.

use crate::metrics::Metrics;
use crate::store::{Item, StoreError};
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use batchlink::processor::{CallError, Submitter};
use opentelemetry::global;
use opentelemetry::trace::SpanContext;
use opentelemetry_http::HeaderExtractor;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{Instrument, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The name of a request's span.
pub const SERVER_SPAN: &str = "POST /items";

/// How long connections may take to finish their requests after the end was asked for.
const GRACE: Duration = Duration::from_secs(10);

pub type Rows = Submitter<Item, i64, StoreError>;

pub fn router(rows: Rows, metrics: Metrics) -> Router {
    routes(post(create), rows, metrics)
}

/// The same service without links, to measure what these cost.
pub fn router_without_links(rows: Rows, metrics: Metrics) -> Router {
    let create = async |State(rows): State<Rows>, Json(item): Json<Item>| {
        respond(rows.call_with_context(item, &SpanContext::NONE).await)
    };
    routes(post(create), rows, metrics)
}

fn routes(items: MethodRouter<Rows>, rows: Rows, metrics: Metrics) -> Router {
    Router::new()
        .route("/items", items)
        .route_layer(middleware::from_fn(in_span))
        .with_state(rows)
        .route("/metrics", get(|| metrics.scrape()))
}

/// Serves until `end`, then answers the requests that are under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (ending, mut ended) = tokio::sync::watch::channel(());
    let graceful = async move {
        end.await;
        drop(ending);
    };
    let overdue = async move {
        let _ = ended.changed().await;
        tokio::time::sleep(GRACE).await;
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(graceful);
    tokio::select! {
        result = server.into_future() => result,
        () = overdue => {
            tracing::warn!("connections are cut off");
            Ok(())
        }
    }
}

/// Stores an item with the next batch, whose span links the current one: the request's.
async fn create(State(rows): State<Rows>, Json(item): Json<Item>) -> (StatusCode, Json<Value>) {
    respond(rows.call(item).await)
}

fn respond(stored: Result<i64, CallError<StoreError>>) -> (StatusCode, Json<Value>) {
    match stored {
        Ok(id) => (StatusCode::CREATED, Json(json!({ "id": id }))),
        Err(error) => {
            let status = match &error {
                CallError::Failed(StoreError::Taken) => StatusCode::CONFLICT,
                CallError::Full => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, Json(json!({ "error": error.to_string() })))
        }
    }
}

/// Answers a request in a span of its own, a child of its caller's if the request names one.
async fn in_span(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = request.method().as_str();
    let span = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
    );
    // Before the span is entered, which starts it.
    let caller =
        global::get_text_map_propagator(|it| it.extract(&HeaderExtractor(request.headers())));
    let _ = span.set_parent(caller); // fails if the span is disabled
    let response = next.run(request).instrument(span.clone()).await;
    // As i64: a u16 would become a text.
    span.record("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.record("otel.status_code", "error");
    }
    response
}
