//! Clients: they start random flows, and judge every answer and every end.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use flows::{FLOWS, Options};
use futures_util::future::join_all;
use load::{End, Plan, Verdict};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use testkit::{Http, System};
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

/// A flow, and whether its client is impatient.
struct Client {
    plan: Plan,
    hangs_up: bool,
}

impl Client {
    fn random(random: &mut StdRng, id: String) -> Self {
        let flow = &FLOWS[random.random_range(0..FLOWS.len())];
        let mut one_in = |n: u32| random.random_ratio(1, n);
        let (works, sleeps, fails) = (one_in(2), one_in(4), one_in(4));
        let work = Duration::from_secs(random.random_range(1..=5));
        let sleep = Duration::from_millis(random.random_range(100..3_000));
        let fail = [1, 2, 3, 5][random.random_range(0..4)];
        let options = Options {
            work: works.then_some(work),
            sleep: sleeps.then_some(sleep),
            fail: fails.then_some(fail),
        };
        Self { plan: Plan { flow, id, options }, hangs_up: random.random_ratio(1, 10) }
    }
}

/// How long a flow takes without faults: four delays between attempts are 100 to 3,000 ms.
fn usual(options: &Options) -> Duration {
    options.work.unwrap_or_default()
        + options.sleep.unwrap_or_default()
        + Duration::from_millis(100) * (2_u32.pow(options.fail.unwrap_or_default().min(4)) - 1)
}

/// Whether an answer is final. Err: it is wrong.
fn is_final(verdict: Verdict) -> Result<bool, String> {
    match verdict {
        Verdict::Ended(End::Right) | Verdict::Running => Ok(true),
        Verdict::Again(_) => Ok(false),
        Verdict::Ended(End::Wrong(text) | End::Lost(text)) => Err(text),
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
            let client = Client::random(&mut random, format!("soak-{client}-{n}"));
            let (begin, plan) = (Instant::now(), &client.plan);
            self.report.lock().unwrap().open.insert(plan.id.clone());
            let result = self.flow(&client).await;
            let mut report = self.report.lock().unwrap();
            if let Err(violation) = result {
                report.violation(violation);
            }
            report.end(&plan.id, begin.elapsed().saturating_sub(usual(&plan.options)));
            drop(report);
            // One flow after the other would be a benchmark.
            sleep(Duration::from_millis(random.random_range(0..500))).await;
        }
    }

    /// One flow, from its start to its end.
    async fn flow(&self, Client { plan, hangs_up }: &Client) -> Result<(), String> {
        let http = self.system.http();
        let (mut hangs_up, path) = (*hangs_up, plan.path());
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
                && is_final(plan.judge(answer.code(), &answer.headers, &answer.text))?
            {
                break;
            }
            sleep(PAUSE).await;
        }
        self.end(&http, plan).await?;
        self.report.lock().unwrap().detached += usize::from(plan.is_detached() && !plan.fails());
        Ok(())
    }

    /// Waits for the end of a flow that was accepted.
    async fn end(&self, http: &Http, plan: &Plan) -> Result<(), String> {
        loop {
            if let Ok(answer) = http.send(Method::GET, &plan.inspection(), &[]).await {
                let verdict = plan.judge_end(answer.code(), &answer.headers, &answer.text);
                if verdict != Verdict::Running && is_final(verdict)? {
                    return Ok(());
                }
            }
            sleep(PAUSE).await;
        }
    }
}
