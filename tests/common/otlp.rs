//! An OTLP receiver over HTTP, in this process, and an exporter that sends to it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// Keeps what it is sent, until the path `/end` is asked for.
pub struct Receiver {
    address: String,
    thread: JoinHandle<Vec<Span>>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let thread = thread::spawn(move || {
            let mut spans = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let Some(body) = read(&stream) else { break };
                let request = ExportTraceServiceRequest::decode(&*body).expect("a request");
                let scopes = request.resource_spans.into_iter().flat_map(|all| all.scope_spans);
                spans.extend(scopes.flat_map(|scope| scope.spans));
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\
                              Content-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).expect("a client that reads");
            }
            spans
        });
        Self { address, thread }
    }

    /// Returns a provider whose spans are all sent here.
    pub fn provider(&self) -> SdkTracerProvider {
        let endpoint = format!("http://{}/v1/traces", self.address);
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build();
        SdkTracerProvider::builder().with_batch_exporter(exporter.expect("valid")).build()
    }

    /// Returns the spans that have arrived.
    pub fn end(self) -> Vec<Span> {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.write_all(b"GET /end HTTP/1.1\r\n\r\n").expect("it reads");
        self.thread.join().expect("no panic")
    }
}

/// Reads the body of a request; `None` if it is for the end.
fn read(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request");
    if line.contains("/end") {
        return None;
    }
    while line != "\r\n" {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        line.clear();
        reader.read_line(&mut line).expect("a header");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    Some(body)
}

/// Returns the whole number of an attribute; `None` if there is none.
pub fn number(span: &Span, key: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        other => panic!("{key} is {other:?}"),
    }
}
