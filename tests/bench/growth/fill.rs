//! Settled flows in the store: the same promises and tasks as those of an await chain, made by requests
//! to the server at full speed.

use std::{
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use testkit::resonate::{CORR_ID, VERSION};

use crate::drive;

/// Requests at the same time.
const CONNECTIONS: usize = 16;

/// The functions and groups of an await chain.
const CALLS: [(&str, &str); 3] = [("foo", "service-a"), ("bar", "service-b"), ("baz", "service-c")];

/// Creates and settles the flows with these numbers.
///
/// # Panics
/// The server refuses.
pub async fn settle(url: &str, flows: Range<usize>) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let send = async |kind: &str, data: Value| {
        let head = json!({"corrId": CORR_ID, "version": VERSION});
        let body = json!({"kind": kind, "head": head, "data": data}).to_string();
        let request = client.post(url).header("content-type", "application/json").body(body);
        let answer = request.send().await.expect("an answer");
        let body = answer.bytes().await.expect("a body");
        let mut envelope: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(envelope["head"]["status"], 200, "{kind}: {envelope}");
        envelope["data"].take()
    };
    let first = flows.start;
    let flow = async |n: usize| {
        let origin = format!("settled-{}", first + n);
        let mut id = origin.clone();
        for (function, group) in CALLS {
            let created = send("task.create", task(&origin, &id, function, group)).await;
            let version = &created["task"]["version"];
            let value = json!({"data": encode("3")});
            let settle = json!({"id": id, "state": "resolved", "value": value});
            let action = json!({"kind": "promise.settle", "head": {}, "data": settle});
            send("task.fulfill", json!({"id": id, "version": version, "action": action})).await;
            id += ".0";
        }
        true
    };
    drive::run(CONNECTIONS, flows.len(), flow).await;
}

/// A promise with its task.
fn task(origin: &str, id: &str, function: &str, group: &str) -> Value {
    let now = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
    let timeout = now.duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64;
    let call = json!({"func": function, "args": [{}], "version": 1}).to_string();
    let tags = json!({
        "resonate:origin": origin, "resonate:branch": id, "resonate:parent": id,
        "resonate:scope": "global", "resonate:target": format!("poll://any@{group}"),
    });
    let data = json!({
        "id": id, "timeoutAt": timeout, "param": {"data": encode(&call)}, "tags": tags,
    });
    let action = json!({"kind": "promise.create", "head": {}, "data": data});
    json!({"pid": "bench", "ttl": 60_000, "action": action})
}

/// The contents of promises are JSON in base64.
fn encode(json: &str) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(json)
}
