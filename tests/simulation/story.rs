//! One random history of the whole system, and what it is judged by.

use std::{fmt::Write, time::Duration};

use axum::http::Method;
use flows::{FLOWS, Flow, Options};
use node::config::ServiceSettings;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use simulation::{
    World,
    faults::{self, Cut, Fate, Fault, What, milliseconds},
    identity, settings, simulate,
};

use crate::{front::Front, spans};

/// Faults begin within this time.
const TIME: Duration = Duration::from_secs(30);

/// A history must have ended by then: 200 seconds after the last fault can have ended.
const LIMIT: Duration = Duration::from_secs(260);

/// After its end, a history goes on for this long: then nothing may be left.
const REST: Duration = Duration::from_secs(15);

/// What a flow may cost on average, in requests and message streams, with all repeats.
const MOST_REQUESTS: u64 = 400;

/// What became of a history.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    pub seed: u64,
    pub hash: u64,
    pub faults: usize,
    pub flows: usize,
    pub requests: u64,
    pub takeovers: u64,
    pub spans: usize,
    pub orphans: usize,
    /// Virtual seconds.
    pub time: f64,
    /// Virtual seconds from the end of the last fault to the end of the last flow.
    pub settled: f64,
    pub violations: Vec<String>,
    pub plan: Vec<String>,
    pub log: String,
}

/// How a seed's history is changed.
#[derive(Clone, Default)]
pub struct Variation {
    /// Only these faults of the plan happen.
    pub only: Option<Vec<usize>>,
    /// The whole event log is kept.
    pub log: bool,
}

struct Wanted {
    flow: &'static Flow,
    id: String,
    start: Duration,
    options: Options,
    hang_up: Option<Duration>,
    /// How long after its start it is canceled.
    cancel: Option<Duration>,
}

impl Wanted {
    fn random(rng: &mut StdRng, number: usize) -> Self {
        let flow = FLOWS.choose(rng).unwrap();
        let mut some =
            |chance, least, most| rng.random_bool(chance).then(|| milliseconds(rng, least, most));
        let options = Options {
            work: some(0.7, 100, 6_000),
            sleep: some(0.3, 100, 5_000),
            fail: some(0.3, 0, 6).map(|failures| failures.as_millis() as u32),
        };
        let hang_up = some(0.15, 1, 4_000);
        let start = some(1.0, 0, 27_000).unwrap();
        let cancel = some(0.15, 0, 8_000);
        Self { flow, id: format!("flow-{number:02}"), start, options, hang_up, cancel }
    }

    /// The function that fails has five attempts.
    fn fails(&self) -> bool {
        self.options.fail >= Some(5)
    }

    fn path(&self) -> String {
        let mut path = format!("/{}?id={}", self.flow.name, self.id);
        for (name, value) in self.options.named() {
            if let Some(value) = value {
                write!(path, "&{name}={value}").unwrap();
            }
        }
        path
    }

    /// Cancels the flow if it is to be canceled. Returns whether that took effect, and what is wrong.
    async fn cancel(&self, front: &Front) -> (bool, Vec<String>) {
        let Some(cancel) = self.cancel else { return (false, Vec::new()) };
        tokio::time::sleep(cancel).await;
        let path = format!("/flows/{}", self.id);
        let Answer { status, body } = front.ask(Method::DELETE, &path, None).await;
        let invocations = body["invocations"].as_array();
        let open = invocations.is_none_or(|all| all.iter().any(|one| one["state"] == "pending"));
        let (canceled, right) = match (status, body["state"].as_str()) {
            // The flow has not started yet.
            (404, _) => (false, true),
            (200, Some("rejected_canceled")) => (true, !open),
            (200, Some("resolved" | "rejected")) => (false, true),
            _ => (false, false),
        };
        let wrong = (!right).then(|| format!("DELETE {path}: {status} {body}"));
        (canceled, wrong.into_iter().collect())
    }

