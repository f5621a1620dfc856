//! One request and its answer, by HTTP.

use std::{error::Error as StdError, io, time::Duration};

use axum::http::{
    HeaderMap, HeaderValue, Method, Request as HttpRequest, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use wire::{Answer, Exchange, ExchangeError, Request};

use super::transport::{Chunks, Transport};
use crate::{config::Config, error::Error};

/// A connection that was idle for this long is not used again. Idle connections die unnoticed, and all
/// of them at once: each would cost a request its time-out until keep-alive has closed it.
const IDLE: Duration = Duration::from_secs(3);

type Response = axum::http::Response<Incoming>;

/// The HTTP client of one process.
pub(crate) struct Http {
    // Not reqwest's, which is made of this one and took a tenth of the CPU of a process.
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    /// The URL without credentials, for people.
    server: String,
    request_timeout: Duration,
}

impl Http {
    /// # Errors
    /// This machine has no usable CA certificates, which `https://` needs.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let server = without_credentials(&config.server_url);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        tcp.set_nodelay(true);
        // The message stream is silent while there is no work, and the server sends no keep-alive:
        // without these a dead connection would look like an idle one.
        tcp.set_keepalive(Some(Duration::from_secs(5)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(2)));
        tcp.set_keepalive_retries(Some(3));
        let tls = tls(config.server_url.starts_with("https://")).map_err(|error| {
            let reason = match error {
                rustls::Error::General(reason) => reason,
                other => other.to_string(),
            };
            Error::Other(format!(
                "cannot use TLS for {server}: {reason}; \
                 install the CA certificates of this system (on Debian: ca-certificates)"
            ))
        })?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let url = server
            .parse()
            .map_err(|error| Error::Other(format!("{server} is not a URL: {error}")))?;
        let headers = headers(&config.server_url);
        Ok(Self { client, url, headers, server, request_timeout: config.attempt_timeout() })
    }

    async fn send(
        &self,
        method: Method,
        url: Uri,
        body: String,
    ) -> Result<Response, ExchangeError> {
        let mut request = HttpRequest::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = url;
        *request.headers_mut() = self.headers.clone();
        self.client.request(request).await.map_err(|error| self.unreachable(cause(&error)))
    }

    fn unreachable(&self, reason: String) -> ExchangeError {
        ExchangeError::Unreachable { server: self.server.clone(), reason }
    }
}

#[async_trait::async_trait]
impl Exchange for Http {
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        let text = request.text().into_owned();
        let response = self.send(Method::POST, self.url.clone(), text).await?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.unreachable(cause(&error)))?.to_bytes();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return Err(ExchangeError::TooLarge { bytes: request.text().len() });
        }
        // Text that is not UTF-8 is not an answer: the empty text stands for it.
        let text = String::from_utf8(body.into()).unwrap_or_default();
        Answer::parse(&request, text)
            .map_err(|error| self.unreachable(format!("{error} (HTTP status {status})")))
    }
}

#[async_trait::async_trait]
impl Transport for Http {
    fn server(&self) -> &str {
        &self.server
    }

    async fn open_stream(&self, group: &str, id: &str) -> Result<Chunks, ExchangeError> {
        let url = format!("{}/poll/{group}/{id}", self.server);
        let url = url.parse().map_err(|error| self.unreachable(format!("{url}: {error}")))?;
        let send = self.send(Method::GET, url, String::new());
        let Ok(response) = timeout(self.request_timeout, send).await else {
            return Err(self.unreachable(format!("no answer within {:?}", self.request_timeout)));
        };
        let response = response?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        match response.status() {
            status if status.is_success() && is_stream => {
                let chunks = response.into_body().into_data_stream();
                Ok(chunks.map_err(io::Error::other).boxed())
            }
            status if status.is_success() => {
                Err(self.unreachable("it answered without a message stream".to_owned()))
            }
            status => Err(self.unreachable(format!("it answered {status}"))),
        }
    }
}

/// The TLS settings of a client. Without TLS, the system's certificates need not be read, or be
/// there.
fn tls(used: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(match used {
        true => builder.try_with_platform_verifier()?.with_no_client_auth(),
        false => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    })
}

/// The headers of every request, with the credentials that the URL may hold.
fn headers(url: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    if let Ok(url) = Url::parse(url)
        && (!url.username().is_empty() || url.password().is_some())
    {
        let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
        let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
        if let Ok(mut value) = HeaderValue::try_from(format!("Basic {credentials}")) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }
    headers
}

/// The innermost cause says more than the client's own line.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn without_credentials(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            // It fails for URLs without a host, which were refused as a setting.
            let _ = parsed.set_username("").and_then(|()| parsed.set_password(None));
            parsed.as_str().trim_end_matches('/').to_owned()
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (url, shown) in [
            ("http://user:secret@resonate:8001", "http://resonate:8001"),
            ("http://user@resonate:8001/base", "http://resonate:8001/base"),
            ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn credentials_are_sent() {
        let authorization = |url| headers(url).remove(AUTHORIZATION);
        assert_eq!(
            authorization("http://user:p%40ss@resonate:8001").unwrap(),
            "Basic dXNlcjpwQHNz"
        );
        assert_eq!(authorization("http://resonate:8001"), None);
    }
}
