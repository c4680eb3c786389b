//! A collector: takes OTLP over HTTP and keeps the spans.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub(super) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let all = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let spans = Arc::clone(&all);
                thread::spawn(move || take(BufReader::new(stream), &spans));
            }
        });
        Self { address, spans }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("no panic").clone()
    }
}

/// Takes the requests of a connection.
fn take(mut stream: BufReader<TcpStream>, spans: &Mutex<Vec<Span>>) -> Option<()> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.trim().to_ascii_lowercase();
        if let Some(rest) = lower.strip_prefix("content-length:") {
            length = rest.trim().parse().ok()?;
        } else if lower.is_empty() {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).ok()?;
            let request = ExportTraceServiceRequest::decode(&body[..]).expect("OTLP");
            let groups = request.resource_spans.into_iter().flat_map(|group| group.scope_spans);
            spans.lock().expect("no panic").extend(groups.flat_map(|scope| scope.spans));
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                          content-length: 0\r\n\r\n";
            stream.get_mut().write_all(answer.as_bytes()).ok()?;
        }
    }
}
