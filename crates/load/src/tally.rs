//! What was started, answered, right, wrong and lost so far.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::plan::{End, Plan};

/// How many wrong answers are shown. All are counted.
const SHOWN: usize = 20;

/// The counts of a run. Flows share it.
#[derive(Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    /// The flows whose end is not known, by id.
    open: Mutex<BTreeMap<String, Plan>>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// By the name of the flow.
    pub flows: BTreeMap<&'static str, FlowCounts>,
    /// With `--rate`: flows that were not started because too many were open.
    pub skipped: u64,
    /// What was wrong or lost, for a person: the first ones.
    pub problems: Vec<String>,
}

/// The counts of one flow, or of all.
#[derive(Debug, Clone)]
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
    pub latency: Histogram<u64>,
}

impl Default for FlowCounts {
    fn default() -> Self {
        // Three significant digits, without a bound.
        let latency = Histogram::new(3).expect("three digits are possible");
        Self { started: 0, right: 0, wrong: 0, lost: 0, retried: 0, latency }
    }
}

impl FlowCounts {
    /// Flows whose end is not known.
    pub fn open(&self) -> u64 {
        self.started - self.right - self.wrong - self.lost
    }

    /// The time within which this share of the flows was answered.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(share))
    }

    fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.right += other.right;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.retried += other.retried;
        self.latency += &other.latency;
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

    fn lock_open(&self) -> MutexGuard<'_, BTreeMap<String, Plan>> {
        self.open.lock().expect("no holder of this lock panics")
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// The flows whose end is not known.
    pub fn open(&self) -> Vec<Plan> {
        self.lock_open().values().cloned().collect()
    }

    /// A flow begins.
    pub fn started(&self, plan: &Plan) {
        self.lock().flow(plan).started += 1;
        self.lock_open().insert(plan.id.clone(), plan.clone());
    }

    /// The final answer came after this time.
    pub fn answered(&self, plan: &Plan, after: Duration) {
        // It grows as needed; it refuses only what does not fit 64 bits.
        let _ = self.lock().flow(plan).latency.record(after.as_micros() as u64);
    }

    /// A request is sent again.
    pub fn retried(&self, plan: &Plan) {
        self.lock().flow(plan).retried += 1;
    }

    /// A flow was not started.
    pub fn skipped(&self) {
        self.lock().skipped += 1;
    }

    /// A flow has ended.
    pub fn ended(&self, plan: &Plan, end: End) {
        // Whoever ends it first counts.
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
