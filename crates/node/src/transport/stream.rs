//! The stream of messages from the Resonate Server: connected at all times, if that can be.

use std::{sync::Arc, time::Duration};

use eventsource_stream::Eventsource;
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

use super::http::{Http, Unreachable, pauses};

/// A connection is replaced after about this long, before something on the way drops it unseen.
const RENEW: Duration = Duration::from_secs(240);

/// How a connection names itself to the server.
#[derive(Debug, Clone)]
pub enum ConnectionId {
    /// Always the same, so that others can ask for this process.
    Instance(String),
    /// A new one for each connection: the server sends what is meant for one connection to the
    /// first that bears its id, and a half-open old one would swallow it.
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
pub(super) trait Listener: Send + Sync + 'static {
    /// A new connection stands; the old one, if there was one, is no longer read.
    fn connected(&self, id: &str);
    /// A message, as JSON.
    fn message(&self, json: String);
}

/// Reads messages until the future is dropped. `up` tells whether a connection stands.
pub(super) async fn run(
    http: Http,
    group: String,
    id: ConnectionId,
    up: Arc<watch::Sender<bool>>,
    listener: impl Listener,
) {
    let connect = || async {
        let id = id.next();
        let answer = http.stream(&group, &id).await?;
        Ok::<_, Unreachable>((id, answer.bytes_stream().eventsource().boxed()))
    };
    let mut wait = pauses();
    // What the log says is said once: at the start, and once for each outage and its end.
    let mut said = false;
    let mut connected_before = false;
    loop {
        let (connection, mut events) = match connect().await {
            Ok(connected) => connected,
            Err(error) => {
                if !said {
                    tracing::warn!(%error, "waiting for the Resonate Server");
                    said = true;
                }
                tokio::time::sleep(wait.next().unwrap_or_default()).await;
                continue;
            }
        };
        if said || !connected_before {
            tracing::info!(server = http.url(), "connected to the Resonate Server");
        }
        (wait, said, connected_before) = (pauses(), false, true);
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
                Some(Err(error)) => tracing::debug!(%error, "message stream could not be renewed"),
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
        tokio::select! {
            done = &mut other => return Some(done),
            event = events.next() => match event {
                Some(Ok(event)) => listener.message(event.data),
                Some(Err(error)) => {
                    tracing::debug!(%error, "message stream broke");
                    return None;
                }
                None => return None,
            },
        }
    }
}
