//! Batches to a collector, by OTLP over HTTP.
//!
//! The exporter of `opentelemetry-otlp` encodes and sends, but tells neither how many spans of a
//! batch were rejected nor when to try again. So it sends through a client that keeps request and
//! answer; a refused request is sent again as it is.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_executor::block_on;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter as Exporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter},
};
use prost::Message;
use reqwest::{blocking::Client, redirect::Policy};

use super::{Answer, Sender};
use crate::variables::Destination;

/// The longest pause that a collector can ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// Sends batches to a collector.
#[derive(Debug)]
pub(crate) struct Otlp {
    exporter: Exporter,
    recorder: Recorder,
    endpoint: String,
}

/// A client that keeps the last request and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    client: Client,
    last: Arc<Mutex<Option<Sent>>>,
}

#[derive(Debug)]
struct Sent {
    request: Request<Bytes>,
    answer: Result<Response<Bytes>, String>,
}

impl Recorder {
    /// A client whose requests end after `timeout`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new(timeout: Duration) -> Result<Self, String> {
        // The node's own client reaches everything directly, so this one does too. A blocking
        // client must be built where no runtime runs.
        // A redirect would turn the request into a GET, or take its headers to another host.
        let build =
            move || Client::builder().no_proxy().redirect(Policy::none()).timeout(timeout).build();
        let client = std::thread::spawn(build).join().map_err(|_| "no HTTP client".to_owned())?;
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { client, last: Arc::default() })
    }

    /// The body of the last answer, or why the request failed. `None`: nothing was sent.
    #[cfg(feature = "metrics")]
    pub fn take_last(&self, endpoint: &str) -> Option<Result<Bytes, String>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(match last?.answer {
            Ok(response) if is_of_a_collector(&response) => Ok(response.into_body()),
            Ok(response) => Err(answered(&response, endpoint)),
            Err(error) => Err(with_hint(error, endpoint)),
        })
    }
}

impl Otlp {
    /// # Errors
    /// Why the exporter cannot be built: the address is none.
    pub fn new(settings: &Destination, resource: &Resource) -> Result<Self, String> {
        let recorder = Recorder::new(settings.timeout)?;
        let mut exporter = Exporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout)
            .with_headers(settings.headers.clone())
            .with_retry_policy(RetryPolicy::disabled())
            .with_http_client(recorder.clone());
        if let Some(compression) = settings.compression {
            exporter = exporter.with_compression(compression);
        }
        let mut exporter = exporter.build().map_err(|error| error.to_string())?;
        exporter.set_resource(resource);
        Ok(Self { exporter, recorder, endpoint: settings.endpoint.clone() })
    }

    fn answer(&self, error: Option<String>) -> Answer {
        let last = self.recorder.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().map(|sent| &sent.answer) {
            Some(Ok(response)) if is_of_a_collector(response) => accepted(response.body()),
            Some(Ok(response)) => refused(response, &self.endpoint),
            Some(Err(error)) => {
                let error = with_hint(error.clone(), &self.endpoint);
                Answer::Refused { error, after: None, answered: false }
            }
            // It was never sent.
            None => Answer::Rejected { error: error.unwrap_or_default() },
        }
    }
}

impl Sender for Otlp {
    fn send(&mut self, batch: Vec<SpanData>) -> Answer {
        *self.recorder.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let result = block_on(self.exporter.export(batch));
        self.answer(result.err().map(|error| error.to_string()))
    }

    fn resend(&mut self) -> Answer {
        let last = self.recorder.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Sent { request, .. }) = last else {
            return Answer::Rejected { error: "nothing to send again".to_owned() };
        };
        let result = block_on(self.recorder.send_bytes(request));
        self.answer(result.err().map(|error| error.to_string()))
    }
}

#[async_trait]
impl HttpClient for Recorder {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let result = self.client.send_bytes(request.clone()).await;
        let answer = match &result {
            Ok(response) => Ok(response.clone()),
            Err(error) => Err(cause(error.as_ref())),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sent { request, answer });
        result
    }
}

/// The first cause of an error; what is above it only repeats the address.
fn cause(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Whether this is the answer of a collector that took the request. What serves web pages, such as the
/// page of Jaeger, takes requests to any path.
fn is_of_a_collector(response: &Response<Bytes>) -> bool {
    response.status().is_success() && !is_page(response)
}

fn is_page(response: &Response<Bytes>) -> bool {
    let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html")) && !response.body().is_empty()
}

fn accepted(body: &Bytes) -> Answer {
    let response = ExportTraceServiceResponse::decode(body.clone()).unwrap_or_default();
    let partial = response.partial_success.unwrap_or_default();
    let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
    Answer::Accepted { rejected, message: partial.error_message }
}

/// OTLP names the answers after which a client may send again. 500 is not one of them, but many
/// collectors answer so while they start or stop.
fn refused(response: &Response<Bytes>, endpoint: &str) -> Answer {
    let error = answered(response, endpoint);
    if !matches!(response.status().as_u16(), 408 | 429 | 500 | 502..=504) {
        return Answer::Rejected { error };
    }
    let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    Answer::Refused { error, after: header.and_then(retry_after), answered: true }
}

/// Seconds, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    let time = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(value.trim()).ok()?;
            date.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(time.min(LONGEST))
}

fn answered(response: &Response<Bytes>, endpoint: &str) -> String {
    let what = if is_page(response) { " with a web page" } else { "" };
    with_hint(format!("the collector answered {}{what}", response.status()), endpoint)
}

/// Adds the likely cause.
fn with_hint(error: String, endpoint: &str) -> String {
    let path = ["/v1/traces", "/v1/metrics"].into_iter().find(|path| endpoint.ends_with(path));
    if endpoint.contains(":4317") {
        format!("{error}; port 4317 is usually gRPC, use the port for HTTP, usually 4318")
    } else if endpoint.contains(":16686") {
        format!(
            "{error}; port 16686 is usually the page of Jaeger, use the port for HTTP, usually 4318"
        )
    } else if let Some(path) = path.filter(|path| endpoint.matches(path).count() > 1) {
        format!("{error}; {path} is appended to OTEL_EXPORTER_OTLP_ENDPOINT, leave it out")
    } else {
        error
    }
}

#[cfg(test)]
mod tests;
