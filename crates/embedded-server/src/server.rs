//! State, connections and clock behind one lock.
//!
//! Under the lock an operation does a few map look-ups and writes its answer's data. The larger part
//! of a request, reading it and writing the envelope, happens outside.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{Router, response::sse::Event};
use futures_util::Stream;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use wire::{
    envelope::{self, AnswerHead},
    operation::TaskRef,
    outcome::{OnePromise, OneTask},
};

use crate::{
    auth::Auth,
    clock::{Clock, millis},
    config::Config,
    core::{Core, Limits, Message},
    delivery::Connections,
    http,
    json::EMPTY,
    request,
};

/// A server without a listener. What it stores lasts as long as the value.
pub struct Server {
    inner: Mutex<Inner>,
    /// Notified when a timer is armed that is due before the one that is waited for.
    earlier: Notify,
    clock: Clock,
    /// This server's URL, as messages name it.
    url: String,
    max_body: usize,
    auth: Option<Auth>,
}

struct Inner {
    core: Core,
    connections: Connections,
    /// The time that [`Server::run_timers`] waits for, in Unix milliseconds.
    awaited: i64,
    closed: bool,
}

/// The messages for one connection.
///
/// It is dropped with the response that it belongs to. That happens when the client is gone, and it
/// is how the server learns of that.
pub(crate) struct Events {
    receiver: mpsc::Receiver<Event>,
    server: Arc<Server>,
    group: String,
    key: u64,
}

impl Server {
    /// A server that stores nothing yet.
    pub fn new(config: &Config) -> Arc<Self> {
        let limits = Limits {
            retry: millis(config.retry_timeout),
            retention: millis(config.retention),
            settled_flows: config.max_settled_flows,
        };
        Arc::new(Self {
            inner: Mutex::new(Inner {
                core: Core::new(limits),
                connections: Connections::new(config.max_connections, config.queue),
                awaited: 0,
                closed: false,
            }),
            earlier: Notify::new(),
            clock: config.clock,
            url: config.url.clone().unwrap_or_default(),
            max_body: config.max_body,
            auth: config.auth.clone(),
        })
    }

    /// Its HTTP interface. It also needs [`Self::run_timers`].
    pub fn routes(self: &Arc<Self>) -> Router {
        http::routes(self.clone(), self.max_body)
    }

    /// Answers the body of a `POST /`, with a status and a body.
    pub(crate) fn handle(&self, body: &[u8]) -> (u16, String) {
        let mut value = Value::Null;
        let request = request::read(body, self.auth.as_ref(), &mut value);
        let reply = request.operation.map(|operation| {
            let mut inner = self.lock();
            // Read under the lock, so that operations see it in their order.
            let (reply, messages) = inner.core.apply(self.clock.now(), operation);
            self.send(&mut inner, messages);
            reply
        });
        let reply = reply.unwrap_or_else(|refusal| refusal);
        let head = AnswerHead::new(request.corr_id, reply.status);
        (reply.status, envelope::to_text(&request.kind, head, &reply.data))
    }

    /// Whether a message stream may be opened with this token.
    pub(crate) fn accepts(&self, token: Option<&str>) -> bool {
        self.auth.as_ref().is_none_or(|auth| auth.accepts(token))
    }

    /// Opens a message stream. `None`: there are too many, or the server is stopping.
    pub(crate) fn connect(self: &Arc<Self>, group: String, id: &str) -> Option<Events> {
        let mut inner = self.lock();
        if inner.closed {
            return None;
        }
        let (key, receiver) = inner.connections.add(&group, id)?;
        let messages = inner.core.unanswered(None);
        self.send(&mut inner, messages);
        Some(Events { receiver, server: self.clone(), group, key })
    }

    fn disconnect(&self, group: &str, key: u64) {
        let mut inner = self.lock();
        inner.connections.remove(group, key);
        if !inner.closed {
            // Whether the client read these or not, it did not acquire them, and will not any more.
            let messages = inner.core.unanswered(Some(key));
            self.send(&mut inner, messages);
        }
    }

