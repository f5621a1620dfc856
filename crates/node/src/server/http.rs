//! One request and its answer, by HTTP.

use std::{io, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use reqwest::{
    StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::time::timeout;
use wire::{Answer, Exchange, ExchangeError, Request};

use super::transport::{Chunks, Transport};
use crate::{config::Config, error::Error};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The HTTP client of one process.
pub(crate) struct Http {
    client: reqwest::Client,
    url: Url,
    /// The URL without credentials, for people.
    server: String,
    request_timeout: Duration,
}

impl Http {
    /// # Errors
    /// This machine has no usable CA certificates, which `https://` needs.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut client = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            // The message stream is silent while there is no work, and the server sends no
            // keep-alive: without these a dead connection would look like an idle one.
            .tcp_keepalive(Duration::from_secs(5))
            .tcp_keepalive_interval(Duration::from_secs(2))
            .tcp_keepalive_retries(3)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if config.server_url.starts_with("http://") {
            // Without TLS, the system's certificates need not be read, or be there.
            client = client.tls_certs_only([]);
        }
        let server = without_credentials(&config.server_url);
        let client = client.build().map_err(|error| {
            Error::Other(format!("cannot use TLS for {server}: {}", cause(&error)))
        })?;
        let url = Url::parse(&config.server_url)
            .map_err(|error| Error::Other(format!("{server} is not a URL: {error}")))?;
        Ok(Self { client, url, server, request_timeout: config.attempt_timeout() })
    }

    fn unreachable(&self, reason: String) -> ExchangeError {
        ExchangeError::Unreachable { server: self.server.clone(), reason }
    }
}

#[async_trait::async_trait]
impl Exchange for Http {
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        let post = self.client.post(self.url.clone()).header(CONTENT_TYPE, JSON);
        let read = async {
            let response = post.body(request.text().into_owned()).send().await?;
            Ok((response.status(), response.bytes().await?))
        };
        let (status, body) =
            read.await.map_err(|error: reqwest::Error| self.unreachable(cause(&error)))?;
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
        let url = format!("{}/poll/{group}/{id}", self.url.as_str().trim_end_matches('/'));
        let response = match timeout(self.request_timeout, self.client.get(url).send()).await {
            Ok(response) => response.map_err(|error| self.unreachable(cause(&error)))?,
            Err(_) => {
                let reason = format!("no answer within {:?}", self.request_timeout);
                return Err(self.unreachable(reason));
            }
        };
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let is_stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        match response.status() {
            status if status.is_success() && is_stream => {
                Ok(response.bytes_stream().map_err(io::Error::other).boxed())
            }
            status if status.is_success() => {
                Err(self.unreachable("it answered without a message stream".to_owned()))
            }
            status => Err(self.unreachable(format!("it answered {status}"))),
        }
    }
}

/// The innermost cause says more than reqwest's own line, which repeats the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
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
}
