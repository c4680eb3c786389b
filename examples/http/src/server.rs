//! Serves `POST /items`: a response waits until its row is committed.

use crate::store::{Item, StoreError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use batchlink::{
    carrier,
    processor::{CallError, Submitter},
};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use serde_json::{Value, json};

pub(crate) const SERVER_SPAN: &str = "POST /items";

type Inserts = Submitter<Item, i64, StoreError>;

pub(crate) fn router(inserts: Inserts) -> Router {
    Router::new().route("/items", post(create)).with_state(inserts)
}

async fn create(
    State(inserts): State<Inserts>,
    headers: HeaderMap,
    Json(item): Json<Item>,
) -> (StatusCode, Json<Value>) {
    let cx = server_span(&headers);
    let answer = inserts.call_with_context(item, cx.span().span_context()).await;
    let (status, body) = match answer {
        Ok(id) => (StatusCode::CREATED, json!({ "id": id })),
        Err(error) => {
            let status = match &error {
                CallError::Failed(StoreError::Taken) => StatusCode::CONFLICT,
                CallError::Full => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, json!({ "error": error.to_string() }))
        }
    };
    cx.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        cx.span().set_status(Status::error(body["error"].to_string()));
    }
    (status, Json(body))
}

/// Starts the span of a request, as a child of its caller's if the request names one.
fn server_span(headers: &HeaderMap) -> Context {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let parent = match carrier::extract(&carrier::Headers::new(&headers)) {
        Some(caller) => Context::new().with_remote_span_context(caller),
        None => Context::new(),
    };
    let tracer = global::tracer("batchlink-http-example");
    let span = tracer.span_builder(SERVER_SPAN).with_kind(SpanKind::Server);
    parent.with_span(span.start_with_context(&tracer, &parent))
}