    /// Ends all message streams, and opens no more.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.connections.clear();
    }

    /// Runs timers when they are due. It never returns.
    pub async fn run_timers(&self) {
        loop {
            let sleep = {
                let mut inner = self.lock();
                let now = self.clock.now();
                let messages = inner.core.tick(now);
                inner.awaited = i64::MIN; // This task is awake and needs no notification.
                self.send(&mut inner, messages);
                let due = inner.core.next_due().unwrap_or(i64::MAX);
                inner.awaited = due;
                self.clock.sleep(now, due)
            };
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    fn send(&self, inner: &mut Inner, messages: Vec<Message>) {
        for message in messages {
            match message {
                Message::Execute { id, version, address } => {
                    let event = self.execute_event(&id, version);
                    let connection = inner.connections.send(&address, &event);
                    inner.core.announced(&id, connection);
                }
                Message::Unblock { promise, address } => {
                    let data = OnePromise { promise: &*promise };
                    let event = Event::default().data(envelope::to_text("unblock", &*EMPTY, &data));
                    inner.connections.send(&address, &event);
                }
            }
        }
        if inner.core.next_due().is_some_and(|due| due < inner.awaited) {
            self.earlier.notify_one();
        }
    }

    fn execute_event(&self, id: &str, version: i64) -> Event {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Head<'a> {
            server_url: &'a str,
        }
        let task = TaskRef { id: id.into(), version };
        let head = Head { server_url: &self.url };
        Event::default().data(envelope::to_text("execute", head, &OneTask { task }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic is a bug in one operation, and the others can go on.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|event| event.map(Ok))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.server.disconnect(&self.group, self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
    use std::task::{Context, Wake};
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn create(server: &Server, id: &str, timeout_at: i64) {
        let head = r#""head":{"corrId":"c","version":"2026-04-01"}"#;
        let data = format!(r#"{{"id":"{id}","timeoutAt":{timeout_at}}}"#);
        let body = format!(r#"{{"kind":"promise.create",{head},"data":{data}}}"#);
        assert_eq!(server.handle(body.as_bytes()).0, 200);
    }

    #[tokio::test]
    async fn timers_sleep_until_one_is_due_or_an_earlier_one_is_armed() {
        let server = Server::new(&Config::default());
        create(&server, "later", i64::MAX - 1);
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let mut timers = pin!(server.run_timers());
        let mut poll = || timers.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        assert!(poll());
        let woken = || wakes.0.swap(0, Ordering::Relaxed);
        assert_eq!(woken(), 0, "an armed timer is slept for, not spun on");
        create(&server, "even-later", i64::MAX);
        assert_eq!(woken(), 0);
        create(&server, "sooner", i64::MAX - 2);
        assert_eq!(woken(), 1);
        assert!(poll());
        assert_eq!(woken(), 0);
    }

    /// A laptop was suspended, which tokio's time does not see.
    #[tokio::test(start_paused = true)]
    async fn timers_follow_a_clock_that_jumps() {
        let unix: &AtomicI64 = Box::leak(Box::new(AtomicI64::new(1_000)));
        let clock = Clock::set_by(unix);
        let server = Server::new(&Config { clock, ..Config::default() });
        create(&server, "x", 3_600_000);
        let timers = server.clone();
        tokio::spawn(async move { timers.run_timers().await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        let is_pending = || {
            let head = r#""head":{"corrId":"c","version":"2026-04-01"}"#;
            let search = format!(r#"{{"kind":"promise.get",{head},"data":{{"id":"x"}}}}"#);
            server.handle(search.as_bytes()).1.contains("pending")
        };
        assert!(is_pending());
        unix.store(3_600_001, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(2)).await;
        // A request would time it out as well.
        unix.store(1_000, Ordering::Relaxed);
        assert!(!is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_of_retries_passes_in_virtual_time() {
        let hour = Duration::from_secs(3_600);
        let clock = Clock::starting_at(hour);
        let server = Server::new(&Config { retry_timeout: hour, clock, ..Config::default() });
        let mut events = server.connect("g".to_owned(), "i").unwrap();
        let timers = server.clone();
        tokio::spawn(async move { timers.run_timers().await });
        let head = r#""head":{"corrId":"c","version":"2026-04-01"}"#;
        let tags = r#"{"resonate:target":"poll://any@g"}"#;
        let timeout_at = millis(hour * 25);
        let data = format!(r#"{{"id":"x","timeoutAt":{timeout_at},"tags":{tags}}}"#);
        let body = format!(r#"{{"kind":"promise.create",{head},"data":{data}}}"#);
        assert_eq!(server.handle(body.as_bytes()).0, 200);
        tokio::time::sleep(hour * 30).await;
        server.close();
        let mut announced = 0;
        while events.receiver.recv().await.is_some() {
            announced += 1;
        }
        assert_eq!(announced, 24, "once, and again every hour until it times out after 24");
    }
}
