//! The state machine and the connections under one lock, with a clock.
//!
//! One lock is enough: what is done under it is a few map look-ups, while parsing and writing JSON
//! envelopes, the larger part of a request, is done outside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::Config;
use crate::core::{Core, Message, Settings};
use crate::delivery::Connections;
use crate::protocol::{self, push_string};

/// Timers are looked at this often even if none is due: the system clock may be set.
const LONGEST_SLEEP: i64 = 1_000;

pub(crate) struct Server {
    inner: Mutex<Inner>,
    /// Woken when a timer is armed that is due before the one waited for.
    earlier: Notify,
    /// JSON text of the address that `execute` messages carry.
    url: String,
}

struct Inner {
    core: Core,
    connections: Connections,
    /// The latest time seen: time does not go back when the system clock does.
    now: i64,
    /// The time that [`Server::run_timers`] waits for.
    awaited: i64,
    closed: bool,
}

/// A connection's end of its queue. Dropped with the response it feeds, that is, when the client is
/// gone; that is how the server learns of it.
pub(crate) struct Events {
    pub(crate) receiver: mpsc::Receiver<Bytes>,
    server: Arc<Server>,
    group: String,
    key: u64,
}

impl Server {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        let settings = Settings {
            retry: millis(config.retry_timeout),
            retention: millis(config.retention),
            settled_flows: config.max_settled_flows,
        };
        let mut url = String::new();
        push_string(&mut url, config.url.as_deref().unwrap_or_default());
        Arc::new(Self {
            inner: Mutex::new(Inner {
                core: Core::new(settings),
                connections: Connections::new(config.max_connections, config.queue),
                now: 0,
                awaited: 0,
                closed: false,
            }),
            earlier: Notify::new(),
            url,
        })
    }

    /// Answers the body of a `POST /`: a status and a body.
    pub(crate) fn handle(&self, body: &[u8]) -> (u16, String) {
        let envelope = protocol::parse(body);
        let reply = match envelope.request {
            Ok(request) => {
                let mut inner = self.lock();
                let now = inner.now();
                let (reply, messages) = inner.core.apply(now, request);
                self.send(&mut inner, messages);
                reply
            }
            Err(refusal) => refusal,
        };
        let body = protocol::respond(&envelope.kind, &envelope.corr_id, &reply);
        (reply.status, body)
    }

    /// Opens a poll stream; `None` if there are too many, or the server is closing.
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
            // Whether it was read or not: nobody acquired them, and nobody there will.
            let messages = inner.core.unanswered(Some(key));
            self.send(&mut inner, messages);
        }
    }

    /// Ends all poll streams and opens no more.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.connections.clear();
    }

    /// Lets timers run out, for ever.
    pub(crate) async fn run_timers(&self) {
        loop {
            let sleep = {
                let mut inner = self.lock();
                let now = inner.now();
                let messages = inner.core.tick(now);
                inner.awaited = i64::MIN; // Awake: nobody need be woken.
                self.send(&mut inner, messages);
                let due = inner.core.next_due().unwrap_or(i64::MAX);
                inner.awaited = due;
                due.saturating_sub(now).clamp(0, LONGEST_SLEEP)
            };
            let sleep = Duration::from_millis(sleep.unsigned_abs());
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
                    inner.connections.send(&address, &unblock_event(&promise));
                }
            }
        }
        if inner.core.next_due().is_some_and(|due| due < inner.awaited) {
            self.earlier.notify_one();
        }
    }

    fn execute_event(&self, id: &str, version: i64) -> Bytes {
        let mut event = String::with_capacity(96 + self.url.len() + id.len());
        event.push_str("data: {\"kind\":\"execute\",\"head\":{\"serverUrl\":");
        event.push_str(&self.url);
        event.push_str("},\"data\":{\"task\":{\"id\":");
        push_string(&mut event, id);
        event.push_str(",\"version\":");
        event.push_str(&version.to_string());
        event.push_str("}}}\n\n");
        event.into()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic would be a bug of one operation; the others need not suffer from it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn now(&mut self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now = self.now.max(millis(since));
        self.now
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.server.disconnect(&self.group, self.key);
    }
}

fn unblock_event(promise: &str) -> Bytes {
    format!("data: {{\"kind\":\"unblock\",\"head\":{{}},\"data\":{{\"promise\":{promise}}}}}\n\n")
        .into()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

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
}
