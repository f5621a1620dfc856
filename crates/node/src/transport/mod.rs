//! How a process talks to the Resonate Server: the SDK's [`Network`] over HTTP, made to last.
//!
//! What it adds to the SDK's own: time-outs, repeats for as long as a lease lasts and the right
//! reading of what a repeat is answered, a message stream that comes back at once, an end for
//! tasks that no process can run, and a drain.

mod http;
mod inbox;
mod poison;
mod runs;
mod stream;
mod wire;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use resonate_sdk::{
    error::{Error, Result},
    prelude::Network,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use self::{
    http::Http,
    inbox::{Callback, Inbox},
    wire::Request,
};
pub use self::{
    http::Unreachable,
    runs::{Refusal, Runs},
    stream::ConnectionId,
};
use crate::config::Config;

/// The connection of one process to the Resonate Server.
pub struct Transport {
    http: Http,
    config: Config,
    group: String,
    connection_id: ConnectionId,
    unicast: String,
    anycast: String,
    /// The functions that this process can run.
    functions: Vec<&'static str>,
    runs: Arc<Runs>,
    up: Arc<watch::Sender<bool>>,
    stream: Mutex<Option<tokio::task::JoinHandle<()>>>,
    inbox: Arc<Inbox>,
    draining: AtomicBool,
    /// How often in a row a task was given up here. Cleared of a task when it does well.
    given_up: Mutex<HashMap<String, u32>>,
}

impl Transport {
    /// A transport for a process of `group` that can run `functions`; its message stream is
    /// opened by [`Self::connect`].
    pub fn new(
        config: &Config,
        group: &str,
        connection_id: ConnectionId,
        functions: Vec<&'static str>,
    ) -> Self {
        let instance = &config.instance;
        Self {
            http: Http::new(config),
            group: group.to_owned(),
            connection_id,
            unicast: format!("poll://uni@{group}/{instance}"),
            anycast: format!("poll://any@{group}/{instance}"),
            functions,
            runs: Arc::default(),
            up: Arc::new(watch::Sender::new(false)),
            stream: Mutex::default(),
            inbox: Arc::default(),
            draining: AtomicBool::new(false),
            given_up: Mutex::default(),
            config: config.clone(),
        }
    }

    /// The runs that this process holds.
    pub fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// Whether the message stream is up, now and whenever that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Calls `connected` with the id of each connection as soon as it stands.
    pub fn on_connect(&self, connected: impl Fn(String) + Send + Sync + 'static) {
        assert!(self.inbox.connected.set(Box::new(connected)).is_ok(), "one listener is enough");
    }

    /// Opens the message stream, and opens it again for as long as this process lives.
    pub fn connect(&self) {
        let stream = stream::run(
            self.http.clone(),
            self.group.clone(),
            self.connection_id.clone(),
            self.up.clone(),
            self.inbox.clone(),
        );
        *self.stream.lock().expect("no holder of this lock panics") = Some(tokio::spawn(stream));
    }

    /// Takes no more work, lets each running step end, and waits until every run has ended or
    /// been given back. What is still held after `NODE_DRAIN` is released in the middle of a step.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.close_stream();
        if tokio::time::timeout(self.config.drain, self.runs.wait_for_end()).await.is_ok() {
            return;
        }
        for (id, version) in self.runs.all() {
            tracing::warn!(
                promise = id,
                version,
                "still running at the end of the drain: released, its step will run again"
            );
            self.runs.refuse(&id, version, Refusal::Fenced);
            let body = wire::request("task.release", json!({"id": id, "version": version}));
            // One attempt: the process is about to end, and the lease ends without it as well.
            if let Err(error) = self.http.call(body, Instant::now).await {
                tracing::warn!(promise = id, %error, "could not be released, its lease will expire");
            }
        }
    }

    fn close_stream(&self) {
        if let Some(stream) = self.stream.lock().expect("no holder of this lock panics").take() {
            stream.abort();
        }
        self.up.send_replace(false);
    }

    /// A request that belongs to no run: repeated for as long as a lease would last.
    async fn call_patiently(&self, body: String) -> std::result::Result<http::Answer, Unreachable> {
        let deadline = Instant::now() + self.config.lease;
        self.http.call(body, || deadline).await
    }

