//! Requests to the Resonate Server, repeated until they are answered or their time is over.

use std::time::Duration;

use axum::body::Bytes;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::config::Config;

/// The pauses between attempts: short, for the answer is usually there when a server is back.
pub(super) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(100))
        .without_max_times()
        .with_jitter()
        .build()
}

/// The Resonate Server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the Resonate Server at {url} cannot be reached: {reason}")]
pub struct Unreachable {
    url: String,
    reason: String,
}

impl Unreachable {
    fn new(url: &str, error: &reqwest::Error) -> Self {
        // The cause says more than reqwest's own line, which repeats the address.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self { url: url.to_owned(), reason: cause.to_string() }
    }
}

/// An answer of the server, whatever its status.
pub(super) struct Answer {
    /// The HTTP status, which equals the status in the answer's head.
    pub status: u16,
    pub body: String,
    /// Whether the request was sent more than once: an earlier one may have taken effect.
    pub repeated: bool,
}

/// The HTTP client of one process.
#[derive(Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    url: String,
    request_timeout: Duration,
}

impl Http {
    pub fn new(config: &Config) -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            // The message stream is silent for as long as there is no work, and the server sends
            // no keep-alive: without these a dead connection would look like an idle one.
            .tcp_keepalive(Duration::from_secs(5))
            .tcp_keepalive_interval(Duration::from_secs(2))
            .tcp_keepalive_retries(3)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without TLS files or proxies can be built");
        Self { client, url: config.server_url.clone(), request_timeout: config.request_timeout }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens the stream of messages for the connection `id` of `group`.
    pub async fn stream(&self, group: &str, id: &str) -> Result<reqwest::Response, Unreachable> {
        let url = format!("{}/poll/{group}/{id}", self.url);
        let answer = match timeout(self.request_timeout, self.client.get(url).send()).await {
            Ok(answer) => answer.and_then(reqwest::Response::error_for_status),
            Err(_) => return Err(self.timed_out()),
        };
        answer.map_err(|error| match error.status() {
            Some(status) => {
                Unreachable { url: self.url.clone(), reason: format!("it answered {status}") }
            }
            None => Unreachable::new(&self.url, &error),
        })
    }

    /// Sends `body` until it is answered with a status below 500, at least once, and until
    /// `deadline`, which is asked again after each attempt: a lease may have been renewed.
    pub async fn call(
        &self,
        body: impl Into<Bytes>,
        deadline: impl Fn() -> Instant,
    ) -> Result<Answer, Unreachable> {
        let body = body.into();
        let mut pauses = pauses();
        let mut repeated = false;
        loop {
            let error = match self.attempt(body.clone()).await {
                Ok((status, body)) if status < 500 => return Ok(Answer { status, body, repeated }),
                Ok((status, body)) => Unreachable {
                    url: self.url.clone(),
                    reason: format!("it answered {status}: {body}"),
                },
                Err(error) => error,
            };
            let next = Instant::now() + pauses.next().unwrap_or_default();
            if next >= deadline() {
                return Err(error);
            }
            tracing::debug!(%error, "request will be repeated");
            sleep_until(next).await;
            repeated = true;
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<(u16, String), Unreachable> {
        let exchange = async {
            let request = self.client.post(&self.url).header("content-type", "application/json");
            let answer = request.body(body).send().await?;
            Ok((answer.status().as_u16(), answer.text().await?))
        };
        match timeout_at(Instant::now() + self.request_timeout, exchange).await {
            Ok(result) => result.map_err(|error| Unreachable::new(&self.url, &error)),
            Err(_) => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> Unreachable {
        Unreachable {
            url: self.url.clone(),
            reason: format!("no answer within {:?}", self.request_timeout),
        }
    }
}
