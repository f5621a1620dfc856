//! A client of the gateway and of health checks.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;

/// A client without a connection pool: each request reaches the process that listens now. A client
/// belongs to the runtime of its test.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
}

impl Http {
    /// A client of the process at `address`, such as `127.0.0.1:5000`.
    pub fn new(address: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(120))
            .build()
            .unwrap();
        Self { client, base: format!("http://{address}") }
    }

    /// `GET`.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await.unwrap()
    }

    /// `POST` without a body.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn post(&self, path: &str) -> Answer {
        self.send(Method::POST, path, &[]).await.unwrap()
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status, headers, text, body })
    }

    /// The status of `GET`; `None` if there is no answer.
    pub async fn status(&self, path: &str) -> Option<u16> {
        self.send(Method::GET, path, &[]).await.ok().map(|answer| answer.status)
    }
}

impl Answer {
    /// The HTTP status as a type.
    ///
    /// # Panics
    /// It is none.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap()
    }

    /// A header; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The `detail` of a problem; empty if this is none.
    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }

    /// Asserts that this is an RFC 9457 problem with `status`.
    #[track_caller]
    pub fn expect_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(self.body["status"], status, "{}", self.text);
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{}", self.text);
    }

    /// Asserts that this is a success with `message`.
    #[track_caller]
    pub fn expect_message(&self, message: impl Into<Value>) {
        assert_eq!((self.status, &self.body["message"]), (200, &message.into()), "{}", self.text);
    }

    /// Asserts that this is a success with `message` for the flow `id`.
    #[track_caller]
    pub fn expect_start(&self, message: Value, id: &str, reconnected: bool) {
        self.expect_message(message);
        assert_eq!(self.body["id"], id, "{}", self.text);
        assert_eq!(self.body["reconnected"], reconnected, "{}", self.text);
    }
}
