//! HTTP requests: those to the Resonate Server, and those to an HTTP server of this process.

use std::{sync::Arc, time::Duration};

use opentelemetry::KeyValue;
use reqwest::Url;

use super::{Inner, Metrics, OTHER};
use crate::attributes as key;

/// The methods of HTTP; any other one could be anything.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// Counts and times the requests to one Resonate Server: `http.client.request.duration`.
#[derive(Debug, Clone, Default)]
pub struct ClientRequests(Option<Arc<Client>>);

#[derive(Debug)]
struct Client {
    metrics: Arc<Inner>,
    server: Vec<KeyValue>,
}

/// How an attempt of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The server answered with this status.
    Answered(u16),
    /// There was no answer in time.
    TimedOut,
    /// There was no connection, or the answer was none of a Resonate Server.
    Failed,
}

impl Metrics {
    /// The requests to the Resonate Server at `url`.
    pub fn client_requests(&self, url: &str) -> ClientRequests {
        let client = self.0.as_ref().map(|metrics| {
            let url = Url::parse(url).ok();
            // Shared: each measurement has it.
            let host = url.as_ref().and_then(Url::host_str).map(Arc::<str>::from);
            let port = url.as_ref().and_then(Url::port_or_known_default).map(i64::from);
            let mut server = vec![KeyValue::new(key::HTTP_METHOD, "POST")];
            server.extend(host.map(|host| KeyValue::new(key::SERVER_ADDRESS, host)));
            server.extend(port.map(|port| KeyValue::new(key::SERVER_PORT, port)));
            Arc::new(Client { metrics: metrics.clone(), server })
        });
        ClientRequests(client)
    }

    /// A request to an HTTP server of this process has ended: `http.server.request.duration`. `route`
    /// is the matched route, such as `/flows/{id}`; `status` is `None` if the client hung up before.
    pub fn server_request(
        &self,
        method: &str,
        route: Option<&str>,
        status: Option<u16>,
        duration: Duration,
    ) {
        let Some(Inner { instruments, .. }) = self.0.as_deref() else { return };
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER);
        let mut attributes =
            vec![KeyValue::new(key::HTTP_METHOD, method), KeyValue::new(key::URL_SCHEME, "http")];
        attributes.extend(route.map(|route| KeyValue::new(key::HTTP_ROUTE, route.to_owned())));
        match status {
            Some(status) => {
                attributes.push(KeyValue::new(key::HTTP_STATUS, i64::from(status)));
                if status >= 500 {
                    attributes.push(KeyValue::new(key::ERROR_TYPE, status.to_string()));
                }
            }
            None => attributes.push(KeyValue::new(key::ERROR_TYPE, "client_disconnected")),
        }
        instruments.server_requests.record(duration.as_secs_f64(), &attributes);
    }
}

impl ClientRequests {
    /// An attempt of a request has ended. `kind` is the request's, such as `task.fence`; `repeated`:
    /// it is not the first one.
    pub fn ended(&self, kind: &str, repeated: bool, attempt: Attempt, duration: Duration) {
        let Some(Client { metrics, server }) = self.0.as_deref() else { return };
        let mut attributes = Vec::with_capacity(server.len() + 4);
        attributes.extend_from_slice(server);
        attributes.push(KeyValue::new(key::REQUEST_KIND, kind.to_owned()));
        attributes.push(KeyValue::new(key::REQUEST_REPEATED, repeated));
        match attempt {
            Attempt::Answered(status) => {
                attributes.push(KeyValue::new(key::HTTP_STATUS, i64::from(status)));
                if status >= 400 {
                    attributes.push(KeyValue::new(key::ERROR_TYPE, status.to_string()));
                }
            }
            Attempt::TimedOut => attributes.push(KeyValue::new(key::ERROR_TYPE, "timeout")),
            Attempt::Failed => attributes.push(KeyValue::new(key::ERROR_TYPE, OTHER)),
        }
        metrics.instruments.client_requests.record(duration.as_secs_f64(), &attributes);
    }
}
