//! A viewer for the examples: takes spans by OTLP over HTTP and shows them in Jaeger's UI, on one
//! port of the loopback address. The last 1000 traces are kept, in memory. See `run.sh`.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use otlp_embedded::proto::collector::trace::v1::ExportTraceServiceRequest;
use otlp_embedded::{Config, State, TraceService, TraceServiceImpl, ui_app};
use prost::Message;
use std::error::Error;
use std::sync::Arc;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(4318), |port| port.parse::<u16>())?;
    let state = State::new(Config { max_length: 1000, max_memory_usage: 1 << 28 });
    let service = Arc::new(TraceServiceImpl::new(state.clone()));
    let export = move |body: Bytes| {
        let service = service.clone();
        async move {
            let request = ExportTraceServiceRequest::decode(body);
            let request = request.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            let response = service.export(tonic::Request::new(request)).await;
            let response = response.map_err(|status| {
                (StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned())
            })?;
            Ok::<_, (StatusCode, String)>(response.into_inner().encode_to_vec())
        }
    };
    let app = ui_app(state, "/").route("/v1/traces", post(export));
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
