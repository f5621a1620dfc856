//! The spans of runs and leases: what this process does from acquire to suspend, fulfil, release
//! or fence.

mod leases;
mod outcome;
mod step_of;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{SpanKind, Status, TraceContextExt},
};
use tokio::{task::AbortHandle, time::Instant};

use wire::{Promise, tag};

pub(crate) use self::leases::Predecessor;
use self::leases::{emit_lost_lease, mark};
pub use self::outcome::Outcome;
pub(crate) use self::step_of::StepOf;

use crate::{
    attributes::{self as key, Subject},
    context::time,
    emit::{Emitter, Finished},
    metrics::Metrics,
    promise_spans::UNREADABLE,
    steps::is_below,
};

/// A run that lasts longer has a span of its lease.
const FIRST_LEASE_SPAN: Duration = Duration::from_millis(200);

/// After the first minute of a run, lease spans are this long.
const LATER_LEASE_SPANS: Duration = Duration::from_secs(60);

/// One run.
pub(crate) struct Run {
    pub version: i64,
    promise: Arc<str>,
    pub subject: Subject,
    /// The context in the promise's headers: the parent of all that the run emits.
    context: Context,
    pub start: SystemTime,
    lease: Duration,
    /// The end of the last lease span.
    marked: SystemTime,
    pub begun: Instant,
    /// When the last heartbeat that was confirmed, or the acquisition, was sent: at the server the
    /// lease lasts from then on at least.
    renewed: Instant,
    /// Whether the lease is held for certain. The server confirms heartbeats of lost leases too.
    held: bool,
    /// The last value of `renewed` while it was.
    certain: Instant,
    /// When the promise was created.
    pub created: SystemTime,
    branch: Option<String>,
    /// The steps that are not settled, by promise id.
    steps: HashSet<String>,
    /// Those among them that a dead run left.
    taken_over: HashSet<String>,
    /// The dead run, if this one takes over.
    pub predecessor: Option<Predecessor>,
    timer: Option<AbortHandle>,
    /// When the answer to its fulfil was lost. The run is over, and its promise will tell how.
    unanswered: Option<SystemTime>,
}

impl Run {
    pub fn new(
        version: i64,
        promise: &Promise,
        context: Context,
        start: SystemTime,
        (sent, lease): (Instant, Duration),
        measured: bool,
    ) -> Self {
        let observed = measured || context.span().span_context().is_sampled();
        Self {
            version,
            promise: Arc::from(&*promise.id),
            // To read the name of the function, a parameter is decoded.
            subject: if observed { Subject::of(promise) } else { Subject::default() },
            context,
            start,
            lease,
            marked: start,
            begun: Instant::now(),
            renewed: sent,
            held: true,
            certain: sent,
            created: time(promise.created_at),
            branch: promise.tags.get(tag::BRANCH).filter(|_| observed).map(str::to_owned),
            steps: HashSet::new(),
            taken_over: HashSet::new(),
            predecessor: None,
            timer: None,
            unanswered: None,
        }
    }

    /// Whether a lease that was renewed last at `renewed` has not ended at `now`.
    fn lasts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) <= self.lease
    }

    /// Notes the pending steps that earlier runs began. If the run before was not released, it ended
    /// without settling them: its lease expired. A run that is suspended leaves none.
    pub fn inherit<'a>(
        &mut self,
        pending: impl Iterator<Item = &'a Promise<'a>>,
        predecessor: Predecessor,
    ) {
        for step in pending {
            let version = step.param.header(key::HEADER_VERSION);
            let version = version.and_then(|version| version.parse::<i64>().ok());
            if version.is_some_and(|version| version < self.version) {
                self.steps.insert(step.id.to_string());
            }
        }
        if !self.steps.is_empty() && !predecessor.released {
            self.taken_over = self.steps.clone();
            self.predecessor = Some(predecessor);
        }
    }

    /// How long it has lasted.
    pub fn duration(&self) -> Duration {
        match self.unanswered {
            Some(end) => end.duration_since(self.start).unwrap_or_default(),
            None => self.begun.elapsed(),
        }
    }

    /// Whether it took over from a run whose lease expired.
    pub fn is_takeover(&self) -> bool {
        self.predecessor.is_some()
    }

    /// The branch that its steps are in, if the run after it can see them and is observed.
    pub fn branch(&self) -> Option<&str> {
        self.branch.as_deref()
    }
}

