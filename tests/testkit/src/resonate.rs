//! A client of the Resonate Server's own protocol: it reads what is durable and creates promises
//! by hand.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The correlation id of every request.
pub const CORR_ID: &str = "corr";

/// The version of the protocol.
pub const VERSION: &str = "2026-04-01";

/// How long a request may take: much longer than any does, even on a busy machine.
const REQUEST: Duration = Duration::from_secs(60);

/// A client.
#[derive(Clone)]
pub struct Resonate {
    client: reqwest::Client,
    url: String,
}

impl Resonate {
    /// A client of the server at `url`.
    pub fn new(url: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, url: url.to_owned() }
    }

    /// The URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET` of a path such as `/health`.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        self.client.get(format!("{}{path}", self.url)).send().await
    }

    /// Opens the message stream of a process of `group`.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn listen(&self, group: &str, id: &str) -> reqwest::Response {
        self.get(&format!("/poll/{group}/{id}")).await.expect("a message stream")
    }

    /// `POST` of any body: the HTTP status and the body of the answer.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn post(&self, body: Vec<u8>) -> (u16, Vec<u8>) {
        let request = self.client.post(&self.url).header("content-type", "application/json");
        let answer = request.timeout(REQUEST).body(body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.bytes().await.expect("a complete answer").to_vec())
    }

    /// Sends a request of `kind`: the HTTP status and the envelope of the answer.
    ///
    /// # Panics
    /// There is no answer, or it is not JSON.
    pub async fn call(&self, kind: &str, data: Value) -> (u16, Value) {
        let head = json!({"corrId": CORR_ID, "version": VERSION});
        let request = json!({"kind": kind, "head": head, "data": data});
        let (status, body) = self.post(request.to_string().into_bytes()).await;
        let envelope = serde_json::from_slice(&body).unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(&body);
            panic!("the answer to {kind} is not JSON ({error}): {status} {text}")
        });
        (status, envelope)
    }

    /// Sends a request of `kind`: the status and the data of the answer.
    pub async fn send(&self, kind: &str, data: Value) -> (u64, Value) {
        let (_, mut envelope) = self.call(kind, data).await;
        (envelope["head"]["status"].as_u64().unwrap(), envelope["data"].take())
    }

    /// The promise `id`; null if there is none.
    pub async fn promise(&self, id: &str) -> Value {
        let (status, mut data) = self.send("promise.get", json!({"id": id})).await;
        if status == 404 { Value::Null } else { data["promise"].take() }
    }

    /// Whether the promise `id` is settled.
    pub async fn settled(&self, id: &str) -> bool {
        let promise = self.promise(id).await;
        promise["state"].as_str().is_some_and(|state| state != "pending")
    }

    /// The task of the promise `id`; null if there is none.
    pub async fn task(&self, id: &str) -> Value {
        let (status, mut data) = self.send("task.get", json!({"id": id})).await;
        if status == 404 { Value::Null } else { data["task"].take() }
    }

    /// Creates a root promise with `param` for `target`, as the call of an SDK would.
    pub async fn create(&self, id: &str, target: &str, param: Value) {
        let timeout = SystemTime::now() + Duration::from_secs(600);
        let timeout = timeout.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let tags = json!({
            "resonate:origin": id, "resonate:branch": id, "resonate:parent": id,
            "resonate:scope": "global", "resonate:target": target,
        });
        let promise = json!({"id": id, "timeoutAt": timeout, "param": param, "tags": tags});
        let (status, data) = self.send("promise.create", promise).await;
        assert_eq!(status, 200, "{data}");
    }
}
