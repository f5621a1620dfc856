//! Which connections are open, and which of them wait for their client.

use std::{
    collections::BTreeMap,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::Limits;

/// How often a lack of room is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The connections of one listener.
pub(super) struct Pool {
    limits: Limits,
    open: Mutex<Open>,
    /// A connection was closed, or begins to wait for its client.
    changed: Notify,
}

#[derive(Default)]
struct Open {
    /// How many there are, without those that are told to close.
    count: usize,
    /// Those that wait for their client, and from when on they may be told to close: the one that has
    /// waited longest comes first.
    waiting: BTreeMap<u64, (Instant, Arc<Notify>)>,
    next_place: u64,
    logged: Option<Instant>,
}

impl Open {
    /// Tells the connection that has waited longest to close. False: none may be closed now.
    fn close_oldest(&mut self) -> bool {
        let now = Instant::now();
        let oldest = self.waiting.iter().find(|(_, (from, _))| *from <= now);
        let Some((&place, (_, close))) = oldest else { return false };
        close.notify_one();
        self.waiting.remove(&place);
        self.count -= 1;
        true
    }

    /// When the first one may be told to close.
    fn next_to_close(&self) -> Option<Instant> {
        self.waiting.values().map(|(from, _)| *from).min()
    }

    fn queue(&mut self, close: &Arc<Notify>, from: Instant) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.waiting.insert(place, (from, close.clone()));
        place
    }

    /// Whether a lack of room is to be logged now.
    fn is_news(&mut self) -> bool {
        let news = self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if news {
            self.logged = Some(Instant::now());
        }
        news
    }
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, open: Mutex::default(), changed: Notify::new() }
    }

    /// Takes in a connection, once there is room for it.
    pub(super) async fn admit(self: &Arc<Self>) -> Connection {
        loop {
            if let Some(connection) = self.try_admit() {
                // Give the connections that were told to close a chance to run.
                tokio::task::yield_now().await;
                return connection;
            }
            let next = self.open().next_to_close();
            let closable = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = closable => {}
            }
        }
    }

    fn try_admit(self: &Arc<Self>) -> Option<Connection> {
        let mut open = self.open();
        if open.count >= self.limits.connections {
            if open.is_news() {
                tracing::warn!(
                    bound = self.limits.connections,
                    "no room for another connection: closing those that have waited longest for a request"
                );
            }
            if !open.close_oldest() {
                return None;
            }
        }
        open.count += 1;
        let close = Arc::new(Notify::new());
        let place = open.queue(&close, Instant::now() + self.limits.new);
        let phase = Phase::Idle(Instant::now());
        let state = Mutex::new(State { phase, place: Some(place) });
        Some(Connection { pool: self.clone(), close, state })
    }

    /// Makes room for a connection that the system could not give.
    pub(super) fn accept_failed(&self, error: &io::Error) {
        let mut open = self.open();
        if open.is_news() {
            tracing::warn!(%error, open = open.count, "cannot accept a connection, retrying");
        }
        open.close_oldest();
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// A request, since this moment.
    Idle(Instant),
    /// The rest of a header that began at this moment.
    Header(Instant),
    /// The rest of a body. Its time-out is up to the route.
    Body,
    /// The answer. It is not the client's turn.
    Answer,
}

struct State {
    phase: Phase,
    /// Its place among those that wait for their client.
    place: Option<u64>,
}

/// One connection. It gives its room back when it is dropped.
pub(super) struct Connection {
    pool: Arc<Pool>,
    close: Arc<Notify>,
    state: Mutex<State>,
}

impl Connection {
    /// Bytes have arrived.
    pub(super) fn received(&self) {
        let mut state = self.state();
        if let Phase::Idle(_) = state.phase {
            state.phase = Phase::Header(Instant::now());
        }
    }

    /// A header is complete.
    pub(super) fn request_begins(&self) {
        self.state().phase = Phase::Body;
    }

    /// A request is complete, or the rest of it does not matter.
    pub(super) fn request_read(&self) {
        let mut state = self.state();
        if state.phase == Phase::Body {
            state.phase = Phase::Answer;
            // One that was just told to close keeps its place: see `drop`.
            let place = state.place;
            if place.is_some_and(|place| self.pool.open().waiting.remove(&place).is_some()) {
                state.place = None;
            }
        }
    }

    /// An answer is complete.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        state.phase = Phase::Idle(Instant::now());
        if state.place.is_none() {
            state.place = Some(self.pool.open().queue(&self.close, Instant::now()));
            self.pool.changed.notify_one();
        }
    }

    /// Whether the client has sent no request, or not all of it.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state().phase != Phase::Answer
    }

    /// Whether the client has sent part of a header.
    pub(super) fn has_part_of_a_header(&self) -> bool {
        matches!(self.state().phase, Phase::Header(_))
    }

    /// Completes when this connection has to make room for another one.
    pub(super) async fn told_to_close(&self) {
        self.close.notified().await;
    }

    /// Completes when the client is too slow. Poll it after whatever reads from the connection.
    pub(super) async fn overdue(&self) {
        let mut timer = pin!(sleep_until(Instant::now() + self.pool.limits.idle));
        std::future::poll_fn(|context| {
            let Some(deadline) = self.deadline() else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(context)
        })
        .await;
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state().phase {
            Phase::Idle(since) => Some(since + self.pool.limits.idle),
            Phase::Header(since) => Some(since + self.pool.limits.header),
            Phase::Body | Phase::Answer => None,
        }
    }

    /// The answer to a header that is not complete in time. hyper has none.
    pub(super) fn request_timeout(&self) -> String {
        let body = serde_json::json!({
            "status": 408,
            "title": "Request Timeout",
            "detail": format!("request header was not complete within {:?}", self.pool.limits.header),
        });
        let body = body.to_string();
        format!(
            "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let place = self.state().place;
        let mut open = self.pool.open();
        // One that was told to close has no place any more, and is not counted any more.
        if place.is_none_or(|place| open.waiting.remove(&place).is_some()) {
            open.count -= 1;
        }
        drop(open);
        self.pool.changed.notify_one();
    }
}
