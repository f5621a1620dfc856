//! The message stream from the Resonate Server: reconnects by itself.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use eventsource_stream::Eventsource;
use futures_util::{Stream, StreamExt};
use tokio::{sync::watch, task::AbortHandle};
use wire::{ExchangeError, Message};

use super::{http::Http, repeat::backoff};

/// A connection is replaced after about this long, before something on the way drops it unnoticed.
const RENEW: Duration = Duration::from_secs(240);

/// How a connection names itself to the server.
#[derive(Debug, Clone)]
pub enum ConnectionId {
    /// Always the same, so that others can prefer this process.
    Instance(String),
    /// A new one for each connection: the server sends a unicast message to the first connection
    /// with its id, and a half-open old one would swallow it.
    Fresh,
}

impl ConnectionId {
    fn next(&self) -> String {
        match self {
            Self::Instance(id) => id.clone(),
            Self::Fresh => uuid::Uuid::new_v4().simple().to_string(),
        }
    }
}

/// What happens on the stream.
pub trait Listener: Send + Sync + 'static {
    /// There is a new connection; the old one, if there was one, is no longer read.
    fn connected(&self, connection: &str);
    /// A message came.
    fn message(&self, message: Message);
}

/// The message stream of one process.
pub struct MessageStream {
    http: Http,
    group: String,
    id: ConnectionId,
    up: Arc<watch::Sender<bool>>,
    reader: Mutex<Option<AbortHandle>>,
}

impl MessageStream {
    pub(crate) fn new(http: Http, group: &str, id: ConnectionId) -> Self {
        let up = Arc::new(watch::Sender::new(false));
        Self { http, group: group.to_owned(), id, up, reader: Mutex::default() }
    }

    /// Whether there is a connection, now and whenever that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Opens the stream, and opens it again whenever it ends, until [`Self::close`].
    pub fn open(&self, listener: impl Listener) {
        let (http, group, id) = (self.http.clone(), self.group.clone(), self.id.clone());
        let reader = tokio::spawn(read(http, group, id, self.up.clone(), listener));
        *self.reader.lock().expect("no holder of this lock panics") = Some(reader.abort_handle());
    }

    /// Closes the stream: no message comes any more.
    pub fn close(&self) {
        if let Some(reader) = self.reader.lock().expect("no holder of this lock panics").take() {
            reader.abort();
        }
        self.up.send_replace(false);
    }
}

/// Reads messages for ever. `up` says whether there is a connection.
async fn read(
    http: Http,
    group: String,
    id: ConnectionId,
    up: Arc<watch::Sender<bool>>,
    listener: impl Listener,
) {
    let connect = async || {
        let id = id.next();
        let response = http.open_stream(&group, &id).await?;
        Ok::<_, ExchangeError>((id, response.bytes_stream().eventsource().boxed()))
    };
    let mut delays = backoff();
    // The start, each outage and its end are logged once.
    let mut outage_logged = false;
    let mut connected_before = false;
    loop {
        let (connection, mut events) = match connect().await {
            Ok(connected) => connected,
            Err(error) => {
                if !outage_logged {
                    tracing::warn!(%error, "waiting for the Resonate Server");
                    outage_logged = true;
                }
                tokio::time::sleep(delays.next().unwrap_or_default()).await;
                continue;
            }
        };
        if outage_logged || !connected_before {
            tracing::info!(server = http.server(), "connected to the Resonate Server");
        }
        (delays, outage_logged, connected_before) = (backoff(), false, true);
        listener.connected(&connection);
        up.send_replace(true);
        loop {
            let renewal = async {
                tokio::time::sleep(RENEW.mul_f64(rand::random_range(0.8..1.2))).await;
                connect().await
            };
            match read_until(&mut events, renewal, &listener).await {
                Some(Ok((connection, renewed))) => {
                    events = renewed;
                    listener.connected(&connection);
                }
                // The old connection may still be good: read it, and try again later.
                Some(Err(error)) => tracing::debug!(%error, "renewing the message stream failed"),
                None => break,
            }
        }
        up.send_replace(false);
    }
}

/// Hands on messages until `other` is done, or the stream ends (`None`).
async fn read_until<T, E: std::fmt::Display>(
    events: &mut (impl Stream<Item = Result<eventsource_stream::Event, E>> + Unpin),
    other: impl Future<Output = T>,
    listener: &impl Listener,
) -> Option<T> {
    tokio::pin!(other);
    loop {
        let event = tokio::select! {
            done = &mut other => return Some(done),
            event = events.next() => event?,
        };
        match event.map(|event| Message::parse(event.data)) {
            Ok(Ok(message)) => listener.message(message),
            Ok(Err(error)) => {
                tracing::warn!(%error, "unreadable message from the Resonate Server");
            }
            Err(error) => {
                tracing::debug!(%error, "the message stream broke");
                return None;
            }
        }
    }
}
