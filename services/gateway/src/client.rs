//! The gateway's requests to the Resonate Server, and what the promises it answers with say.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flows::{Flow, Options};
use node::server::Holder;
use serde::Serialize;
use serde_json::Value;
use wire::{
    Address, Answer, AnswerBody, Exchange, ExchangeError, Pairs, Promise, PromiseState,
    PromiseValue, Request, Task, TaskState, call,
    operation::{Get, PromiseCreate, PromiseSettle, RegisterListener, SettleState},
    tag,
};

/// A header of each flow's first promise that tells who created it: the server gives the same
/// answer whether it created a promise or found it.
const CREATOR: &str = "async-rpc-creator";

/// The error of a promise that was canceled.
const CANCELED: &str = "canceled";

/// Why a request to the Resonate Server has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no answer.
    #[error(transparent)]
    NoAnswer(#[from] ExchangeError),
    /// The server refused the request.
    #[error("the Resonate Server refused {kind} with status {status}: {reason}")]
    Refused { kind: &'static str, status: u16, reason: String },
}

/// What [`Client::create`] found or created.
pub struct Created {
    /// The flow's first promise.
    pub promise: Promise<'static>,
    /// It was there already.
    pub reconnected: bool,
}

/// A run of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub version: i64,
    /// The process.
    pub holder: Holder,
}

/// A client of the Resonate Server. Clones share the connection.
#[derive(Clone)]
pub struct Client(Arc<dyn Exchange>);

impl Client {
    /// A client that sends its requests through `exchange`.
    pub fn new(exchange: Arc<dyn Exchange>) -> Self {
        Self(exchange)
    }

    /// Creates the first promise of the flow `id`, or finds it.
    ///
    /// # Errors
    /// The server is unreachable or refuses.
    pub async fn create(
        &self,
        flow: &Flow,
        id: &str,
        options: &Options,
        timeout: Duration,
    ) -> Result<Created, Error> {
        let creator = uuid::Uuid::new_v4().simple().to_string();
        let target = flow.target(options);
        let create = PromiseCreate {
            id: id.into(),
            timeout_at: milliseconds(SystemTime::now() + timeout),
            param: PromiseValue {
                headers: Some(Pairs::from_iter([(CREATOR, creator.as_str())])),
                data: Some(call::encode(flow.first().name, &flow.arguments(options)).into()),
            },
            tags: tags(id, &target),
        };
        let promise = self.create_promise(&create).await?;
        let reconnected = promise.param.header(CREATOR) != Some(&creator);
        Ok(Created { promise, reconnected })
    }

    /// Calls `function` without arguments at `address`: the promise `id` is no part of a flow.
    ///
    /// # Errors
    /// The server is unreachable or refuses.
    pub async fn call(
        &self,
        id: &str,
        function: &str,
        address: &Address,
        timeout: Duration,
    ) -> Result<(), Error> {
        let target = address.to_string();
        let create = PromiseCreate {
            id: id.into(),
            timeout_at: milliseconds(SystemTime::now() + timeout),
            param: PromiseValue {
                headers: None,
                data: Some(call::encode(function, &Value::Null).into()),
            },
            tags: tags(id, &target),
        };
        self.create_promise(&create).await.map(drop)
    }

