//! A client of the Resonate Server that remembers nothing of a flow once nobody waits for it.
//!
//! The SDK's own handle keeps every awaited id for as long as the process lives.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use node::{Options, transport::Transport as NodeTransport};
use resonate_sdk::{
    error::Error,
    prelude::{Network, PromiseState, Transport},
    send::Sender,
    transport::Message,
    types::{PromiseCreateReq, PromiseRecord, TaskRecord, TaskState, Value},
};
use serde::Deserialize;
use tokio::sync::watch;

use crate::{flow::Flow, problem::Problem};

/// In the headers of a flow's promise: tells who created it, for the server answers the same
/// whether a promise was created or found.
const CREATOR: &str = "async-rpc-creator";

/// After a listener could not be registered.
const REGISTER_AGAIN: Duration = Duration::from_millis(200);

/// The server sends each message once and drops what a full connection cannot take: whoever waits
/// longer than this asks again.
const REFRESH: Duration = Duration::from_secs(5);

/// How many listeners are registered at the same time after a reconnect.
const REGISTER_AT_ONCE: usize = 16;

type Waiters = HashMap<String, watch::Sender<Option<PromiseRecord>>>;

/// What [`Client::create`] found or made.
pub struct Created {
    /// The flow's first promise.
    pub promise: PromiseRecord,
    /// It was there already.
    pub reconnected: bool,
}

/// The client; clones share everything.
#[derive(Clone)]
pub struct Client {
    sender: Sender,
    /// Where the server sends what this process waits for; none until it is connected.
    address: watch::Receiver<Option<String>>,
    waiters: Arc<Mutex<Waiters>>,
}

impl Client {
    /// A client on the transport of this process, which is not connected yet, and on the network
    /// that wraps it.
    pub fn new(transport: &NodeTransport, network: Arc<dyn Network>) -> Self {
        let group = transport.group().to_owned();
        let messages = Transport::new(network);
        let (connected, address) = watch::channel(None);
        let client =
            Self { sender: Sender::new(messages.clone(), None), address, waiters: Arc::default() };
        let unblock = client.clone();
        messages.recv(Box::new(move |message| {
            let Message::Unblock(unblocked) = message else { return };
            match PromiseRecord::deserialize(unblocked.promise()) {
                Ok(promise) => unblock.settled(promise),
                Err(error) => tracing::warn!(%error, "a message of the server cannot be read"),
            }
        }));
        let reconnect = client.clone();
        transport.on_connect(move |id| {
            connected.send_replace(Some(format!("poll://uni@{group}/{id}")));
            tokio::spawn(reconnect.clone().register_all());
        });
        client
    }

    /// Starts `flow` under `id`, or finds it.
    ///
    /// # Errors
    /// [`Problem::Unavailable`]; [`Problem::Conflict`] if the id is that of another flow, or the
    /// flow began with another option than one that is set here.
    pub async fn create(
        &self,
        flow: Flow,
        id: &str,
        options: Options,
        timeout: Duration,
    ) -> Result<Created, Problem> {
        let creator = uuid::Uuid::new_v4().simple().to_string();
        let call = serde_json::json!({"func": flow.function(), "args": flow.arguments(&options)});
        let target = flow.target(&options);
        let tags = [
            ("origin", id),
            ("branch", id),
            ("parent", id),
            ("scope", "global"),
            ("target", &target),
        ];
        let request = PromiseCreateReq {
            id: id.to_owned(),
            timeout_at: milliseconds(SystemTime::now() + timeout),
            param: Value {
                headers: Some(HashMap::from([(CREATOR.to_owned(), creator.clone())])),
                data: Some(BASE64_STANDARD.encode(call.to_string()).into()),
            },
            tags: tags.map(|(name, value)| (format!("resonate:{name}"), value.to_owned())).into(),
        };
        let promise = self.sender.promise_create(request).await.map_err(problem)?;
        let found = promise.param.headers.as_ref().and_then(|headers| headers.get(CREATOR));
        let reconnected = found != Some(&creator);
        if reconnected {
            check_same(flow, id, &options, &promise)?;
        }
        Ok(Created { promise, reconnected })
    }

