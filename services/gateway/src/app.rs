//! What all requests share.

use std::sync::Arc;

use resonate_otel::{FlowTracer, Metrics};
use tokio::sync::{Semaphore, watch};

use crate::{
    Settings,
    client::Client,
    stats::Stats,
    timeline::{LookBack, Watchers},
    waiters::Waiters,
};

/// What all requests share.
#[derive(Clone)]
pub struct App {
    /// The client of the Resonate Server.
    pub client: Client,
    /// Who waits for which promise.
    pub waiters: Waiters,
    /// Makes the spans of requests and flows.
    pub tracer: FlowTracer,
    /// The gateway's settings.
    pub settings: Arc<Settings>,
    /// One permit for each request that may wait for a flow.
    pub room: Arc<Semaphore>,
    /// What `GET /stats` shows.
    pub stats: Stats,
    /// Looks for takeovers in flows that have ended late.
    pub look_back: LookBack,
    /// One permit for each client that may watch a flow. It takes one of `room` as well.
    pub viewers: Arc<Semaphore>,
    /// The flows that are watched.
    pub watchers: Watchers,
    /// The metrics of requests.
    pub metrics: Metrics,
    /// Whether the message stream is up.
    pub up: watch::Receiver<bool>,
    /// Whether the gateway is stopping: then requests that wait are answered with 202.
    pub stopping: watch::Receiver<bool>,
}
