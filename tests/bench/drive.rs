//! Starts flows, and measures a level of load.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::{sleep_until, timeout};

use crate::{
    program::{Deployment, Parts},
    server::{Counts, Server},
};

/// How long a flow may take. One that takes longer counts as failed.
const FLOW: Duration = Duration::from_secs(60);

/// How long a system may take until it answers.
const START: Duration = Duration::from_secs(120);

/// The pause between the first two flows that are sent to a system that starts. Each further pause
/// is a tenth longer, so that waiting flows keep nothing busy. The figure is precise to that.
const ASK: Duration = Duration::from_millis(20);

/// What was measured at one level of load.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    pub connections: usize,
    pub flows: usize,
    /// Flows without an answer, or with a wrong one.
    pub failed: usize,
    pub flows_per_second: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    /// CPU milliseconds for each flow.
    pub cpu_ms: Parts<f64>,
    /// Requests and messages for each flow, if the server tells.
    pub server: Option<Counts>,
}

impl Load {
    /// Requests to the server for each flow.
    pub fn requests(&self) -> Option<f64> {
        Some(self.server.as_ref()?.requests.values().sum())
    }

    /// Messages from the server for each flow.
    pub fn messages(&self) -> Option<f64> {
        Some(self.server.as_ref()?.messages.values().sum())
    }

    /// CPU of gateway and services for each flow.
    pub fn own_cpu_ms(&self) -> f64 {
        self.cpu_ms.gateway + self.cpu_ms.services
    }
}

/// Runs `count` flows, so many at a time, and measures them. `flow`: whether flow number n succeeded.
pub async fn measure(
    deployment: &Deployment,
    server: &Server,
    connections: usize,
    count: usize,
    flow: impl AsyncFn(usize) -> bool,
) -> Load {
    let (counts, cpu) = (server.counts().await, deployment.cpu());
    let begin = Instant::now();
    let (times, failed) = run(connections, count, flow).await;
    let seconds = begin.elapsed().as_secs_f64();
    let Parts { gateway, services, server: server_cpu } = deployment.cpu() - cpu;
    let each = |seconds: f64| seconds * 1e3 / count as f64;
    let cpu_ms =
        Parts { gateway: each(gateway), services: each(services), server: server_cpu.map(each) };
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    let counts = server.counts().await.zip(counts);
    Load {
        connections,
        flows: count,
        failed,
        flows_per_second: (count - failed) as f64 / seconds,
        p50_ms: ms(0.5),
        p95_ms: ms(0.95),
        p99_ms: ms(0.99),
        cpu_ms,
        server: counts.map(|(now, before)| now.since(&before, count)),
    }
}

/// Runs `count` flows, so many at a time: their times in microseconds, and how many failed.
pub async fn run(
    connections: usize,
    count: usize,
    flow: impl AsyncFn(usize) -> bool,
) -> (Histogram<u64>, usize) {
    let (next, failed) = (Cell::new(0), Cell::new(0));
    let times = RefCell::new(Histogram::new(3).expect("three digits are possible"));
    let connection = async || {
        while next.get() < count {
            let n = next.replace(next.get() + 1);
            let begin = Instant::now();
            if timeout(FLOW, flow(n)).await == Ok(true) {
                let time = begin.elapsed().as_micros() as u64;
                times.borrow_mut().record(time).expect("it grows with its values");
            } else {
                failed.set(failed.get() + 1);
            }
        }
    };
    join_all((0..connections).map(|_| connection())).await;
    (times.into_inner(), failed.get())
}

/// Starts flows until one of them succeeds.
///
/// # Panics
/// None does in time, or a process has ended.
pub async fn first_answer(deployment: &Deployment, flow: impl AsyncFn(usize) -> bool) {
    let mut flows = FuturesUnordered::new();
    let (mut asked, mut pause) = (0, ASK);
    let mut next = Instant::now();
    let answered = async {
        loop {
            tokio::select! {
                () = sleep_until(next.into()) => {
                    flows.push(flow(asked));
                    asked += 1;
                    next = Instant::now() + pause;
                    pause = pause * 11 / 10;
                }
                Some(true) = flows.next(), if !flows.is_empty() => return,
            }
        }
    };
    let problem = tokio::select! {
        answered = timeout(START, answered) => match answered {
            Ok(()) => return,
            Err(_) => "the system does not answer".to_owned(),
        },
        ended = deployment.first_end() => ended,
    };
    panic!("{problem}: bench.log beside the executables may say why");
}

/// A client of a gateway.
pub struct Client {
    http: reqwest::Client,
    /// What is in the ids of all its flows, so that they are new on a server that has seen others.
    run: String,
}

impl Client {
    pub fn new() -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let run = format!("{:08x}", rand::random::<u32>());
        Self { http, run }
    }

    /// Runs one await chain: whether it was answered with its result.
    pub async fn await_chain(&self, gateway: &str, id: &str) -> bool {
        let url = format!("{gateway}/await-chain?id={}-{id}", self.run);
        let Ok(answer) = self.http.post(url).send().await else { return false };
        let Ok(body) = answer.bytes().await else { return false };
        serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|body| body["message"] == 3)
    }

    /// Starts a flow, waits for its end, and returns whether it succeeded.
    pub async fn flow(&self, gateway: &str, path: &str) -> bool {
        let answer = self.http.post(format!("{gateway}{path}")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// What `GET /flows/{id}` shows; null if there is no answer.
    pub async fn inspect(&self, gateway: &str, id: &str) -> serde_json::Value {
        let Ok(answer) = self.http.get(format!("{gateway}/flows/{id}")).send().await else {
            return serde_json::Value::Null;
        };
        let body = answer.bytes().await.unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or_default()
    }

    /// An id that no other flow has.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.run)
    }
}