    /// Waits until the promise `id` is settled. Dropping the future ends the wait, and leaves
    /// nothing behind.
    pub async fn settlement(&self, id: &str) -> PromiseRecord {
        let mut wait = Wait::new(self.waiters.clone(), id);
        let register = async {
            loop {
                let pause = match self.register(id).await {
                    Ok(()) => REFRESH,
                    Err(error) => {
                        tracing::debug!(%error, promise = id, "listener will be registered again");
                        REGISTER_AGAIN
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            promise = wait.settled() => promise,
            never = register => never,
        }
    }

    /// The promise `id`, if it is there.
    ///
    /// # Errors
    /// [`Problem::Unavailable`].
    pub async fn promise(&self, id: &str) -> Result<Option<PromiseRecord>, Problem> {
        match self.sender.promise_get(id).await {
            Ok(promise) => Ok(Some(promise)),
            Err(Error::ServerError { code: 404, .. }) => Ok(None),
            Err(error) => Err(problem(error)),
        }
    }

    /// The instance that runs the task `id` at this moment, if one does.
    ///
    /// # Errors
    /// [`Problem::Unavailable`].
    pub async fn holder(&self, id: &str) -> Result<Option<String>, Problem> {
        match self.sender.task_get(id).await {
            Ok(TaskRecord { state: TaskState::Acquired, pid, .. }) => Ok(pid),
            Ok(_) | Err(Error::ServerError { code: 404, .. }) => Ok(None),
            Err(error) => Err(problem(error)),
        }
    }

    /// Asks the server to tell this process of the end of `id`; an end that is past is told here.
    async fn register(&self, id: &str) -> Result<(), Error> {
        let mut address = self.address.clone();
        let address = address.wait_for(Option::is_some).await.map(|address| address.clone());
        let Ok(Some(address)) = address else {
            return Err(Error::NetworkError("the transport has ended".to_owned()));
        };
        let promise = self.sender.promise_register_listener(id, &address).await?;
        if promise.state != PromiseState::Pending {
            self.settled(promise);
        }
        Ok(())
    }

    /// A new connection has a new address: everything that is waited for is asked for again.
    async fn register_all(self) {
        let ids: Vec<String> = self.waiters().keys().cloned().collect();
        let register = |id: String| {
            let client = &self;
            async move {
                if let Err(error) = client.register(&id).await {
                    tracing::warn!(%error, promise = id, "listener could not be registered again");
                }
            }
        };
        futures_util::stream::iter(ids).for_each_concurrent(REGISTER_AT_ONCE, register).await;
    }

    fn settled(&self, promise: PromiseRecord) {
        if let Some(waiter) = self.waiters().get(&promise.id) {
            waiter.send_replace(Some(promise));
        }
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Waiters> {
        self.waiters.lock().expect("no holder of this lock panics")
    }
}

/// One waiter for a promise; the last one that goes takes the entry along.
struct Wait {
    waiters: Arc<Mutex<Waiters>>,
    id: String,
    settled: Option<watch::Receiver<Option<PromiseRecord>>>,
}

impl Wait {
    fn new(waiters: Arc<Mutex<Waiters>>, id: &str) -> Self {
        let settled = {
            let mut waiters = waiters.lock().expect("no holder of this lock panics");
            waiters.entry(id.to_owned()).or_insert_with(|| watch::channel(None).0).subscribe()
        };
        Self { waiters, id: id.to_owned(), settled: Some(settled) }
    }

    async fn settled(&mut self) -> PromiseRecord {
        if let Some(settled) = &mut self.settled
            && let Ok(promise) = settled.wait_for(Option::is_some).await
            && let Some(promise) = &*promise
        {
            return promise.clone();
        }
        // The entry, and with it the sender, stays for as long as this receiver is here.
        std::future::pending().await
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waiters = self.waiters.lock().expect("no holder of this lock panics");
        self.settled = None;
        if waiters.get(&self.id).is_some_and(|waiter| waiter.receiver_count() == 0) {
            waiters.remove(&self.id);
        }
    }
}

/// The call that a flow's first promise stands for.
pub fn call_of(promise: &PromiseRecord) -> Option<(Flow, Options)> {
    #[derive(Deserialize)]
    struct Call {
        func: String,
        #[serde(default)]
        args: serde_json::Value,
    }
    let Call { func, args } = decode(&promise.param)?;
    Flow::recognize(&func, &args)
}

/// The id of the trace that the flow of this promise is in.
pub fn trace_of(promise: &PromiseRecord) -> Option<String> {
    promise.param.headers.as_ref().and_then(resonate_otel::trace_id)
}

/// The value of a settled promise.
pub fn value_of(promise: &PromiseRecord) -> serde_json::Value {
    decode(&promise.value).unwrap_or_default()
}

/// The message of a rejected promise, as its function gave it.
pub fn error_of(promise: &PromiseRecord) -> String {
    let value = value_of(promise);
    match value["message"].as_str() {
        Some(message) => node::errors::message(message).to_owned(),
        None if promise.state == PromiseState::RejectedTimedout => "timed out".to_owned(),
        None => value.to_string(),
    }
}

fn decode<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    let bytes = BASE64_STANDARD.decode(value.data_as_ref().as_str()?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn check_same(
    flow: Flow,
    id: &str,
    asked: &Options,
    promise: &PromiseRecord,
) -> Result<(), Problem> {
    let conflict = |detail: String| Problem::Conflict { id: id.to_owned(), detail };
    let began = match call_of(promise) {
        Some((known, began)) if known == flow => began,
        Some((known, _)) => {
            return Err(conflict(format!(
                "{id} is the id of a {}, not of a {}",
                known.name(),
                flow.name()
            )));
        }
        None => {
            return Err(conflict(format!(
                "{id} is the id of something that this gateway did not start"
            )));
        }
    };
    let text = |span: Option<Duration>| span.map(node::duration::format);
    let number = |n: Option<u32>| n.map(|n| n.to_string());
    for (name, asked, began) in [
        ("work", text(asked.work), text(began.work)),
        ("sleep", text(asked.sleep), text(began.sleep)),
        ("fail", number(asked.fail), number(began.fail)),
    ] {
        if let Some(asked) = asked
            && Some(&asked) != began.as_ref()
        {
            let began =
                began.map_or("without it".to_owned(), |began| format!("with {name}={began}"));
            return Err(conflict(format!(
                "{id} was started {began}: {name}={asked} needs another id"
            )));
        }
    }
    Ok(())
}

fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

fn problem(error: Error) -> Problem {
    match error {
        Error::NetworkError(text) => Problem::Unavailable(text),
        Error::ServerError { code: 500.., message } => Problem::Unavailable(message),
        error => Problem::Internal(error.to_string()),
    }
}
