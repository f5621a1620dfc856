//! What a case needs: requests, message streams, and the comparison of whole answers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use testkit::{
    DEADLINE, Resonate,
    resonate::{CORR_ID, VERSION},
    until,
};
use tokio::sync::mpsc;

/// In an expected answer: a time between the start of the case and now.
pub const TIME: &str = "‹time›";
/// In an expected answer: anything.
pub const ANY: &str = "‹any›";

/// A case on a server. It has ids and groups of its own.
#[derive(Clone)]
pub struct Context {
    pub server: Resonate,
    /// Part of all ids of this case.
    name: String,
    started: i64,
}

/// The answer to a `POST /`.
pub struct Reply {
    http_status: u16,
    kind: String,
    pub body: Value,
    started: i64,
}

pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a time that fits")
}

impl Context {
    pub fn new(server: Resonate, case: &str, run: &str) -> Self {
        Self { server, name: format!("{}-{run}", case.replace('_', "-")), started: now() }
    }

    pub fn id(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    pub fn group(&self) -> String {
        format!("group-{}", self.name)
    }

    /// `poll://any@` and the group of this case.
    pub fn anycast(&self) -> String {
        format!("poll://any@{}", self.group())
    }

    /// A time-out that no case reaches.
    pub fn far(&self) -> i64 {
        self.started + 3_600_000
    }

    pub async fn call(&self, kind: &str, data: Value) -> Reply {
        let (http_status, body) = self.server.call(kind, data).await;
        let (kind, started) = (kind.to_owned(), self.started);
        Reply { http_status, kind, body, started }
    }

    /// Posts any body: the HTTP status and the body of the answer.
    pub async fn post(&self, body: Vec<u8>) -> (u16, Vec<u8>) {
        self.server.post(body).await
    }

    /// Creates a promise with these tags and a time-out that no case reaches.
    pub async fn create(&self, id: &str, tags: Value) -> Value {
        let data = json!({"id": id, "timeoutAt": self.far(), "tags": tags});
        self.call("promise.create", data).await.is(200, json!({"promise": self.pending(id, tags)}))
    }

    /// Creates a promise with a task for the group of this case.
    pub async fn create_target(&self, id: &str) {
        self.create(id, json!({"resonate:target": self.anycast()})).await;
    }

    /// Creates a promise with a task and acquires the task (version 1) as `pid` for a minute.
    pub async fn acquired(&self, id: &str) {
        self.create_target(id).await;
        self.acquire(id, 0, "pid", 60_000).await.status(200);
    }

    pub async fn acquire(&self, id: &str, version: i64, pid: &str, ttl: i64) -> Reply {
        let data = json!({"id": id, "version": version, "pid": pid, "ttl": ttl});
        self.call("task.acquire", data).await
    }

    pub async fn suspend(&self, id: &str, version: i64, awaited: &[&str]) -> Reply {
        let action = |awaited: &&str| {
            let data = json!({"awaited": awaited, "awaiter": id});
            json!({"kind": "promise.register_callback", "head": {}, "data": data})
        };
        let actions: Vec<Value> = awaited.iter().map(action).collect();
        let data = json!({"id": id, "version": version, "actions": actions});
        self.call("task.suspend", data).await
    }

    pub async fn fulfill(&self, id: &str, version: i64) -> Reply {
        let data = json!({"id": id, "state": "resolved", "value": {"data": "done"}});
        let action = json!({"kind": "promise.settle", "head": {}, "data": data});
        let data = json!({"id": id, "version": version, "action": action});
        self.call("task.fulfill", data).await
    }

    pub async fn release(&self, id: &str, version: i64) -> Reply {
        self.call("task.release", json!({"id": id, "version": version})).await
    }

    pub async fn fence(&self, id: &str, version: i64, kind: &str, data: Value) -> Reply {
        let action = json!({"kind": kind, "head": {}, "data": data});
        let data = json!({"id": id, "version": version, "action": action});
        self.call("task.fence", data).await
    }

    pub async fn settle(&self, id: &str) -> Reply {
        let value = json!({"data": "settled"});
        let data = json!({"id": id, "state": "resolved", "value": value});
        self.call("promise.settle", data).await
    }

    pub async fn get(&self, id: &str) -> Value {
        let reply = self.call("promise.get", json!({"id": id})).await;
        reply.status(200)["promise"].clone()
    }

    /// Asserts that a task is as expected.
    pub async fn task_is(&self, expected: Value) {
        let reply = self.call("task.get", json!({"id": expected["id"]})).await;
        reply.is(200, json!({"task": expected}));
    }

    /// Waits until a task is as expected. Returns when it was seen so.
    pub async fn task_becomes(&self, expected: Value) -> Instant {
        until(&"", &format!("task {expected}"), async || {
            let reply = self.call("task.get", json!({"id": expected["id"]})).await;
            (reply.status(200)["task"] == expected).then(Instant::now)
        })
        .await
    }

    /// Waits until a promise has a state. Returns its record.
    pub async fn promise_becomes(&self, id: &str, state: &str) -> Value {
        until(&"", &format!("promise {id} {state}"), async || {
            let promise = self.get(id).await;
            (promise["state"] == state).then_some(promise)
        })
        .await
    }

    /// Opens a message stream in the group of this case.
    pub async fn listen(&self, id: &str) -> Stream {
        self.listen_in(&self.group(), id).await
    }

    /// Opens a message stream in any group.
    pub async fn listen_in(&self, group: &str, id: &str) -> Stream {
        let mut response = self.server.listen(group, id).await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let (sender, messages) = mpsc::channel(1_024);
        let reader = tokio::spawn(async move {
            let mut text = Vec::new();
            while let Ok(Some(chunk)) = response.chunk().await {
                text.extend_from_slice(&chunk);
                while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    let data = event.strip_prefix(b"data: ").expect("an event of one data line");
                    let _ =
                        sender.send(serde_json::from_slice(data).expect("JSON in an event")).await;
                }
            }
        });
        Stream { messages, reader, started: self.started }
    }

