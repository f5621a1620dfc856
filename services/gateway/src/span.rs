//! The span of a request that starts a flow or finds it, by OpenTelemetry's semantic conventions for
//! HTTP servers.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, Request as HttpRequest},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{HOST, USER_AGENT},
        uri::Authority,
    },
};
use flows::Flow;
use opentelemetry::{KeyValue, Value};
use opentelemetry_http::HeaderExtractor;
use resonate_otel::{FlowSpan, FlowTracer, ServerSpan};

/// The value of `error.type` if the client hangs up.
const HUNG_UP: &str = "client_disconnected";

/// A span that ends with the answer, or else when it is dropped: the client has hung up.
pub struct RequestSpan {
    span: ServerSpan,
    answered: bool,
}

impl RequestSpan {
    /// A request for a flow has arrived.
    pub fn begin(tracer: &FlowTracer, flow: &Flow, request: &HttpRequest) -> Self {
        let name = format!("{} {}", request.method(), flow.route());
        let mut span = tracer.server_span(name, &HeaderExtractor(request.headers()));
        if span.is_recording() {
            attributes(request, &flow.route()).for_each(|attribute| span.set_attribute(attribute));
        }
        Self { span, answered: false }
    }

    /// The span of the flow that is asked for.
    pub fn flow(&mut self, flow: &'static Flow) -> FlowSpan {
        self.span.flow(flow.name)
    }

    /// The request is answered.
    pub fn answered(mut self, status: StatusCode) {
        self.answered = true;
        let code = i64::from(status.as_u16());
        self.span.set_attribute(KeyValue::new("http.response.status_code", code));
        if status.is_server_error() {
            self.span.set_error(status.as_str().to_owned(), "");
        }
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.span.set_error("panic", "");
        } else if !self.answered {
            self.span.set_error(HUNG_UP, "the client closed the connection before the answer");
        }
    }
}

fn attributes(request: &HttpRequest, route: &str) -> impl Iterator<Item = KeyValue> {
    let (headers, uri) = (request.headers(), request.uri());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer);
    let host = header(headers, HOST).and_then(|host| host.parse::<Authority>().ok());
    // What a proxy in front of the gateway says about its client.
    let scheme = first(headers, "x-forwarded-proto").filter(|scheme| *scheme == "https");
    let client = first(headers, "x-forwarded-for").map(str::to_owned);
    let version = format!("{:?}", request.version());
    let text = |text: &str| Value::from(text.to_owned());
    [
        ("http.request.method", Some(text(request.method().as_str()))),
        ("http.route", Some(text(route))),
        ("url.scheme", Some(text(scheme.unwrap_or("http")))),
        ("url.path", Some(text(uri.path()))),
        ("url.query", uri.query().map(text)),
        ("server.address", host.as_ref().map(|host| text(host.host()))),
        ("server.port", host.and_then(|host| host.port_u16()).map(|port| i64::from(port).into())),
        ("client.address", client.or(peer.map(|peer| peer.ip().to_string())).map(Value::from)),
        ("network.peer.address", peer.map(|peer| peer.ip().to_string().into())),
        ("network.peer.port", peer.map(|peer| i64::from(peer.port()).into())),
        ("network.protocol.version", Some(text(version.trim_start_matches("HTTP/")))),
        ("user_agent.original", header(headers, USER_AGENT).map(text)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(KeyValue::new(name, value?)))
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The first item of a list.
fn first<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    let list = header(headers, HeaderName::from_static(name))?;
    list.split(',').next().map(str::trim).filter(|item| !item.is_empty())
}
