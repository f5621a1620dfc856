//! The HTTP connections of a process. In place of `axum::serve`, which has no time-outs and no bound,
//! so that clients that never finish a request take all memory and all descriptors.
//!
//! - A header must be complete within ten seconds of its first byte: the client gets a 408.
//! - A connection without a request is closed after 75 s.
//! - There is a bound. Beyond it, the connection that has waited longest for its client is closed,
//!   whether it is idle or half of a request has arrived; so a health check is always answered. A new one
//!   has half a second for its request first: thousands of clients at once would close each other's. If
//!   none can be closed, the next one waits in the backlog of the system.
//! - At the end, connections that wait for their client are closed at once, the others after their
//!   answer.
//!
//! `Pool` knows which connections wait for their client.

mod body;
mod pool;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
};
use hyper::{
    Response,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::io::InspectReader;

use self::{
    body::Tracked,
    pool::{Connection, Pool},
};

/// From the first byte of a header to its last.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer than the 60 s of most load balancers: the side that sends requests should be the first to
/// close a connection, or one of its requests meets a closed one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a new connection is not closed for another one: its request is under way.
const NEW: Duration = Duration::from_millis(500);

/// The largest header, in bytes. It bounds what a connection can make this process hold.
const LARGEST_HEADER: usize = 32 << 10;

/// The pause after an error of `accept`: mostly, that no descriptor is left.
const ACCEPT_RETRY: Duration = Duration::from_millis(5);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at once.
    pub connections: usize,
    /// How long a header may take, from its first byte.
    pub header: Duration,
    /// How long a connection may have no request.
    pub idle: Duration,
    /// How long a new connection is not closed to make room.
    pub new: Duration,
}

impl Limits {
    /// The usual time-outs.
    pub fn new(connections: usize) -> Self {
        Self { connections, header: HEADER_TIMEOUT, idle: IDLE_TIMEOUT, new: NEW }
    }
}

/// Serves HTTP/1 on `listener` until `stop` completes, and then until each request that has arrived
/// is answered.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let pool = Arc::new(Pool::new(limits));
    let stopping = watch::Sender::new(false);
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            (stream, connection) = accept(&listener, &pool) => {
                let connection = Arc::new(connection);
                tokio::spawn(talk(stream, routes.clone(), connection, stopping.subscribe()));
            }
            () = &mut stop => break,
        }
    }
    drop(listener);
    stopping.send_replace(true);
    // Each connection has a receiver.
    stopping.closed().await;
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, pool: &Arc<Pool>) -> (TcpStream, Connection) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, pool.admit().await),
            Err(error) => {
                pool.accept_failed(&error);
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Why a connection ends.
enum End {
    /// The client or hyper has closed it, or it has to make room for another one.
    Closed,
    /// Its client was too slow.
    Overdue,
}

/// One connection from start to end.
async fn talk(
    stream: TcpStream,
    routes: Router,
    connection: Arc<Connection>,
    mut stopping: watch::Receiver<bool>,
) {
    // It fails for a client that is gone.
    let client = stream.peer_addr().ok().map(ConnectInfo);
    let reading = connection.clone();
    let stream = InspectReader::new(stream, move |bytes: &[u8]| {
        if !bytes.is_empty() {
            reading.received();
        }
    });
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request| answer(&routes, &connection, client, request));
    let mut http = http1::Builder::new()
        // The time-outs of `Limits` replace it.
        .header_read_timeout(None)
        .max_buf_size(LARGEST_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    let end = loop {
        tokio::select! {
            // In this order: a connection that is closed starts nothing, and what it waits for is
            // known after it has been read.
            biased;
            () = connection.told_to_close() => break End::Closed,
            // An error: the server is gone.
            _ = stopping.wait_for(|stopping| *stopping), if !draining => {
                if connection.waits_for_client() {
                    break End::Closed;
                }
                draining = true;
                std::pin::Pin::new(&mut http).graceful_shutdown();
            }
            // An error is one of the client or of its network.
            _ = &mut http => break End::Closed,
            () = connection.overdue() => break End::Overdue,
        }
    };
    if let (End::Overdue, true) = (end, connection.has_part_of_a_header()) {
        let stream = http.into_parts().io.into_inner().into_inner();
        // A client that does not read either gets no answer.
        let _ = stream.try_write(connection.request_timeout().as_bytes());
    }
}

/// Answers one request, and keeps track of what the connection waits for meanwhile.
fn answer(
    routes: &TowerToHyperService<Router>,
    connection: &Arc<Connection>,
    client: Option<ConnectInfo<SocketAddr>>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Tracked<Body>>, Infallible>> + use<> {
    connection.request_begins();
    // As `axum::serve` does it.
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    let request =
        request.map(|body| Body::new(Tracked::new(body, connection, Connection::request_read)));
    let (answer, connection) = (routes.call(request), connection.clone());
    async move {
        let response = answer.await?;
        Ok(response.map(|body| Tracked::new(body, &connection, Connection::answered)))
    }
}