    /// The record of a pending promise that [`Context::create`] made.
    pub fn pending(&self, id: &str, tags: Value) -> Value {
        let (timeout, empty) = (self.far(), json!({}));
        json!({"id": id, "state": "pending", "param": empty, "value": empty, "tags": tags,
            "timeoutAt": timeout, "createdAt": TIME})
    }
}

/// The record of a promise after its settlement.
pub fn settled(mut promise: Value, state: &str, value: Value) -> Value {
    promise["state"] = state.into();
    promise["value"] = value;
    promise["settledAt"] = TIME.into();
    promise
}

/// The record of a task that nobody holds.
pub fn task(id: &str, state: &str, version: i64, resumes: i64) -> Value {
    json!({"id": id, "state": state, "version": version, "resumes": resumes})
}

/// The record of a task that somebody holds.
pub fn held(id: &str, version: i64, resumes: i64, pid: &str, ttl: i64) -> Value {
    json!({"id": id, "state": "acquired", "version": version, "resumes": resumes, "pid": pid,
        "ttl": ttl})
}

impl Reply {
    /// Compares the whole answer. Returns its data.
    pub fn is(self, status: u16, data: Value) -> Value {
        let head = json!({"corrId": CORR_ID, "status": status, "version": VERSION});
        let expected = json!({"kind": self.kind, "head": head, "data": data});
        self.check(status, &expected);
        self.body["data"].clone()
    }

    /// Compares the whole answer, which is a refusal with this reason.
    pub fn refuses(self, status: u16, reason: &str) {
        self.is(status, reason.into());
    }

    /// Compares the status only: for steps that are not what a case is about. Returns the data.
    pub fn status(self, status: u16) -> Value {
        assert_eq!(self.http_status, status, "{}: {}", self.kind, self.body);
        self.body["data"].clone()
    }

    fn check(&self, status: u16, expected: &Value) {
        assert_eq!(self.http_status, status, "{}: {}", self.kind, self.body);
        if let Err(at) = same(expected, &self.body, self.started) {
            panic!("{}: {at}\nexpected {expected}\nactual   {}", self.kind, self.body);
        }
    }
}

/// Compares two values, with regard to [`TIME`] and [`ANY`].
///
/// # Errors
/// Where they differ.
pub fn same(expected: &Value, actual: &Value, started: i64) -> Result<(), String> {
    match (expected, actual) {
        (Value::String(mask), _) if mask == ANY => Ok(()),
        (Value::String(mask), Value::Number(time)) if mask == TIME => {
            // The server reads its clock a little later than the case does, and rounds differently.
            let time = time.as_i64().ok_or("a time is not an integer")?;
            let plausible = started - 5 <= time && time <= now() + 5;
            if plausible { Ok(()) } else { Err(format!("{time} is not a time of this case")) }
        }
        (Value::Object(expected), Value::Object(actual)) => {
            let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            if keys(expected) != keys(actual) {
                return Err(format!("keys {:?}, not {:?}", keys(actual), keys(expected)));
            }
            expected.iter().try_for_each(|(key, value)| {
                same(value, &actual[key], started).map_err(|at| format!("{key}: {at}"))
            })
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            let mut pairs = expected.iter().zip(actual);
            pairs.try_for_each(|(expected, actual)| same(expected, actual, started))
        }
        _ if expected == actual => Ok(()),
        _ => Err(format!("{actual}, not {expected}")),
    }
}

/// An open message stream. Dropping it closes the connection.
pub struct Stream {
    messages: mpsc::Receiver<Value>,
    reader: tokio::task::JoinHandle<()>,
    started: i64,
}

impl Stream {
    /// The next message.
    pub async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(DEADLINE, self.messages.recv()).await;
        next.expect("a message before the deadline").expect("an open stream")
    }

    /// Asserts that the next message is an `execute` of this task. Returns when it arrived.
    pub async fn executes(&mut self, id: &str, version: i64) -> Instant {
        let expected = execute(id, version);
        let message = self.next().await;
        same(&expected, &message, self.started).unwrap_or_else(|at| panic!("{at}: {message}"));
        Instant::now()
    }

    /// Asserts that the next message is an `unblock` with this promise.
    pub async fn unblocks(&mut self, promise: Value) {
        let expected = json!({"kind": "unblock", "head": {}, "data": {"promise": promise}});
        let message = self.next().await;
        same(&expected, &message, self.started).unwrap_or_else(|at| panic!("{at}: {message}"));
    }

    /// A message that has arrived already.
    pub fn waiting(&mut self) -> Option<Value> {
        self.messages.try_recv().ok()
    }

    /// Waits until the server ends the stream.
    pub async fn ended(mut self) {
        let end = tokio::time::timeout(DEADLINE, self.messages.recv()).await;
        assert_eq!(end.expect("the end of the stream"), None);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

pub fn execute(id: &str, version: i64) -> Value {
    let task = json!({"id": id, "version": version});
    json!({"kind": "execute", "head": {"serverUrl": ANY}, "data": {"task": task}})
}
