//! The spans of runs and leases: what this process does from acquire to suspend, fulfil, release
//! or fence.

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

use wire::Promise;

use crate::{
    attributes as key,
    emit::{Emitter, Finished},
};

/// A run that lasts longer has a span of its lease.
const FIRST_LEASE_SPAN: Duration = Duration::from_millis(200);

/// After the first minute of a run, lease spans are this long.
const LATER_LEASE_SPANS: Duration = Duration::from_secs(60);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for other promises; another run continues when they are settled.
    Suspended,
    /// The function returned a value.
    Fulfilled,
    /// The function failed.
    Rejected,
    /// It was released for another process to continue.
    Released,
    /// Its lease was lost, or another run settled its promise.
    Fenced,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Fulfilled => "fulfilled",
            Self::Rejected => "rejected",
            Self::Released => "released",
            Self::Fenced => "fenced",
        }
    }
}

/// One run.
pub(crate) struct Run {
    version: i64,
    promise: String,
    function: String,
    group: Option<String>,
    /// The context in the promise's headers: the parent of all that the run emits.
    context: Context,
    start: SystemTime,
    lease: Duration,
    /// The end of the last lease span.
    marked: SystemTime,
    begun: Instant,
    /// The last heartbeat, or the acquisition.
    renewed: Instant,
    /// Steps that a dead run left pending: (promise id, instance, version of the task).
    inherited: Vec<(String, String, i64)>,
    timer: Option<AbortHandle>,
}

impl Run {
    pub fn new(
        version: i64,
        promise: &Promise,
        context: Context,
        start: SystemTime,
        lease: Duration,
    ) -> Self {
        Self {
            version,
            promise: promise.id.to_string(),
            function: promise.function().unwrap_or_default(),
            group: promise.group().map(str::to_owned),
            context,
            start,
            lease,
            marked: start,
            begun: Instant::now(),
            renewed: Instant::now(),
            inherited: Vec::new(),
            timer: None,
        }
    }

    /// Notes the pending steps that an earlier run began: it ended without settling them, so its
    /// lease expired. A run that is suspended, or that drains, leaves none.
    pub fn inherit<'a>(&mut self, pending: impl Iterator<Item = &'a Promise<'a>>) {
        for step in pending {
            let version =
                step.param.header(key::HEADER_VERSION).and_then(|version| version.parse().ok());
            if let (Some(instance), Some(version)) =
                (step.param.header(key::HEADER_INSTANCE), version)
                && version < self.version
            {
                self.inherited.push((step.id.to_string(), instance.to_owned(), version));
            }
        }
    }
}

/// The runs that have not ended, by the id of their task.
pub(crate) struct OpenRuns {
    runs: Arc<Mutex<HashMap<String, Run>>>,
    emitter: Option<Arc<Emitter>>,
    instance: String,
}

impl OpenRuns {
    /// Without an emitter, only the contexts of runs are kept.
    pub fn new(emitter: Option<Arc<Emitter>>, instance: &str) -> Self {
        Self { runs: Arc::default(), emitter, instance: instance.to_owned() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Run>> {
        self.runs.lock().expect("no holder of this lock panics")
    }

    /// The context that the promise of `task` carries, while it runs here.
    pub fn context(&self, task: &str) -> Option<Context> {
        self.lock().get(task).map(|run| run.context.clone())
    }

    /// The context of the run that `step` belongs to, and when that run took the step over from a
    /// dead one, if it did.
    pub fn step(&self, task: &str, step: &str) -> Option<(Context, Option<SystemTime>)> {
        let runs = self.lock();
        let run = runs.get(task)?;
        let taken_over = run.inherited.iter().any(|(id, ..)| id == step);
        Some((run.context.clone(), taken_over.then_some(run.start)))
    }

    /// A run has begun.
    pub fn begin(&self, task: &str, mut run: Run) {
        if let Some(emitter) = &self.emitter {
            self.emit_lost_leases(emitter, &run);
            let (runs, emitter, instance) =
                (self.runs.clone(), emitter.clone(), self.instance.clone());
            let (id, version) = (task.to_owned(), run.version);
            let timer = tokio::spawn(async move {
                tokio::time::sleep(FIRST_LEASE_SPAN).await;
                if let Some(run) = runs.lock().expect("no holder of this lock panics").get_mut(&id)
                    && run.version == version
                {
                    mark(&emitter, &instance, run);
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

    /// The server has confirmed a heartbeat of a run.
    pub fn heartbeat(&self, task: &str, version: i64) {
        let Some(emitter) = &self.emitter else { return };
        let mut runs = self.lock();
        let Some(run) = runs.get_mut(task).filter(|run| run.version == version) else { return };
        let gap = std::mem::replace(&mut run.renewed, Instant::now()).elapsed();
        if gap > run.lease {
            // The lease may have been lost in between, so no span covers this gap.
            run.marked = SystemTime::now();
            return;
        }
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
        let Some(emitter) = &self.emitter else { return };
        let mut attributes = of_run(&run);
        attributes.push(KeyValue::new(key::RUN_OUTCOME, outcome.as_str()));
        if !run.inherited.is_empty() {
            attributes.push(KeyValue::new(key::TAKEOVER, true));
        }
        emitter.emit(Finished {
            name: format!("{} on {}", run.function, self.instance).into(),
            kind: SpanKind::Internal,
            context: emitter.child(&run.context, "run", &SpanKind::Internal),
            parent: run.context.span().span_context().span_id(),
            start: run.start,
            end: SystemTime::now(),
            attributes,
            events: Vec::new(),
            status: Status::Unset,
        });
    }

    /// The spans of the time in which a dead process sent no heartbeat.
    fn emit_lost_leases(&self, emitter: &Emitter, run: &Run) {
        let mut reported = HashSet::new();
        for (_, instance, version) in &run.inherited {
            if !reported.insert(version) {
                continue;
            }
            // A step names the run that created it. If later runs of the step died too, the last
            // of them left no name.
            let name = match version + 1 == run.version {
                true => format!("lease of {instance} expired"),
                false => "lease expired".to_owned(),
            };
            let mut attributes = of_run(run);
            attributes.push(KeyValue::new(key::LEASE_INSTANCE, instance.clone()));
            emitter.emit(Finished {
                name: name.into(),
                kind: SpanKind::Internal,
                context: emitter.child(&run.context, "lease", &SpanKind::Internal),
                parent: run.context.span().span_context().span_id(),
                start: run.start - run.lease,
                end: run.start,
                attributes,
                events: Vec::new(),
                status: Status::error("no heartbeat for the length of the lease"),
            });
        }
    }
}

fn of_run(run: &Run) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new(key::PROMISE_ID, run.promise.clone()),
        KeyValue::new(key::FUNCTION, run.function.clone()),
        KeyValue::new(key::TASK_VERSION, run.version),
    ];
    attributes.extend(run.group.as_ref().map(|group| KeyValue::new(key::GROUP, group.clone())));
    attributes
}

/// Emits a lease span since the last one.
fn mark(emitter: &Emitter, instance: &str, run: &mut Run) {
    let now = SystemTime::now();
    emitter.emit(Finished {
        name: format!("lease on {instance}").into(),
        kind: SpanKind::Internal,
        context: emitter.child(&run.context, "lease", &SpanKind::Internal),
        parent: run.context.span().span_context().span_id(),
        start: std::mem::replace(&mut run.marked, now),
        end: now,
        attributes: of_run(run),
        events: Vec::new(),
        status: Status::Unset,
    });
}