    /// Plays the client of this flow; returns what is wrong.
    async fn play(self, front: Front) -> Vec<String> {
        tokio::time::sleep(self.start).await;
        let path = self.path();
        let start = front.ask(Method::POST, &path, self.hang_up);
        let (answer, (canceled, mut wrong)) = tokio::join!(start, self.cancel(&front));
        let (status, body) = (answer.status, &answer.body);
        let detached = matches!(self.flow.answer, flows::Answer::AtOnce(_));
        let right = match status {
            // A detached flow that was asked for again may be done, or may have failed.
            200 if detached => body["message"].is_string(),
            200 => !self.fails() && body["message"] == self.flow.message(),
            202 => !detached,
            409 => canceled,
            502 => self.fails() && body["error"].as_str().is_some_and(as_requested),
            _ => false,
        };
        if !right {
            wrong.push(format!("POST {}: {status} {body}", self.path()));
        }
        let path = format!("/flows/{}", self.id);
        loop {
            let Answer { status, body } = front.ask(Method::GET, &path, None).await;
            let ended = |state: &Value| *state != "pending" && !state.is_null();
            let invocations = body["invocations"].as_array();
            let all = invocations.is_some_and(|all| {
                // After a failure, the functions that would come next are not called.
                all.iter().all(|one| ended(&one["state"]) || one["state"].is_null())
            });
            if status != 200 {
                wrong.push(format!("GET {path}: {status} {body}"));
                return wrong;
            }
            if all && ended(&body["state"]) {
                let (state, result) = match self.fails() {
                    _ if canceled => ("rejected_canceled", Value::Null),
                    true => ("rejected", Value::Null),
                    false => ("resolved", self.flow.result()),
                };
                if body["state"] != state || body.get("result").unwrap_or(&json!(null)) != &result {
                    wrong.push(format!("{} ended as {body}, not {state}", self.path()));
                }
                return wrong;
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
}

use crate::front::Answer;

fn as_requested(error: &str) -> bool {
    error.starts_with("failed as requested (attempt 5")
}

/// The faults of a history. Some have none, some only those that leave every process alive and in
/// touch: more must hold for them.
fn plan(rng: &mut StdRng, seed: u64, processes: &[String]) -> (Kind, Vec<Fault>) {
    let count = rng.random_range(10..80);
    let all = faults::random(rng, processes, count, TIME);
    match seed % 10 {
        0 => (Kind::Calm, Vec::new()),
        5 => (Kind::Mild, all.into_iter().filter(is_mild).collect()),
        _ => (Kind::Wild, all),
    }
}

fn is_mild(fault: &Fault) -> bool {
    match fault.what {
        What::Request(Fate::Late(late)) => late < Duration::from_secs(1),
        What::Request(Fate::Lost | Fate::Replaced(false, _) | Fate::Doubled | Fate::Refused) => {
            true
        }
        What::Cut(length, Cut::Holds) | What::Freeze(length) => length < Duration::from_secs(1),
        What::Streams(..) | What::Stop(_) => true,
        _ => false,
    }
}

/// What kind of faults a history has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Calm,
    Mild,
    Wild,
}

/// Lives through the history of `seed`.
pub fn live(seed: u64, variation: &Variation) -> Outcome {
    simulate(seed, |world| history(world, seed, variation))
}

fn history(mut world: World, seed: u64, variation: &Variation) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let ms = Duration::from_millis;
    let pick = |rng: &mut StdRng, of: &[u64]| ms(*of.choose(rng).unwrap());
    let (latency, tick) = (pick(&mut rng, &[5, 20, 60]), pick(&mut rng, &[2, 5, 10]));
    let longest = pick(&mut rng, &[20, 50, 100]);
    world.pace(latency, tick, longest);
    if variation.log {
        world.record().keep_all();
    }
    let front = Front::default();
    let (socket, config) = (front.clone(), settings::<gateway::Settings>(&["--await=20s"]));
    world.process(identity(gateway::GROUP, "gateway"), move |process| {
        socket.clone().serve(config.clone(), process)
    });
    let count = rng.random_range(8..=20);
    let wanted: Vec<Wanted> = (0..count).map(|number| Wanted::random(&mut rng, number)).collect();
    for (flow, services) in SERVICES {
        if wanted.iter().any(|one| one.flow.name == *flow) {
            for service in services {
                let group = service().group();
                for instance in [group.to_owned(), format!("{group}-replica")] {
                    world.service(&instance, settings::<ServiceSettings>(&[]), *service);
                }
            }
        }
    }
    let (kind, mut plan) = plan(&mut rng, seed, &world.processes());
    if let Some(only) = &variation.only {
        let mut place = 0..;
        plan.retain(|_| place.next().is_some_and(|place| only.contains(&place)));
    }
    let printed: Vec<String> = plan.iter().map(Fault::to_string).collect();
    let last = plan.iter().map(Fault::end).max().unwrap_or_default();
    world.plan(plan);

    let played = world.run(LIMIT, move |_| async move {
        let mut clients = tokio::task::JoinSet::new();
        for one in wanted {
            clients.spawn(one.play(front.clone()));
        }
        clients.join_all().await.concat()
    });
    let ended = world.now();
    let violation = |text: String| world.record().violation(text);
    match played {
        Ok(wrong) => wrong.into_iter().for_each(violation),
        Err(stuck) => violation(format!("{stuck}; open: {:?}", world.tables())),
    }
    world.pass(REST);
    for (process, table, len) in world.tables() {
        world.record().violation(format!("{process}: {len} {table} are left"));
    }
    if kind == Kind::Mild {
        world.record().abandoned().into_iter().for_each(|text| world.record().violation(text));
    }
    let most = MOST_REQUESTS * count as u64;
    if world.requests() > most {
        world.record().violation(format!("{} requests: it spins", world.requests()));
    }
    let spans = world.record().spans();
    let (orphans, broken) = spans::check(&spans, kind);
    broken.into_iter().for_each(|text| world.record().violation(text));
    let record = world.record();
    Outcome {
        seed,
        hash: record.hash(),
        faults: printed.len(),
        flows: count,
        requests: world.requests(),
        takeovers: record.takeovers(),
        spans: spans.len(),
        orphans,
        time: world.now().as_secs_f64(),
        settled: ended.saturating_sub(last).as_secs_f64(),
        violations: record.violations(),
        plan: printed,
        log: record.log(),
    }
}

type Make = fn() -> node::Service;

/// The services of each flow.
const SERVICES: &[(&str, [Make; 3])] = &[
    ("await-chain", [service_a::service, service_b::service, service_c::service]),
    ("detached-chain", [service_d::service, service_e::service, service_f::service]),
    ("fan-out-workflow", [service_g::service, service_h::service, service_i::service]),
];
