//! A client of the gateway.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

/// A client without a pool: what is sent reaches the process that listens now.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// Null if the text is no JSON.
    pub body: Value,
}

impl Http {
    /// A client of the process at `address`.
    pub fn new(address: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(120))
            .build()
            .unwrap();
        Self { client, base: format!("http://{address}") }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await.unwrap()
    }

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
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Fails unless this is an error as RFC 9457 has it, with `status`.
    #[track_caller]
    pub fn expect_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(self.body["status"], status, "{}", self.text);
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{}", self.text);
    }

    /// Fails unless this is a success with `message`.
    #[track_caller]
    pub fn expect_message(&self, message: impl Into<Value>) {
        assert_eq!((self.status, &self.body["message"]), (200, &message.into()), "{}", self.text);
    }

    /// Fails unless this is a success with `message` of the flow `id`.
    #[track_caller]
    pub fn expect_start(&self, message: Value, id: &str, reconnected: bool) {
        self.expect_message(message);
        assert_eq!(self.body["id"], id, "{}", self.text);
        assert_eq!(self.body["reconnected"], reconnected, "{}", self.text);
    }
}