    async fn acquire(&self, request: &Request<'_>, body: &str) -> Result<String> {
        let task: wire::Task = serde_json::from_str(request.data.get())?;
        // The SDK heartbeats by task id: two runs of a task in one process would end each other's.
        self.runs.wait_for_end_of(&task.id).await;
        let sent = Instant::now();
        let answer = self.call_patiently(body.to_owned()).await.map_err(unreachable)?;
        if answer.status != 200 {
            if answer.status == 409 && answer.repeated {
                self.release_if_ours(&task).await;
            }
            return Ok(answer.body);
        }
        let acquired: wire::Acquired = serde_json::from_str(&answer.body)?;
        let wire::AcquiredData { task: held, promise } = acquired.data;
        let function = match promise.param.function() {
            Ok(function) => function,
            Err(error) => {
                return Err(self
                    .reject(
                        &held,
                        &format!("the parameter of this promise is no function call: {error}"),
                    )
                    .await);
            }
        };
        if !self.functions.contains(&function.as_str()) {
            return Err(self.give_up_unknown(&held, &function).await);
        }
        self.runs.begin(&held.id, held.version, sent, Duration::from_millis(task.ttl));
        Ok(answer.body)
    }

    /// After a repeated acquire was refused: if it was our first attempt that took the task, the
    /// preload of its answer is lost, so give the task back at once rather than by its lease.
    async fn release_if_ours(&self, asked: &wire::Task<'_>) {
        let id = &asked.id;
        let version = asked.version + 1;
        let get = wire::request("task.get", json!({"id": id}));
        let ours = match self.call_patiently(get).await {
            Ok(answer) => serde_json::from_str::<wire::TaskAnswer>(&answer.body).is_ok_and(|got| {
                got.data.task.version == version
                    && got.data.task.pid.as_ref() == Some(&self.config.instance)
            }),
            Err(_) => false,
        };
        if ours {
            tracing::info!(promise = %id, version, "acquired by a request whose answer was lost: released");
            self.send_release(id, version).await;
        }
    }

    async fn send_release(&self, id: &str, version: i64) {
        let body = wire::request("task.release", json!({"id": id, "version": version}));
        if let Err(error) = self.call_patiently(body).await {
            tracing::warn!(promise = id, version, %error, "could not be released, its lease will expire");
        }
    }

    async fn fence(&self, request: &Request<'_>, body: &str) -> Result<String> {
        let task: wire::Task = serde_json::from_str(request.data.get())?;
        let (id, version) = (&*task.id, task.version);
        let creates = task.action.as_ref().is_some_and(|action| action.kind == "promise.create");
        if creates && self.draining.load(Ordering::Relaxed) {
            self.runs.refuse(id, version, Refusal::Draining);
        }
        // Only a function that is itself a child has another id than its flow.
        let rewritten =
            (creates && id.contains('.')).then(|| wire::with_true_origin(body)).flatten();
        let body = rewritten.unwrap_or_else(|| body.to_owned());
        let answer = self.call_in_run(id, version, body).await?;
        if answer.status == 409 {
            self.lose(id, version, Refusal::Fenced);
        }
        Ok(answer.body)
    }

    /// `task.suspend` and `task.fulfill`: what ends a run, or (300) lets it go on.
    async fn finish(&self, request: &Request<'_>, body: &str) -> Result<String> {
        let task: wire::Task = serde_json::from_str(request.data.get())?;
        let (id, version) = (&*task.id, task.version);
        let answer = self.call_in_run(id, version, body.to_owned()).await?;
        match answer.status {
            200 => {
                self.runs.end(id, version);
                self.forget_given_up(id);
            }
            // A repeat, and refused: it was our first attempt, or somebody else's run, that ended
            // this one. It is over either way, and the SDK has nothing to release.
            409 if answer.repeated => {
                self.runs.end(id, version);
                return self.answer_for_ended(request, id).await;
            }
            409 => self.lose(id, version, Refusal::Fenced),
            _ => {}
        }
        Ok(answer.body)
    }

    async fn answer_for_ended(&self, request: &Request<'_>, id: &str) -> Result<String> {
        if request.kind == "task.suspend" {
            return Ok(wire::answer(request, 200, json!({})));
        }
        let get = wire::request("promise.get", json!({"id": id}));
        let answer = self.call_patiently(get).await.map_err(unreachable)?;
        let answer: Value = serde_json::from_str(&answer.body)?;
        Ok(wire::answer(request, 200, answer["data"].clone()))
    }

