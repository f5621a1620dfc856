//! Clients: they start random flows, and judge every answer and every end.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use testkit::{Answer, FLOWS, Http, System, flows::Flow};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::report::Report;

/// The pause before a request is repeated, and between two looks at a flow.
const PAUSE: Duration = Duration::from_millis(250);

/// When a client that is impatient hangs up.
const IMPATIENT: Duration = Duration::from_millis(300);

/// What all clients share.
pub struct Clients<'a> {
    pub system: &'a System,
    pub report: &'a Mutex<Report>,
    /// No new flow is started once this is true.
    pub over: watch::Receiver<bool>,
    pub seed: u64,
}

/// A flow, and what is asked of it.
struct Plan {
    flow: Flow,
    id: String,
    /// Seconds.
    work: u64,
    /// Milliseconds.
    sleep: u64,
    fail: u64,
    hangs_up: bool,
}

impl Plan {
    fn random(random: &mut StdRng, id: String) -> Self {
        let flow = FLOWS[random.random_range(0..FLOWS.len())];
        let mut one_in = |n: u32, value: u64| if random.random_ratio(1, n) { value } else { 0 };
        let (work, sleep, fail) = (one_in(2, 1), one_in(4, 1), one_in(4, 1));
        Self {
            flow,
            id,
            work: work * random.random_range(1..=5),
            sleep: sleep * random.random_range(100..3_000),
            // From 5 on, the flow fails.
            fail: fail * [1, 2, 3, 5][random.random_range(0..4)],
            hangs_up: random.random_ratio(1, 10),
        }
    }

    fn path(&self) -> String {
        let mut path = format!("/{}?id={}", self.flow.name, self.id);
        for (name, value, unit) in
            [("work", self.work, "s"), ("sleep", self.sleep, "ms"), ("fail", self.fail, "")]
        {
            if value > 0 {
                path += &format!("&{name}={value}{unit}");
            }
        }
        path
    }

    fn fails(&self) -> bool {
        self.fail >= 5
    }

    /// How long it takes without faults: four delays between attempts are 100 to 3,000 ms.
    fn usual(&self) -> Duration {
        Duration::from_secs(self.work)
            + Duration::from_millis(self.sleep)
            + Duration::from_millis(100) * (2_u32.pow(self.fail.min(4) as u32) - 1)
    }

    /// Whether this answer to the `POST` is final, or the request is to be repeated.
    fn judge(&self, answer: &Answer) -> Result<bool, String> {
        let detached = self.flow.is_detached();
        let message = &answer.body["message"];
        let right = match answer.status {
            // Who starts a flow that nobody waits for, or finds it still running, is told so.
            200 if detached => {
                *message == self.flow.message()
                    || (!self.fails() && *message == self.flow.message_again())
            }
            200 => !self.fails() && *message == self.flow.message(),
            202 => !detached && answer.header("location") == format!("/flows/{}", self.id),
            502 => self.fails(),
            503 => {
                return (!answer.header("retry-after").is_empty())
                    .then_some(false)
                    .ok_or_else(|| format!("{}: 503 without Retry-After", self.id));
            }
            _ => false,
        };
        right
            .then_some(true)
            .ok_or_else(|| format!("{}: {} {}", self.path(), answer.status, answer.text))
    }

    /// Whether what `GET /flows/{id}` shows at the end is right.
    fn judge_end(&self, end: &serde_json::Value) -> Result<(), String> {
        let states = end["invocations"].as_array().into_iter().flatten().map(|it| &it["state"]);
        let right = if self.fails() {
            end["state"] == "rejected"
                && end["error"]
                    .as_str()
                    .is_some_and(|it| it.contains("failed as requested (attempt 5"))
        } else {
            end["state"] == "resolved"
                && end["result"] == self.flow.result()
                && states.clone().count() == 3
                && states.clone().all(|state| state == "resolved")
        };
        right.then_some(()).ok_or_else(|| format!("{}: {end}", self.path()))
    }
}

impl Clients<'_> {
    /// Runs flows until the faults are over and every flow has ended.
    pub async fn run(&self, count: u64) {
        join_all((0..count).map(|client| self.client(client))).await;
    }

    async fn client(&self, client: u64) {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_add(1 + client));
        for n in 0.. {
            if *self.over.borrow() {
                return;
            }
            let plan = Plan::random(&mut random, format!("soak-{client}-{n}"));
            let begin = Instant::now();
            self.report.lock().unwrap().open.insert(plan.id.clone());
            let result = self.flow(&plan).await;
            let mut report = self.report.lock().unwrap();
            if let Err(violation) = result {
                report.violation(violation);
            }
            report.end(&plan.id, begin.elapsed().saturating_sub(plan.usual()));
            drop(report);
            // One flow after the other would be a benchmark.
            sleep(Duration::from_millis(random.random_range(0..500))).await;
        }
    }

    /// One flow, from its start to its end.
    async fn flow(&self, plan: &Plan) -> Result<(), String> {
        let http = self.system.http();
        let (mut hangs_up, path) = (plan.hangs_up, plan.path());
        loop {
            let request = http.send(Method::POST, &path, &[]);
            let answer = if std::mem::take(&mut hangs_up) {
                timeout(IMPATIENT, request).await.ok()
            } else {
                Some(request.await)
            };
            let kind = match &answer {
                None => "client hung up".to_owned(),
                Some(Err(_)) => "none: the gateway was killed or stopped".to_owned(),
                Some(Ok(answer)) => answer.status.to_string(),
            };
            self.report.lock().unwrap().answer(kind);
            if let Some(Ok(answer)) = answer
                && plan.judge(&answer)?
            {
                break;
            }
            sleep(PAUSE).await;
        }
        plan.judge_end(&self.end(&http, &plan.id).await?)?;
        self.report.lock().unwrap().detached +=
            usize::from(plan.flow.is_detached() && !plan.fails());
        Ok(())
    }

    /// Waits for the end of a flow that was accepted.
    async fn end(&self, http: &Http, id: &str) -> Result<serde_json::Value, String> {
        loop {
            if let Ok(answer) = http.send(Method::GET, &format!("/flows/{id}"), &[]).await {
                match answer.status {
                    200 if answer.body["state"] != "pending" => return Ok(answer.body),
                    200 | 503 => {}
                    _ => return Err(format!("GET /flows/{id}: {} {}", answer.status, answer.text)),
                }
            }
            sleep(PAUSE).await;
        }
    }
}
