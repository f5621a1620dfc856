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

use super::{repeat::backoff, transport::Transport};

/// A connection is replaced after about this long: something on the way can hold it open and silent,
/// which looks like a server without work.
const RENEW: Duration = Duration::from_secs(30);

/// How long a connection that was replaced is still read: the server may just have sent something.
const OVERLAP: Duration = Duration::from_secs(1);

/// A connection that ends sooner is a failed attempt: the next one waits.
const STABLE: Duration = Duration::from_secs(1);

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
    // Each outage and its end are logged once.
    let mut outage_logged = false;
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
        // A process that has not been waiting says that it is ready, and no more.
        if std::mem::take(&mut outage_logged) {
            tracing::info!(server = transport.server(), "connected to the Resonate Server");
        }
        let since = Instant::now();
        listener.connected(&connection);
        up.send_replace(true);
        loop {
            let renewal = async {
                tokio::time::sleep(RENEW.mul_f64(rand::random_range(0.8..1.2))).await;
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
                // The old connection may still be good: read it, and try again later.
                Some(Err(error)) => tracing::debug!(%error, "renewing the message stream failed"),
                None => break,
            }
        }
        up.send_replace(false);
        if since.elapsed() >= STABLE {
            delays = backoff();
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
mod tests {
    use super::*;
    use axum::{
        Router,
        extract::Path,
        http::{StatusCode, header::CONTENT_TYPE},
        response::{IntoResponse, Response},
        routing::get,
    };
    use clap::{Args, FromArgMatches};
    use resonate_otel::{Identity, Telemetry};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::{net::TcpListener, sync::mpsc};
    use wire::{Answer, Exchange, Request};

    use crate::{config::Config, server::Chunks};

    const STREAM: [(axum::http::HeaderName, &str); 1] = [(CONTENT_TYPE, "text/event-stream")];

    /// A stream to a server that answers `GET /poll` so, the number of the request given.
    async fn stream(answer: fn(usize) -> Response, id: ConnectionId) -> (MessageStream, Seen) {
        let (told, ids) = mpsc::channel(64);
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let poll = async move |Path((_, id)): Path<(String, String)>| {
            // What the test does not look at is dropped.
            let _ = told.try_send(id);
            answer(counted.fetch_add(1, Ordering::Relaxed))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/poll/{group}/{id}", get(poll));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let config = config(&url);
        let transport = crate::server::http(&config).unwrap();
        (stream_over(transport, &config, id), Seen { ids, requests })
    }

    fn config(url: &str) -> Config {
        let command = Config::augment_args(clap::Command::new("test"));
        Config::from_arg_matches(&command.get_matches_from(["test", "--server", url])).unwrap()
    }

    fn stream_over(
        transport: Arc<dyn Transport>,
        config: &Config,
        id: ConnectionId,
    ) -> MessageStream {
        let identity = Identity {
            name: "g".to_owned(),
            instance: "i".to_owned(),
            namespace: String::new(),
            version: "0".to_owned(),
        };
        let telemetry = Telemetry::start(identity).unwrap();
        crate::server::client(config, "g", id, transport, &telemetry).1
    }

    /// What the server has seen.
    struct Seen {
        ids: mpsc::Receiver<String>,
        requests: Arc<AtomicUsize>,
    }

    struct Tell(mpsc::Sender<String>);

    impl Listener for Tell {
        fn connected(&self, _: &str) {}

        fn message(&self, message: Message) {
            let _ = self.0.try_send(message.into_text());
        }
    }

    #[tokio::test]
    async fn a_stream_that_fails_in_any_way_is_opened_again_without_spinning() {
        let answers: [fn(usize) -> Response; 4] = [
            |_| StatusCode::SERVICE_UNAVAILABLE.into_response(),
            |_| (StatusCode::MOVED_PERMANENTLY, [("location", "/")]).into_response(),
            |_| "<html></html>".into_response(),
            |_| (STREAM, "").into_response(),
        ];
        for answer in answers {
            let (stream, mut seen) = stream(answer, ConnectionId::Instance("i".to_owned())).await;
            stream.open(Tell(mpsc::channel(1).0));
            let start = Instant::now();
            for _ in 0..6 {
                assert_eq!(seen.ids.recv().await.as_deref(), Some("i"));
            }
            // 10, 20, 40, 80 and 100 ms at least.
            assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
            assert!(seen.requests.load(Ordering::Relaxed) < 10);
            stream.close();
            assert!(!*stream.up().borrow());
        }
    }

    #[tokio::test]
    async fn garbage_is_skipped_and_each_connection_can_have_an_id_of_its_own() {
        let execute = r#"{"kind":"execute","head":{},"data":{"task":{"id":"x","version":1}}}"#;
        assert_eq!(Message::execute("x", 1).into_text(), execute);
        let answer = |_| {
            let message = Message::execute("x", 1).into_text();
            (STREAM, format!("data: garbage\n\ndata: {message}\n\n")).into_response()
        };
        let (stream, mut seen) = stream(answer, ConnectionId::Fresh).await;
        let (tell, mut told) = mpsc::channel(1);
        stream.open(Tell(tell));
        assert_eq!(told.recv().await.as_deref(), Some(execute));
        let (first, second) = (seen.ids.recv().await, seen.ids.recv().await);
        assert!(first.is_some() && first != second);
    }

    /// A server whose connections the test gets, as what sends their text.
    struct Connections(mpsc::Sender<mpsc::Sender<String>>);

    #[async_trait::async_trait]
    impl Exchange for Connections {
        async fn exchange(&self, _: Request) -> Result<Answer, ExchangeError> {
            std::future::pending().await
        }
    }

    #[async_trait::async_trait]
    impl Transport for Connections {
        fn server(&self) -> &str {
            "http://server"
        }

        async fn open_stream(&self, _: &str, _: &str) -> Result<Chunks, ExchangeError> {
            let (sender, texts) = mpsc::channel(4);
            self.0.send(sender).await.unwrap();
            let next = async |mut texts: mpsc::Receiver<String>| {
                Some((Ok(texts.recv().await?.into()), texts))
            };
            Ok(futures_util::stream::unfold(texts, next).boxed())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_replaced_and_read_for_another_moment() {
        let (connected, mut connections) = mpsc::channel(4);
        let config = config("http://server");
        let stream = stream_over(Arc::new(Connections(connected)), &config, ConnectionId::Fresh);
        let (tell, mut told) = mpsc::channel(4);
        stream.open(Tell(tell));
        let old = connections.recv().await.unwrap();
        let start = Instant::now();
        let new = connections.recv().await.unwrap();
        assert!(start.elapsed() <= RENEW.mul_f64(1.2), "{:?}", start.elapsed());
        tokio::time::sleep(OVERLAP / 2).await;
        for (connection, id) in [(&new, "new"), (&old, "old")] {
            let message = Message::execute(id, 1).into_text();
            connection.send(format!("data: {message}\n\n")).await.unwrap();
            let told = tokio::time::timeout(OVERLAP, told.recv()).await;
            assert_eq!(told, Ok(Some(message)), "{id}");
        }
        tokio::time::sleep(2 * OVERLAP).await;
        assert!(old.is_closed() && !new.is_closed());
    }
}
