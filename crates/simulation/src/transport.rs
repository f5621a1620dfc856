//! The bottom layer of a simulated process: the network in place of HTTP.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use node::server::{Chunks, Transport};
use tokio::sync::{mpsc, oneshot};
use wire::{Answer, Exchange, ExchangeError, Request};

use crate::{
    faults::{self, Fate},
    network::{Network, Packet, Reply, ToServer},
};

/// What people see as the server's address.
const URL: &str = "http://server";

/// What a doubled request's second copy is late by.
const SECOND: Duration = Duration::from_millis(30);

/// The network, as one process sees it.
pub(crate) struct Simulated {
    pub network: Network,
    pub host: usize,
}

fn unreachable(reason: &str) -> ExchangeError {
    ExchangeError::Unreachable { server: URL.to_owned(), reason: reason.to_owned() }
}

impl Simulated {
    fn send(&self, text: &str, reply: Option<oneshot::Sender<Reply>>, late: Duration) {
        let request = ToServer::Request { host: self.host, text: text.to_owned(), reply };
        self.network.send(self.host, Packet::ToServer(request), late);
    }

    /// Sends a request on its way, and waits for what comes back.
    async fn post(&self, kind: &str, text: &str) -> Reply {
        let (reply, answer) = oneshot::channel();
        let fate = self.network.fate(self.host, kind);
        match fate {
            None => self.send(text, Some(reply), Duration::ZERO),
            Some(Fate::Late(late)) => self.send(text, Some(reply), late),
            Some(Fate::Doubled) => {
                self.send(text, Some(reply), Duration::ZERO);
                self.send(text, None, SECOND);
            }
            Some(Fate::Lost) => {}
            Some(Fate::Refused) => return Reply::Reset,
            Some(Fate::AnswerLost) => self.send(text, None, Duration::ZERO),
            Some(Fate::Reset) => {
                self.send(text, Some(reply), Duration::ZERO);
                let _ = answer.await;
                return Reply::Reset;
            }
            Some(Fate::Replaced(false, replaced)) => return replace(replaced, text),
            Some(Fate::Replaced(true, replaced)) => {
                self.send(text, Some(reply), Duration::ZERO);
                return match answer.await {
                    Ok(Reply::Response(_, text)) => replace(replaced, &text),
                    _ => Reply::Reset,
                };
            }
        }
        match answer.await {
            Ok(reply) => reply,
            // It was lost on the way, and nobody says so.
            Err(_) => std::future::pending().await,
        }
    }
}

/// What the client gets instead of this answer, or in answer to this request.
fn replace(by: faults::Reply, text: &str) -> Reply {
    match by {
        faults::Reply::Page(status) => {
            Reply::Response(status, "<html>not the Resonate Server</html>".to_owned())
        }
        faults::Reply::Truncated => Reply::Response(200, text[..text.len() / 2].to_owned()),
        faults::Reply::OtherRequest => {
            Reply::Response(200, text.replace(r#""corrId":""#, r#""corrId":"other-"#))
        }
        faults::Reply::Failing => Reply::Response(500, failing(text)),
    }
}

/// The server's own answer when its store fails.
fn failing(text: &str) -> String {
    let mut whole: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    whole["head"]["status"] = 500.into();
    whole["data"] = "store failed".into();
    whole.to_string()
}

#[async_trait::async_trait]
impl Exchange for Simulated {
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        let text = request.text().into_owned();
        match self.post(request.kind(), &text).await {
            Reply::Response(status, text) => Answer::parse(&request, text)
                .map_err(|error| unreachable(&format!("{error} (HTTP status {status})"))),
            Reply::Reset => Err(unreachable("connection reset")),
        }
    }
}

#[async_trait::async_trait]
impl Transport for Simulated {
    fn server(&self) -> &str {
        URL
    }

    async fn open_stream(&self, group: &str, id: &str) -> Result<Chunks, ExchangeError> {
        let (left, fault) = self.network.stream_fault(self.host).unzip();
        match fault {
            Some(faults::Stream::Refused) => return Err(unreachable("it answered 503")),
            Some(faults::Stream::Ends) => return Ok(futures_util::stream::empty().boxed()),
            Some(faults::Stream::Silent) => {
                let end = tokio::time::sleep(left.unwrap_or_default());
                let error = Err(io::ErrorKind::UnexpectedEof.into());
                return Ok(futures_util::stream::once(end.map(|()| error)).boxed());
            }
            Some(faults::Stream::Garbage) | None => {}
        }
        let (connection, mut chunks) = self.network.open(self.host);
        let events = Events { connection, network: self.network.clone() };
        let open = ToServer::Open {
            host: self.host,
            connection,
            group: group.to_owned(),
            id: id.to_owned(),
        };
        self.network.send(self.host, Packet::ToServer(open), Duration::ZERO);
        // The first piece says that the server has taken the connection.
        match tokio::time::timeout(Duration::from_secs(2), chunks.recv()).await {
            Ok(Some(Ok(_))) => {}
            Ok(_) => return Err(unreachable("connection refused")),
            Err(_) => return Err(unreachable("no answer within 2s")),
        }
        let garbage = (fault == Some(faults::Stream::Garbage)).then(|| {
            let text = "data: {\"kind\":\"exe\n\n\u{feff}:::\n\ndata: [1,2\n\nevent: x\n\n";
            Ok(Bytes::from_static(text.as_bytes()))
        });
        let rest = Received { chunks, _events: events };
        Ok(futures_util::stream::iter(garbage).chain(rest).boxed())
    }
}

/// Tells the network when the client drops its message stream.
struct Events {
    connection: u64,
    network: Network,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.network.close(self.connection);
    }
}

struct Received {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    _events: Events,
}

impl Stream for Received {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_recv(context)
    }
}
