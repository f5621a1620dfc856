//! A flow in progress, and what the log tells about its steps.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{
    Answer, Http, Line, Log, System,
    flows::{Flow, flow},
    steps::{self, Starts},
    until,
};
use tokio::task::JoinHandle;

/// The default lease.
pub const LEASE: Duration = Duration::from_secs(3);

/// A takeover is due within the lease and 0.3 s, which the benchmark measures. A test gives a busy
/// machine more time.
pub const ALLOWANCE: Duration = Duration::from_millis(1_500);

/// The server picks a connection at random, a frozen or dead one included, and again at each retry:
/// twice a second. That it picks the wrong one of two for this long has a chance of one in 60,000.
pub const LUCK: Duration = Duration::from_secs(9);

/// Waits until the flow `id` has ended, and returns `GET /flows/{id}`.
pub async fn ended(log: &Log, http: &Http, id: &str) -> Value {
    until(log, &format!("the end of flow {id}"), async || {
        let answer = http.get(&format!("/flows/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        (answer.body["state"] != "pending").then_some(answer.body)
    })
    .await
}

/// A flow that has started and whose request is open.
pub struct Running {
    pub flow: Flow,
    pub id: String,
    /// The promises of its three functions.
    pub promises: [String; 3],
    /// The promise of the function that works.
    pub worker: String,
    answer: JoinHandle<Answer>,
}

impl Running {
    /// Sends the request for a flow and returns as soon as the flow has started.
    pub async fn start(system: &System, name: &str, id: &str, query: &str) -> Self {
        let http = system.http();
        let path = format!("/{name}?id={id}&{query}");
        let request = http.clone();
        let answer = tokio::spawn(async move { request.post(&path).await });
        let started = until(&system.log, &format!("the start of {id}"), async || {
            let answer = http.get(&format!("/flows/{id}")).await;
            (answer.status == 200).then_some(answer.body)
        })
        .await;
        let promise = |n: usize| started["invocations"][n]["id"].as_str().unwrap().to_owned();
        let promises = [promise(0), promise(1), promise(2)];
        let flow = flow(name);
        let worker = promises[flow.works].clone();
        Self { flow, id: id.to_owned(), promises, worker, answer }
    }

    /// The promise of step `n` of its work, counted from 1.
    pub fn step(&self, n: usize) -> String {
        format!("{}.{}", self.worker, n - 1)
    }

    /// Waits for an event of step `n`.
    pub async fn at(&self, system: &System, message: &str, n: usize) -> Line {
        let step = self.step(n);
        let matches = |line: &Line| is_of_step(line, message, &step);
        system.log.line(&format!("{message:?} of {step}"), matches).await
    }

    /// Those of the first `steps` steps whose result is stored. None of them may run again.
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

    /// Waits for the answer to the request that started it.
    pub async fn answer(&mut self) -> Answer {
        (&mut self.answer).await.unwrap()
    }

    /// Waits for the end of the flow and asserts that its answer and its result are right.
    pub async fn finish(&mut self, system: &System) {
        let answer = self.answer().await;
        answer.expect_message(self.flow.message());
        let end = ended(&system.log, &system.http(), &self.id).await;
        assert_eq!(end["state"], "resolved", "{end:#}");
        assert_eq!(end["result"], self.flow.result(), "{end:#}");
    }
}

/// Whether `line` is an event with `message` about the step whose promise is `step`.
pub fn is_of_step(line: &Line, message: &str, step: &str) -> bool {
    line.field("step").is_some() && line.about(message, step)
}

/// Waits until a process other than `dead` runs `promise`. Returns how long after `since`.
pub async fn taken_over(system: &System, promise: &str, dead: &str, since: Instant) -> Duration {
    let starts = |line: &Line| {
        line.in_run("run started", promise) && line.at > since && line.instance() != dead
    };
    system.log.line(&format!("a takeover of {promise}"), starts).await.at - since
}

/// Asserts that a step has started `times` times.
pub fn expect_starts(system: &System, step: &str, times: usize) {
    let starts = system.log.all(|line| is_of_step(line, "step started", step));
    assert_eq!(starts.len(), times, "starts of step {step}: {starts:#?}");
}

/// Asserts that none of these stored steps has started again after `since`.
pub fn expect_not_again(system: &System, settled: &[String], since: Instant) {
    for step in settled {
        let again =
            system.log.all(|line| line.at > since && is_of_step(line, "step started", step));
        assert!(again.is_empty(), "{step} was stored and ran again: {again:#?}");
    }
}

/// Asserts that no step of any flow has started after its result was stored.
pub async fn expect_no_stored_step_again(system: &System) {
    let mut starts = Starts::default();
    system.log.all(|line| starts.note(line));
    let again = steps::run_again(&starts, &system.resonate()).await;
    assert!(again.is_empty(), "{again:#?}");
}
