//! A flow that a test does something to.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Line, System, http::Answer, until};

/// The default lease.
pub const LEASE: Duration = Duration::from_secs(3);

/// A takeover is to begin within the lease and half a second (the benchmark measures that); a test
/// gives a busy machine one second more.
pub const ALLOWANCE: Duration = Duration::from_millis(1_500);

/// The routes, with the service that works and the service of the function that fails.
pub const FLOWS: [(&str, &str); 3] = [
    ("await-chain", "service-b"),
    ("detached-chain", "service-e"),
    ("fan-out-workflow", "service-g"),
];

/// A flow on its way.
pub struct Flow {
    pub id: String,
    route: &'static str,
    /// The promises of its three functions.
    pub promises: [String; 3],
    /// The promise of the function that works.
    pub worker: String,
    answer: JoinHandle<Answer>,
}

impl Flow {
    /// Asks for a flow with these parameters. Comes back as soon as it has begun.
    pub async fn start(system: &System, route: &'static str, id: &str, query: &str) -> Self {
        let http = system.http();
        let path = format!("/{route}?id={id}&{query}");
        let request = http.clone();
        let answer = tokio::spawn(async move { request.post(&path).await });
        let began = until(&system.log, "the flow to begin", async || {
            let answer = http.get(&format!("/flows/{id}")).await;
            (answer.status == 200).then_some(answer.body)
        })
        .await;
        let promise = |n: usize| began["invocations"][n]["id"].as_str().unwrap().to_owned();
        let promises = [promise(0), promise(1), promise(2)];
        let worker = promises[usize::from(route != "fan-out-workflow")].clone();
        Self { id: id.to_owned(), route, promises, worker, answer }
    }

    /// The promise of step `n` of its work, from 1.
    pub fn step(&self, n: usize) -> String {
        format!("{}.{}", self.worker, n - 1)
    }

    /// Waits for a log line of step `n`.
    pub async fn at(&self, system: &System, message: &str, n: usize) -> Line {
        let step = self.step(n);
        let fits = |line: &Line| is_of_step(line, message, &step);
        system.log.line(&format!("{message:?} of {step}"), fits).await
    }

    /// The steps, of `steps`, whose end is durable: whoever runs one of them again is wrong.
    pub async fn settled(&self, system: &System, steps: usize) -> Vec<String> {
        let resonate = system.resonate();
        let mut settled = Vec::new();
        for step in (1..=steps).map(|n| self.step(n)) {
            if resonate.settled(&step).await {
                settled.push(step);
            }
        }
        settled
    }

    /// Waits for its end, which must be the right answer: to the request that is still open, and
    /// to whoever looks.
    pub async fn finish(&mut self, system: &System) {
        let answer = (&mut self.answer).await.unwrap();
        let (message, result) = match self.route {
            "detached-chain" => (json!("detached-chain started"), Value::Null),
            _ => (json!(3), json!(3)),
        };
        answer.expect_message(message);
        let http = system.http();
        let now = until(&system.log, &format!("the end of {}", self.id), async || {
            let now = http.get(&format!("/flows/{}", self.id)).await.body;
            (now["state"] != "pending").then_some(now)
        })
        .await;
        assert_eq!((&now["state"], &now["result"]), (&json!("resolved"), &result), "{now:#}");
    }
}

/// Whether a log line with `message` is about the step with the promise `step`.
pub fn is_of_step(line: &Line, message: &str, step: &str) -> bool {
    line.field("step").is_some() && line.about(message, step)
}

/// Waits until a run of `promise` begins elsewhere than on `dead`: how long after `since`.
pub async fn taken_over(system: &System, promise: &str, dead: &str, since: Instant) -> Duration {
    let begins = |line: &Line| {
        line.in_run("run begins", promise) && line.at > since && line.instance() != dead
    };
    system.log.line(&format!("a takeover of {promise}"), begins).await.at - since
}

/// Fails if a step begins more often than `times`.
pub fn expect_begins(system: &System, step: &str, times: usize) {
    let begins = system.log.all(|line| is_of_step(line, "step begins", step));
    assert_eq!(begins.len(), times, "step {step} begins: {begins:#?}");
}

/// Fails if one of these steps, which were settled, begins after `since`.
pub fn expect_not_again(system: &System, settled: &[String], since: Instant) {
    for step in settled {
        let again = system.log.all(|line| line.at > since && is_of_step(line, "step begins", step));
        assert!(again.is_empty(), "{step} was done and ran again: {again:#?}");
    }
}
