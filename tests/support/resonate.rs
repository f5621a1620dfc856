//! A client of the Resonate Server's own protocol: what is durable, and promises put in by hand.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// A client.
#[derive(Clone)]
pub struct Resonate {
    client: reqwest::Client,
    url: String,
}

impl Resonate {
    pub fn new(url: &str) -> Self {
        let client =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        Self { client, url: url.to_owned() }
    }

    /// Sends a request of `kind`: status and data of its answer.
    pub async fn send(&self, kind: &str, data: Value) -> (u64, Value) {
        let head = json!({"corrId": "test", "version": "2026-04-01"});
        let request = json!({"kind": kind, "head": head, "data": data}).to_string();
        let answer = self.client.post(&self.url).header("content-type", "application/json");
        let answer = answer.body(request).send().await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        (answer["head"]["status"].as_u64().unwrap(), answer["data"].take())
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

    /// Creates a root promise with `param` for `target`, as an SDK's call would.
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
