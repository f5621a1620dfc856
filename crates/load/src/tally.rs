//! What was started, answered, right, wrong and lost so far.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::plan::{End, Plan};

/// How many wrong answers are shown. All are counted.
const SHOWN: usize = 20;

/// The counts of a run. Flows share it.
#[derive(Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    /// The flows whose end is not known, by id.
    open: Mutex<BTreeMap<String, Open>>,
}

/// A flow whose end is not known.
#[derive(Debug, Clone)]
pub struct Open {
    /// The flow.
    pub plan: Plan,
    /// When it was started.
    pub since: Instant,
}

/// The counts at one moment.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// By the name of the flow.
    pub flows: BTreeMap<&'static str, FlowCounts>,
    /// With `--rate`: flows that were not started because too many were open.
    pub skipped: u64,
    /// Processes that were crashed.
    pub crashes: u64,
    /// From a crash to the takeover, as seen from here. In microseconds.
    pub takeovers: Latency,
    /// The first flows that were wrong or lost, each as a line of text.
    pub problems: Vec<String>,
}

/// The counts of one flow, or of all.
#[derive(Debug, Clone, Default)]
pub struct FlowCounts {
    pub started: u64,
    /// Answered as documented; and ended as documented, if nobody waits for the end.
    pub right: u64,
    pub wrong: u64,
    /// Forgotten, or not ended in time.
    pub lost: u64,
    /// Requests that were sent again.
    pub retried: u64,
    /// From the request to the final answer, retries included. In microseconds.
    pub latency: Latency,
}

/// Times in microseconds, to three significant digits.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are possible"))
    }
}

impl Latency {
    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of all took at most.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    fn record(&mut self, time: Duration) {
        // It grows as needed; it refuses only what does not fit 64 bits.
        let _ = self.0.record(time.as_micros() as u64);
    }
}

impl FlowCounts {
    /// Flows whose end is not known.
    pub fn open(&self) -> u64 {
        self.started - self.right - self.wrong - self.lost
    }

    fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.right += other.right;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.retried += other.retried;
        self.latency.0 += &other.latency.0;
    }
}

impl Counts {
    /// All flows together.
    pub fn all(&self) -> FlowCounts {
        let mut all = FlowCounts::default();
        self.flows.values().for_each(|flow| all.add(flow));
        all
    }

    fn flow(&mut self, plan: &Plan) -> &mut FlowCounts {
        self.flows.entry(plan.flow.name).or_default()
    }
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder of this lock panics")
    }

    fn lock_open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().expect("no holder of this lock panics")
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// The flows whose end is not known.
    pub fn open(&self) -> Vec<Open> {
        self.lock_open().values().cloned().collect()
    }

    /// A flow begins.
    pub fn started(&self, plan: &Plan) {
        self.lock().flow(plan).started += 1;
        let open = Open { plan: plan.clone(), since: Instant::now() };
        self.lock_open().insert(plan.id.clone(), open);
    }

    /// The final answer came after this time.
    pub fn answered(&self, plan: &Plan, after: Duration) {
        self.lock().flow(plan).latency.record(after);
    }

    /// A request is sent again.
    pub fn retried(&self, plan: &Plan) {
        self.lock().flow(plan).retried += 1;
    }

    /// A process was crashed.
    pub fn crashed(&self) {
        self.lock().crashes += 1;
    }

    /// Another process has taken over from one that was crashed, this time after the crash.
    pub fn taken_over(&self, after: Duration) {
        self.lock().takeovers.record(after);
    }

    /// A flow was not started.
    pub fn skipped(&self) {
        self.lock().skipped += 1;
    }

    /// A flow has ended.
    pub fn ended(&self, plan: &Plan, end: End) {
        // The first end counts.
        if self.lock_open().remove(&plan.id).is_none() {
            return;
        }
        let mut counts = self.lock();
        let flow = counts.flow(plan);
        let problem = match end {
            End::Right => {
                flow.right += 1;
                return;
            }
            End::Wrong(text) => {
                flow.wrong += 1;
                format!("wrong: {text}")
            }
            End::Lost(text) => {
                flow.lost += 1;
                format!("lost: {text}")
            }
        };
        if counts.problems.len() < SHOWN {
            counts.problems.push(problem);
        }
    }
}
