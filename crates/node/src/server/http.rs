//! One request and its answer, by HTTP.

use std::{
    error::Error as StdError,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::{
    HeaderMap, HeaderValue, Method, Request as HttpRequest, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::{TokioExecutor, TokioTimer},
};
use reqwest::Url;
use settings::Secret;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use wire::{Answer, Exchange, ExchangeError, Request};

use super::{
    quickack, tls,
    token::Token,
    transport::{Chunks, Transport},
};
use crate::{config::Config, error::Error};

/// A connection that was idle for this long is not used again. Idle connections die unnoticed, and all
/// of them at once: each would cost a request its time-out until keep-alive has closed it.
const IDLE: Duration = Duration::from_secs(3);

/// How often the log says that the token does not cover an id.
const FORBIDDEN: Duration = Duration::from_secs(60);

/// The status for an id that the token does not cover.
const FORBIDDEN_STATUS: u16 = 403;

type Response = axum::http::Response<Incoming>;

/// The HTTP client of one process.
pub(crate) struct Http {
    // Not reqwest, which wraps this client and took a tenth of a process's CPU.
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// For message streams.
    streams: Client<HttpsConnector<quickack::Connector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    token: Token,
    /// Notified when the server refuses the token.
    refused: Notify,
    /// When the log said that the token does not cover an id.
    forbidden: Mutex<Option<Instant>>,
    /// The URL without credentials, for people.
    server: String,
    request_timeout: Duration,
}

impl Http {
    /// # Errors
    /// There are no usable CA certificates, which `https://` needs, or the token cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let server = settings::without_credentials(&config.server_url);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        tcp.set_nodelay(true);
        // The message stream is silent while there is no work, and the server sends no keep-alive:
        // without these a dead connection would look like an idle one.
        tcp.set_keepalive(Some(Duration::from_secs(5)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(2)));
        tcp.set_keepalive_retries(Some(3));
        let tls = tls::client(config, &server)?;
        let https = || {
            HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1()
        };
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        let url = server
            .parse()
            .map_err(|error| Error::Other(format!("{server} is not a URL: {error}")))?;
        Ok(Self {
            client: client.build(https().wrap_connector(tcp.clone())),
            streams: client.build(https().wrap_connector(quickack::connector(tcp))),
            url,
            headers: headers(&config.server_url),
            token: Token::of(config)?,
            refused: Notify::new(),
            forbidden: Mutex::default(),
            server,
            request_timeout: config.attempt_timeout(),
        })
    }

    async fn send<Connector: Connect + Clone + Send + Sync + 'static>(
        &self,
        client: &Client<Connector, Full<Bytes>>,
        method: Method,
        url: Uri,
        token: Option<&Secret>,
        body: String,
    ) -> Result<Response, ExchangeError> {
        let mut request = HttpRequest::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = url;
        *request.headers_mut() = self.headers.clone();
        if let Some(token) = token
            && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        client.request(request).await.map_err(|error| self.unreachable(cause(&error)))
    }

    /// Sends a request with a token: in the head, where the server reads it, and as a header, for a
    /// proxy in front of it.
    async fn post(
        &self,
        mut request: Request,
        token: Option<&Secret>,
    ) -> Result<Answer, ExchangeError> {
        if let Some(token) = token {
            request.set_auth(token.expose());
        }
        let text = request.text().into_owned();
        let bytes = text.len();
        let response = self.send(&self.client, Method::POST, self.url.clone(), token, text).await?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.unreachable(cause(&error)))?.to_bytes();
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => return Err(ExchangeError::TooLarge { bytes }),
            StatusCode::UNAUTHORIZED => return Err(self.unauthorized()),
            _ => {}
        }
        // Text that is not UTF-8 is not an answer: the empty text stands for it.
        let text = String::from_utf8(body.into()).unwrap_or_default();
        Answer::parse(&request, text)
            .map_err(|error| self.unreachable(format!("{error} (HTTP status {status})")))
    }

    async fn get(
        &self,
        group: &str,
        id: &str,
        token: Option<&Secret>,
    ) -> Result<Chunks, ExchangeError> {
        let url = format!("{}/poll/{group}/{id}", self.server);
        let url = url.parse().map_err(|error| self.unreachable(format!("{url}: {error}")))?;
        let send = self.send(&self.streams, Method::GET, url, token, String::new());
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
            StatusCode::UNAUTHORIZED => Err(self.unauthorized()),
            status => Err(self.unreachable(format!("it answered {status}"))),
        }
    }

    fn unreachable(&self, reason: String) -> ExchangeError {
        ExchangeError::Unreachable { server: self.server.clone(), reason }
    }

    fn unauthorized(&self) -> ExchangeError {
        let (server, reason) = (self.server.clone(), self.token.refusal());
        ExchangeError::Unauthorized { server, reason }
    }

    /// Logs that the token is good, but not for this request. A process with a narrow token may meet
    /// many such requests.
    fn forbidden(&self, request: &Request) {
        let mut last = self.forbidden.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= FORBIDDEN) {
            *last = Some(Instant::now());
            tracing::warn!(
                kind = request.kind(),
                "the Resonate Server forbids a request: the token has no prefix claim, or one that \
                 does not cover the id"
            );
        }
    }
}

#[async_trait::async_trait]
impl Exchange for Http {
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        let token = self.token.get();
        let mut answered = self.post(request.clone(), token.as_ref()).await;
        // The file of the token may hold another one by now.
        if is_refused(&answered)
            && let Some(newer) = self.token.newer(token.as_ref())
        {
            answered = self.post(request.clone(), Some(&newer)).await;
        }
        match &answered {
            Err(ExchangeError::Unauthorized { .. }) => self.refused.notify_waiters(),
            Ok(answer) if answer.status() == FORBIDDEN_STATUS => self.forbidden(&request),
            _ => {}
        }
        answered
    }
}

fn is_refused(answered: &Result<Answer, ExchangeError>) -> bool {
    match answered {
        Ok(answer) => answer.status() == FORBIDDEN_STATUS,
        Err(error) => matches!(error, ExchangeError::Unauthorized { .. }),
    }
}

#[async_trait::async_trait]
impl Transport for Http {
    fn server(&self) -> &str {
        &self.server
    }

    async fn open_stream(&self, group: &str, id: &str) -> Result<Chunks, ExchangeError> {
        let token = self.token.get();
        match self.get(group, id, token.as_ref()).await {
            Err(error @ ExchangeError::Unauthorized { .. }) => {
                match self.token.newer(token.as_ref()) {
                    Some(newer) => self.get(group, id, Some(&newer)).await,
                    None => Err(error),
                }
            }
            opened => opened,
        }
    }

    async fn refused(&self) {
        self.refused.notified().await;
    }
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

/// The innermost cause of an error, which says more than the client's own message.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref().and_then(tls_error) {
        Some(error @ rustls::Error::InvalidCertificate(_)) => {
            format!("{error}; NODE_SERVER_CA_FILE names the CA certificates to trust")
        }
        _ => cause.to_string(),
    }
}

/// The TLS error inside an I/O error. `source()` skips it and returns that of the inner error.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let held = error.get_ref()?;
    held.downcast_ref().or_else(|| tls_error(held.downcast_ref()?))
}

#[cfg(test)]
mod tests;
