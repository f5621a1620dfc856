//! The message stream from the Resonate Server: reconnects by itself.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use eventsource_stream::Eventsource;
use futures_util::{Stream, StreamExt};
use resonate_otel::Traced;
use tokio::{sync::watch, task::AbortHandle, time::Instant};
use wire::{ExchangeError, Message};

use super::{
    repeat::{backoff, refused_delay},
    transport::Transport,
};

/// A connection is replaced after about this long: something on the way can hold it open and silent,
/// which looks like a server without work.
const RENEW: Duration = Duration::from_secs(30);

/// How long a connection that was replaced is still read: the server may just have sent something.
const OVERLAP: Duration = Duration::from_secs(1);

/// A connection that ends sooner is a failed attempt: the next one waits.
const STABLE: Duration = Duration::from_secs(1);

/// How many such connections in a row are worth a line in the log.
const SHORT_CONNECTIONS: u32 = 5;

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

/// The layer that traces, between the stream and its listener.
struct Traces<L> {
    traced: Traced,
    listener: L,
}

impl<L: Listener> Listener for Traces<L> {
    fn connected(&self, connection: &str) {
        self.listener.connected(connection);
    }

    fn message(&self, message: Message) {
        self.traced.observe(&message);
        self.listener.message(message);
    }
}

/// The message stream of one process.
pub struct MessageStream {
    transport: Arc<dyn Transport>,
    traced: Traced,
    group: String,
    id: ConnectionId,
    up: Arc<watch::Sender<bool>>,
    reader: Mutex<Option<AbortHandle>>,
}

impl MessageStream {
    /// Each message passes through the layer that traces.
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        traced: Traced,
        group: &str,
        id: ConnectionId,
    ) -> Self {
        let up = Arc::new(watch::Sender::new(false));
        Self { transport, traced, group: group.to_owned(), id, up, reader: Mutex::default() }
    }

    /// Whether there is a connection, now and whenever that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Opens the stream, and opens it again whenever it ends, until [`Self::close`].
    pub fn open(&self, listener: impl Listener) {
        let (transport, group, id) = (self.transport.clone(), self.group.clone(), self.id.clone());
        let listener = Traces { traced: self.traced.clone(), listener };
        let reader = tokio::spawn(read(transport, group, id, self.up.clone(), listener));
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
    transport: Arc<dyn Transport>,
    group: String,
    id: ConnectionId,
    up: Arc<watch::Sender<bool>>,
    listener: impl Listener,
) {
    let listener = Arc::new(listener);
    let connect = async || {
        let id = id.next();
        let chunks = transport.open_stream(&group, &id).await?;
        Ok::<_, ExchangeError>((id, chunks.eventsource()))
    };
    let mut delays = backoff();
    // Each outage and its end are logged once, and each reason why the token is refused.
    let mut outage_logged = false;
    let mut refusal_logged = None;
    let mut short = 0;
    loop {
        let (connection, mut events) = match connect().await {
            Ok(connected) => connected,
            Err(error) => {
                let refused = matches!(error, ExchangeError::Unauthorized { .. });
                let refusal = refused.then(|| error.to_string());
                if !outage_logged || refused && refusal != refusal_logged {
                    tracing::warn!(group, %error, "waiting for the Resonate Server");
                    (outage_logged, refusal_logged) = (true, refusal);
                }
                let delay = match refused {
                    true => refused_delay(),
                    false => delays.next().unwrap_or_default(),
                };
                tokio::time::sleep(delay).await;
                continue;
            }
        };
        // A process that has not been waiting says that it is ready, and no more.
        if std::mem::take(&mut outage_logged) {
            tracing::info!(server = transport.server(), "connected to the Resonate Server");
        }
        refusal_logged = None;
        let since = Instant::now();
        listener.connected(&connection);
        up.send_replace(true);
        loop {
            let renewal = async {
                let refused = async {
                    tokio::time::sleep(STABLE).await;
                    transport.refused().await;
                };
                tokio::select! {
                    () = tokio::time::sleep(RENEW.mul_f64(rand::random_range(0.8..1.2))) => {}
                    () = refused => {}
                }
                connect().await
            };
            match read_until(&mut events, renewal, &*listener).await {
                Some(Ok((connection, renewed))) => {
                    listener.connected(&connection);
                    let mut old = std::mem::replace(&mut events, renewed);
                    let listener = listener.clone();
                    tokio::spawn(async move {
                        read_until(&mut old, tokio::time::sleep(OVERLAP), &*listener).await
                    });
                }
                // The server would refuse the requests that messages lead to: not ready.
                Some(Err(ExchangeError::Unauthorized { .. })) => break,
                // The old connection may still be good: read it, and try again later.
                Some(Err(error)) => tracing::debug!(%error, "renewing the message stream failed"),
                None => break,
            }
        }
        up.send_replace(false);
        if since.elapsed() >= STABLE {
            (delays, short) = (backoff(), 0);
        } else {
            short += 1;
            if short == SHORT_CONNECTIONS {
                let server = transport.server();
                tracing::warn!(
                    server,
                    "the message stream opens, and ends at once, again and again"
                );
            }
        }
        tokio::time::sleep(delays.next().unwrap_or_default()).await;
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

#[cfg(test)]
mod tests;