/// The runs that have not ended, by the id of their task.
pub(crate) struct OpenRuns {
    runs: Arc<Mutex<HashMap<String, Run>>>,
    emitter: Option<Arc<Emitter>>,
    metrics: Metrics,
    instance: String,
}

impl OpenRuns {
    /// Without an emitter, no span is made.
    pub fn new(emitter: Option<Arc<Emitter>>, metrics: Metrics, instance: &str) -> Self {
        Self { runs: Arc::default(), emitter, metrics, instance: instance.to_owned() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Run>> {
        self.runs.lock().expect("no holder of this lock panics")
    }

    /// The context that the promise of `task` carries, while it runs here.
    pub fn context(&self, task: &str) -> Option<Context> {
        self.lock().get(task).map(|run| run.context.clone())
    }

    /// The same, and what the run is about.
    pub fn about(&self, task: &str) -> Option<(Context, Subject)> {
        self.lock().get(task).map(|run| (run.context.clone(), run.subject.clone()))
    }

    /// The context of the innermost run that `promise` belongs to: its own, or that of the function
    /// whose step it is, however deep.
    pub fn enclosing(&self, promise: &str) -> Option<Context> {
        self.in_enclosing(promise, |run| run.context.clone())
    }

    /// What that run is about.
    pub fn subject(&self, promise: &str) -> Option<Subject> {
        self.in_enclosing(promise, |run| run.subject.clone())
    }

    fn in_enclosing<T>(&self, promise: &str, look: impl FnOnce(&Run) -> T) -> Option<T> {
        let runs = self.lock();
        let mut id = promise;
        loop {
            if let Some(run) = runs.get(id) {
                return Some(look(run));
            }
            (id, _) = id.rsplit_once('.')?;
        }
    }

    /// The runs of what the run of `task` calls, however deep, by the ids of their tasks.
    pub fn below(&self, task: &str) -> Vec<String> {
        self.lock().keys().filter(|id| is_below(id, task)).cloned().collect()
    }

    /// What the span of a step of the run of `task` needs to know of that run.
    pub fn step(&self, task: &str, step: &str) -> Option<StepOf> {
        self.lock().get(task).map(|run| StepOf::new(run, step))
    }

    /// The steps of the run of `task` that are not settled, by promise id.
    pub fn open_steps(&self, task: &str) -> Vec<(String, StepOf)> {
        let runs = self.lock();
        let Some(run) = runs.get(task) else { return Vec::new() };
        run.steps.iter().map(|step| (step.clone(), StepOf::new(run, step))).collect()
    }

    /// A run has created a step.
    pub fn step_begun(&self, task: &str, step: &str) {
        if let Some(run) = self.lock().get_mut(task) {
            run.steps.insert(step.to_owned());
        }
    }

    /// A run has settled a step.
    pub fn step_ended(&self, task: &str, step: &str) {
        if let Some(run) = self.lock().get_mut(task) {
            run.steps.remove(step);
        }
    }

    /// The branch of a run in the middle of a step.
    pub fn branch_in_a_step(&self, task: &str, version: i64) -> Option<String> {
        let runs = self.lock();
        let run = runs.get(task).filter(|run| run.version == version && !run.steps.is_empty());
        run?.branch().map(str::to_owned)
    }

    /// When the lease of the run of `task` ends, as far as is known: another process may hold the
    /// task from then on.
    pub fn lease_end(&self, task: &str) -> Option<SystemTime> {
        let runs = self.lock();
        let run = runs.get(task)?;
        Some(SystemTime::now() - run.certain.elapsed() + run.lease)
    }

    /// The answer to the fulfil of a run was lost. It ends when its promise tells how.
    pub fn await_outcome(&self, task: &str, version: i64) {
        if let Some(run) = self.lock().get_mut(task).filter(|run| run.version == version) {
            run.unanswered.get_or_insert(SystemTime::now());
        }
    }

    /// Whether the answer to the fulfil of a run was lost.
    pub fn awaits_outcome(&self, task: &str, version: i64) -> bool {
        let runs = self.lock();
        let run = runs.get(task).filter(|run| run.version == version);
        run.is_some_and(|run| run.unanswered.is_some())
    }

    /// A run has begun.
    pub fn begin(&self, task: &str, mut run: Run) {
        self.metrics.run_begun(&run);
        if let Some(emitter) = &self.emitter {
            emit_lost_lease(emitter, &run);
            let (runs, emitter, instance) =
                (self.runs.clone(), emitter.clone(), self.instance.clone());
            let (id, version) = (task.to_owned(), run.version);
            let timer = tokio::spawn(async move {
                tokio::time::sleep(FIRST_LEASE_SPAN).await;
                if let Some(run) = runs.lock().expect("no holder of this lock panics").get_mut(&id)
                    && run.version == version
                {
                    // This process may have been frozen since it acquired the task.
                    run.held &= run.lasts(Instant::now());
                    if run.held {
                        mark(&emitter, &instance, run);
                    }
                }
            });
            run.timer = Some(timer.abort_handle());
        }
        let before = self.lock().insert(task.to_owned(), run);
        // An earlier run of the task that never ended here: its lease expired unnoticed.
        if let Some(before) = before {
            self.emit_run(before, Outcome::Fenced);
        }
    }

    /// Ends a run and emits its span. False: it had ended before.
    pub fn end(&self, task: &str, version: i64, outcome: Outcome) -> bool {
        let run = {
            let mut runs = self.lock();
            match runs.get(task) {
                Some(run) if run.version == version => runs.remove(task),
                _ => None,
            }
        };
        let Some(run) = run else { return false };
        self.emit_run(run, outcome);
        true
    }

    /// The server has taken a write of a run, so the run holds its lease.
    pub fn confirm_lease(&self, task: &str, version: i64) {
        let mut runs = self.lock();
        if let Some(run) = runs.get_mut(task).filter(|run| run.version == version && !run.held) {
            run.held = true;
            run.certain = run.renewed;
            run.marked = SystemTime::now();
        }
    }

    /// The server has confirmed a heartbeat of a run, which was sent at `sent`.
    pub fn heartbeat(&self, task: &str, version: i64, sent: Instant) {
        let mut runs = self.lock();
        let Some(run) = runs.get_mut(task).filter(|run| run.version == version) else { return };
        // If the lease may have ended before this heartbeat arrived, the answer says nothing.
        run.held &= run.lasts(Instant::now());
        run.renewed = sent;
        if !run.held {
            return;
        }
        run.certain = sent;
        let Some(emitter) = &self.emitter else { return };
        let since = run.marked.elapsed().unwrap_or_default();
        let due = match run.begun.elapsed() {
            age if age < FIRST_LEASE_SPAN => false,
            age if age < LATER_LEASE_SPANS => true,
            _ => since >= LATER_LEASE_SPANS,
        };
        if due {
            mark(emitter, &self.instance, run);
        }
    }

    fn emit_run(&self, run: Run, outcome: Outcome) {
        if let Some(timer) = &run.timer {
            timer.abort();
        }
        self.metrics.run_ended(&run, outcome);
        let Some(emitter) = &self.emitter else { return };
        let mut attributes = of_run(&run);
        attributes.push(KeyValue::new(key::RUN_OUTCOME, outcome.as_str()));
        if run.is_takeover() {
            attributes.push(KeyValue::new(key::TAKEOVER, true));
        }
        let status = match outcome {
            Outcome::Suspended | Outcome::Fulfilled | Outcome::Released => Status::Unset,
            Outcome::Rejected => Status::error("the function failed"),
            Outcome::Fenced => Status::error("the lease was lost, or the promise is settled"),
        };
        if status != Status::Unset {
            attributes.push(KeyValue::new(key::ERROR_TYPE, outcome.as_str()));
        }
        // The first run takes the message of the call.
        let kind = match run.version {
            1 => {
                let group = run.subject.group.clone();
                attributes.extend(key::messaging("run", "process", group, run.promise.clone()));
                SpanKind::Consumer
            }
            _ => SpanKind::Internal,
        };
        emitter.emit(Finished {
            name: format!(
                "{} on {}",
                run.subject.function.as_deref().unwrap_or(UNREADABLE),
                self.instance
            )
            .into(),
            context: emitter.child(&run.context, "run", &kind),
            kind,
            parent: run.context.span().span_context().span_id(),
            start: run.start,
            end: run.unanswered.unwrap_or_else(SystemTime::now),
            attributes,
            events: Vec::new(),
            status,
        });
    }
}

fn of_run(run: &Run) -> Vec<KeyValue> {
    about(run, run.promise.clone())
}

/// The attributes of a span about `promise`, which the run belongs to or has made.
fn about(run: &Run, promise: Arc<str>) -> Vec<KeyValue> {
    let version = KeyValue::new(key::TASK_VERSION, run.version);
    run.subject.attributes(promise).chain([version]).collect()
}