    async fn create_promise(&self, create: &PromiseCreate<'_>) -> Result<Promise<'static>, Error> {
        promise(self.send("promise.create", create).await?)
    }

    /// Cancels the promise `id`. Returns it as it is then: one that was settled before stays as it
    /// was. None: there is no such promise.
    ///
    /// # Errors
    /// The server is unreachable or refuses.
    pub async fn cancel(&self, id: &str) -> Result<Option<Promise<'static>>, Error> {
        let data = Some(call::encode_error(CANCELED).into());
        let settle = PromiseSettle {
            id: id.into(),
            state: SettleState::RejectedCanceled,
            value: PromiseValue { headers: None, data },
        };
        match self.send("promise.settle", &settle).await {
            Ok(answer) => promise(answer).map(Some),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The promise `id`, if there is one.
    ///
    /// # Errors
    /// The server is unreachable or refuses.
    pub async fn get(&self, id: &str) -> Result<Option<Promise<'static>>, Error> {
        match self.send("promise.get", &Get { id: id.into() }).await {
            Ok(answer) => promise(answer).map(Some),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The run of the task `id` now, if a process holds it.
    ///
    /// # Errors
    /// The server is unreachable or refuses.
    pub async fn run(&self, id: &str) -> Result<Option<Run>, Error> {
        let run = self.task(id, |task| {
            let pid = task.pid.as_deref().filter(|_| task.state == TaskState::Acquired);
            pid.map(|pid| Run { version: task.version, holder: Holder::of(pid) })
        });
        Ok(run.await?.flatten())
    }

    /// What `read` makes of the task `id`, if there is one.
    ///
    /// # Errors
    /// The server is unreachable or refuses.
    pub async fn task<T>(
        &self,
        id: &str,
        read: impl FnOnce(&Task) -> T,
    ) -> Result<Option<T>, Error> {
        match self.send("task.get", &Get { id: id.into() }).await {
            Ok(answer) => Ok(match answer.body() {
                AnswerBody::Task(task) => Some(read(task)),
                _ => None,
            }),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the server to send a message to `address` when the promise `id` is settled. Returns
    /// the promise as it is now.
    ///
    /// # Errors
    /// The server is unreachable or refuses.
    pub async fn listen(&self, id: &str, address: &Address) -> Result<Promise<'static>, Error> {
        let address = address.to_string().into();
        let listener = RegisterListener { awaited: id.into(), address };
        promise(self.send("promise.register_listener", &listener).await?)
    }

    async fn send(&self, kind: &'static str, data: &impl Serialize) -> Result<Answer, Error> {
        let answer = self.0.exchange(Request::new(kind, data)).await?;
        match answer.status() {
            status @ 400.. => {
                Err(Error::Refused { kind, status, reason: answer.reason().to_owned() })
            }
            _ => Ok(answer),
        }
    }
}

/// The tags of a promise that no function creates.
fn tags<'a>(id: &'a str, target: &'a str) -> Pairs<'a> {
    Pairs::from_iter([
        (tag::ORIGIN, id),
        (tag::BRANCH, id),
        (tag::PARENT, id),
        (tag::SCOPE, "global"),
        (tag::TARGET, target),
    ])
}

fn promise(answer: Answer) -> Result<Promise<'static>, Error> {
    let promise = answer.promise().cloned().map(Promise::into_owned);
    // The parser accepts answers to these kinds only with a promise in them.
    promise.ok_or_else(|| Error::Refused {
        kind: "promise",
        status: answer.status(),
        reason: "the answer has no promise".to_owned(),
    })
}

/// The flow that starts with this promise, and its options. None: the promise starts no flow.
pub fn flow_of(promise: &Promise) -> Option<(&'static Flow, Options)> {
    let call::Call { func, args } =
        call::decode_value::<call::Call<Value>>(promise.param.data()).ok()?;
    Flow::recognize(&func, &args)
}

/// The value of a settled promise.
pub fn value_of(promise: &Promise) -> Value {
    call::decode_value(promise.value.data()).unwrap_or_default()
}

/// The message of a rejected promise, as its function wrote it.
pub fn error_of(promise: &Promise) -> String {
    match promise.error() {
        Some(message) => node::errors::message(&message).to_owned(),
        None if promise.state == PromiseState::RejectedTimedout => "timed out".to_owned(),
        None => value_of(promise).to_string(),
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wire::scripted::{Reply, Scripted};

    use super::*;

    fn client(script: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> Client {
        Client::new(Arc::new(Scripted::new(script)))
    }

    /// The server's answer about the promise that `data` creates.
    fn created(data: &Value) -> Value {
        let mut promise = data.clone();
        promise["state"] = "pending".into();
        promise["createdAt"] = 1.into();
        json!({"promise": promise})
    }

    #[tokio::test]
    async fn a_flow_is_created_once_and_found_after_that() {
        let mut first: Option<Value> = None;
        let client = client(move |kind, data| {
            assert_eq!(kind, "promise.create");
            assert_eq!(data["tags"]["resonate:target"], "poll://any@service-a");
            Reply::Answer(200, created(first.get_or_insert_with(|| data.clone())))
        });
        let flow = Flow::by_name("await-chain").unwrap();
        let options = Options { fail: Some(1), ..Options::default() };
        for reconnected in [false, true] {
            let created = client.create(flow, "x", &options, Duration::from_secs(1)).await.unwrap();
            assert_eq!(created.reconnected, reconnected);
            assert_eq!(flow_of(&created.promise), Some((flow, options)));
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_none_and_other_refusals_are_errors() {
        let missing = client(|_, _| Reply::Answer(404, json!("not found")));
        assert!(missing.get("x").await.unwrap().is_none());
        assert!(missing.run("x").await.unwrap().is_none());
        let refusing = client(|_, _| Reply::Answer(400, json!("no")));
        let error = refusing.get("x").await.unwrap_err().to_string();
        assert_eq!(error, "the Resonate Server refused promise.get with status 400: no");
        let error = client(|_, _| Reply::Lost).run("x").await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer(_)), "{error}");
    }

    #[tokio::test]
    async fn only_a_task_that_is_held_has_a_holder() {
        for (state, holder) in
            [("acquired", Some("service-b")), ("pending", None), ("suspended", None)]
        {
            let task = json!({"id": "x", "state": state, "version": 1, "pid": "service-b#1"});
            let client = client(move |_, _| Reply::Answer(200, json!({"task": task})));
            let found = client.run("x").await.unwrap().map(|run| run.holder.instance);
            assert_eq!(found.as_deref(), holder, "{state}");
        }
    }

    #[test]
    fn an_error_is_told_as_its_function_wrote_it() {
        let rejected = |state: PromiseState, data: String| Promise {
            id: "x".into(),
            state,
            param: PromiseValue::default(),
            value: PromiseValue { headers: None, data: Some(data.into()) },
            tags: Pairs::default(),
            timeout_at: 1,
            created_at: 0,
            settled_at: Some(1),
        };
        let message = call::encode_error("application error: application error: no");
        assert_eq!(error_of(&rejected(PromiseState::Rejected, message)), "no");
        assert_eq!(error_of(&rejected(PromiseState::RejectedTimedout, String::new())), "timed out");
    }
}