    async fn call_in_run(&self, id: &str, version: i64, body: String) -> Result<http::Answer> {
        self.runs.check(id, version).map_err(refused)?;
        match self.http.call(body, || self.runs.lease_end(id, version)).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.lose(id, version, Refusal::Unreachable);
                Err(unreachable(error))
            }
        }
    }

    fn lose(&self, id: &str, version: i64, why: Refusal) {
        if self.runs.check(id, version).is_err() {
            return;
        }
        tracing::warn!(promise = id, version, reason = %why, "run given up");
        self.runs.refuse(id, version, why);
        if why == Refusal::Unreachable {
            self.inbox
                .orphans
                .lock()
                .expect("no holder of this lock panics")
                .push((id.to_owned(), version));
        }
    }

    /// The SDK releases a task when its run ended in neither a result nor a suspension.
    async fn release(&self, request: &Request<'_>, body: &str) -> Result<String> {
        let task: wire::Task = serde_json::from_str(request.data.get())?;
        let (id, version) = (&*task.id, task.version);
        match self.runs.check(id, version) {
            // Nothing is held any more.
            Err(refusal @ (Refusal::Fenced | Refusal::Unreachable)) => {
                self.runs.end(id, version);
                return Ok(wire::answer(request, 409, json!(refusal.to_string())));
            }
            Err(Refusal::Draining) => {
                tracing::info!(promise = id, version, "released for another process of the group");
                self.send_release(id, version).await;
            }
            Ok(()) => {
                tokio::time::sleep(self.pause_before_release(self.count_given_up(id))).await;
                let released = self.call_in_run(id, version, body.to_owned()).await;
                self.runs.end(id, version);
                return released.map(|answer| answer.body);
            }
        }
        self.runs.end(id, version);
        Ok(wire::answer(request, 200, json!({})))
    }

    /// One request for each flow: servers newer than v0.9.8 refuse to mix them.
    async fn heartbeat(&self, request: &Request<'_>) -> Result<String> {
        let heartbeat: wire::Heartbeat = serde_json::from_str(request.data.get())?;
        let mut by_origin: HashMap<String, Vec<wire::TaskRef>> = HashMap::new();
        for task in heartbeat.tasks {
            if self.runs.wants_heartbeat(&task.id, task.version) {
                by_origin.entry(wire::origin(&task.id).to_owned()).or_default().push(task);
            }
        }
        let renewals = by_origin.into_values().map(|tasks| self.renew(&heartbeat.pid, tasks));
        futures_util::future::join_all(renewals).await;
        Ok(wire::answer(request, 200, json!({})))
    }

    async fn renew(&self, pid: &str, tasks: Vec<wire::TaskRef>) {
        let body = wire::request("task.heartbeat", json!({"pid": pid, "tasks": tasks}));
        let lease_end =
            || tasks.iter().map(|task| self.runs.lease_end(&task.id, task.version)).max();
        let sent = Instant::now();
        match self.http.call(body, || lease_end().unwrap_or(sent)).await {
            // When the last attempt was sent is not known here; the first is early enough to be safe.
            Ok(answer) if answer.status == 200 => {
                for task in &tasks {
                    self.runs.renew(&task.id, task.version, sent);
                }
            }
            Ok(answer) => {
                tracing::warn!(status = answer.status, answer = answer.body, "heartbeat refused")
            }
            Err(_) => {
                for task in &tasks {
                    self.lose(&task.id, task.version, Refusal::Unreachable);
                }
            }
        }
    }
}

fn unreachable(error: Unreachable) -> Error {
    Error::NetworkError(error.to_string())
}

fn refused(error: Refusal) -> Error {
    Error::NetworkError(error.to_string())
}

#[async_trait::async_trait]
impl Network for Transport {
    fn pid(&self) -> &str {
        &self.config.instance
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn unicast(&self) -> &str {
        &self.unicast
    }

    fn anycast(&self) -> &str {
        &self.anycast
    }

    /// Does nothing: the SDK starts before its functions are registered, [`Transport::connect`]
    /// comes after that.
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.close_stream();
        Ok(())
    }

    async fn send(&self, body: String) -> Result<String> {
        let request: Request = serde_json::from_str(&body)?;
        match &*request.kind {
            "task.acquire" => self.acquire(&request, &body).await,
            "task.fence" => self.fence(&request, &body).await,
            "task.suspend" | "task.fulfill" => self.finish(&request, &body).await,
            "task.release" => self.release(&request, &body).await,
            "task.heartbeat" => self.heartbeat(&request).await,
            _ => {
                drop(request);
                Ok(self.call_patiently(body).await.map_err(unreachable)?.body)
            }
        }
    }

    fn recv(&self, callback: Callback) {
        assert!(self.inbox.callback.set(callback).is_ok(), "the SDK subscribes once");
    }

    fn target_resolver(&self, target: &str) -> String {
        format!("poll://any@{target}")
    }
}
