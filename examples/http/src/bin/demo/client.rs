//! Sends many requests at once, each in its own trace.

use crate::Args;
use crate::common::Result;
use batchlink::carrier;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer};
use opentelemetry::{KeyValue, global};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::task::JoinSet;

pub(crate) const CLIENT_SPAN: &str = "POST";

/// Every tenth request asks for a name that is taken.
const REPEAT_EVERY: u32 = 10;

/// The name that a request asked for, and the id in its response if the row was stored.
pub(crate) struct Answer {
    pub(crate) name: String,
    pub(crate) id: Option<i64>,
}

/// Sends all requests, one at a time per client.
pub(crate) async fn send_all(args: &Args, server: SocketAddr) -> Result<Vec<Answer>> {
    let http = Client::builder().no_proxy().build()?;
    let mut clients = JoinSet::new();
    for client in 0..args.clients {
        let (http, url) = (http.clone(), format!("http://{server}/items"));
        let numbers = (client..args.requests).step_by(args.clients as usize);
        clients.spawn(async move {
            let mut answers = Vec::new();
            for number in numbers {
                answers.push(send(&http, &url, number).await?);
            }
            Ok::<_, reqwest::Error>(answers)
        });
    }
    let mut all = Vec::new();
    while let Some(answers) = clients.join_next().await {
        all.extend(answers??);
    }
    Ok(all)
}

/// Returns the number of different names among `requests`.
pub(crate) fn names(requests: u32) -> u32 {
    requests - requests / REPEAT_EVERY
}

async fn send(http: &Client, url: &str, number: u32) -> reqwest::Result<Answer> {
    let tracer = global::tracer("batchlink-http-example");
    let mut span = tracer.span_builder(CLIENT_SPAN).with_kind(SpanKind::Client).start(&tracer);
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    carrier::inject(span.span_context(), &mut carrier::HeadersMut::new(&mut headers));

    let repeated = u32::from(number % REPEAT_EVERY == REPEAT_EVERY - 1);
    let name = format!("item-{}", number - repeated);
    let mut request = http.post(url).json(&json!({ "name": name, "quantity": number }));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.send().await?;
    let status = response.status();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if !status.is_success() {
        span.set_status(Status::error(status.to_string()));
    }
    let body: Value = response.json().await?;
    Ok(Answer { name, id: body["id"].as_i64().filter(|_| status == StatusCode::CREATED) })
}
