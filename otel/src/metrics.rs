//! The metrics of a process: what happens to invocations, runs, steps and requests, counted and timed.
//!
//! They come from the same observations as the spans, but also of flows that are not sampled, and
//! with tracing turned off. No attribute has an id of a promise or a flow.
//!
//! | part | what it knows |
//! | --- | --- |
//! | `instruments` | names, units and descriptions |
//! | `requests` | HTTP requests |
//! | `export` | the way to the collector; `off` without the feature `metrics` |

#[cfg(feature = "metrics")]
mod export;
mod instruments;
#[cfg(not(feature = "metrics"))]
mod off;
mod requests;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use opentelemetry::{KeyValue, SpanId, Value, metrics::Meter};
use wire::{Promise, PromiseState, tag};

#[cfg(feature = "metrics")]
pub(crate) use self::export::Export;
use self::instruments::Instruments;
#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::Export;
pub use self::requests::{Attempt, ClientRequests};
use crate::{
    attributes::{self as key, Subject},
    context,
    run_spans::{Outcome, Run},
};

/// What the semantic conventions call a value outside of a known set.
const OTHER: &str = "_OTHER";

/// Time-outs of promises that are remembered: a process can see the same one several times.
const TIME_OUTS: usize = 256;

/// The metrics of this process; none if they are turned off. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    instruments: Instruments,
    meter: Meter,
    /// The functions that this process runs, if it has said so.
    functions: OnceLock<HashSet<String>>,
    timed_out: Mutex<VecDeque<SpanId>>,
}

impl Metrics {
    pub(crate) fn new(meter: Meter) -> Self {
        Self(Some(Arc::new(Inner {
            instruments: Instruments::new(&meter),
            meter,
            functions: OnceLock::new(),
            timed_out: Mutex::default(),
        })))
    }

    /// Whether anything is measured.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Says which functions this process of `group` runs. From then on, any other name is `_OTHER` in
    /// metrics, because anybody can create a promise with any name. The counters of these functions
    /// are exported from the start.
    pub fn runs_only<'a>(&self, group: &str, functions: impl IntoIterator<Item = &'a str>) {
        let Some(inner) = &self.0 else { return };
        let functions =
            inner.functions.get_or_init(|| functions.into_iter().map(str::to_owned).collect());
        let group: Arc<str> = group.into();
        // A rate needs a value before the first increment.
        let Instruments { takeovers, fenced_runs, step_retries, active_runs, .. } =
            &inner.instruments;
        for function in functions {
            let (function, group) = (Some(function.as_str().into()), Some(group.clone()));
            let attributes = inner.attributes(&Subject { function, group });
            for counter in [takeovers, fenced_runs, step_retries] {
                counter.add(0, &attributes);
            }
            active_runs.add(0, &attributes);
        }
    }

    /// Whether the message stream of the Resonate Server is up, as `is_up` says at each export.
    pub fn message_stream(&self, is_up: impl Fn() -> bool + Send + Sync + 'static) {
        let Some(inner) = &self.0 else { return };
        inner
            .meter
            .u64_observable_gauge("resonate.message_stream.up")
            .with_unit("{stream}")
            .with_description("1 if the message stream from the Resonate Server is up, 0 if not.")
            .with_callback(move |observer| observer.observe(is_up().into(), &[]))
            .build();
    }

    /// A promise of `group` was rejected because no process can run it. `reason` is one of a few, such
    /// as `unknown_function`.
    pub fn poison_rejected(&self, group: &str, reason: &'static str) {
        let Some(Inner { instruments, .. }) = self.0.as_deref() else { return };
        let attributes =
            [KeyValue::new(key::GROUP, group.to_owned()), KeyValue::new(key::ERROR_TYPE, reason)];
        instruments.rejected_poison.add(1, &attributes);
    }

    pub(crate) fn run_begun(&self, run: &Run) {
        let Some(inner) = &self.0 else { return };
        let attributes = inner.attributes(&run.subject);
        inner.instruments.active_runs.add(1, &attributes);
        if run.version == 1 {
            // The clocks of server and process may differ a little.
            let queued = run.start.duration_since(run.created).unwrap_or_default();
            inner.instruments.queue.record(queued.as_secs_f64(), &attributes);
        }
        if let Some(predecessor) = &run.predecessor {
            inner.instruments.takeovers.add(1, &attributes);
            let instance = predecessor.instance.clone();
            let instance = instance.map(|instance| KeyValue::new(key::LEASE_INSTANCE, instance));
            let attributes: Vec<_> = attributes.into_iter().chain(instance).collect();
            inner.instruments.lost_leases.add(1, &attributes);
        }
    }

    pub(crate) fn run_ended(&self, run: &Run, outcome: Outcome) {
        let Some(inner) = &self.0 else { return };
        let attributes = inner.attributes(&run.subject);
        inner.instruments.active_runs.add(-1, &attributes);
        if outcome == Outcome::Fenced {
            inner.instruments.fenced_runs.add(1, &attributes);
        }
        let [function, group] = attributes;
        let attributes = [function, group, KeyValue::new(key::RUN_OUTCOME, outcome.as_str())];
        inner.instruments.run.record(run.duration().as_secs_f64(), &attributes);
    }

    pub(crate) fn step_settled(&self, of: &Subject, promise: &Promise) {
        let Some(inner) = &self.0 else { return };
        let [function, group] = inner.attributes(of);
        let attributes = [function, group, state(promise)];
        inner.instruments.step.record(duration(promise), &attributes);
    }

    pub(crate) fn step_retried(&self, of: &Subject) {
        let Some(inner) = &self.0 else { return };
        let attributes = inner.attributes(of);
        inner.instruments.step_retries.add(1, &attributes);
    }

    /// An invocation was settled by this process, or has timed out while this process ran or awaited
    /// it.
    pub(crate) fn invocation(&self, of: &Subject, promise: &Promise) {
        let Some(inner) = &self.0 else { return };
        if promise.state == PromiseState::RejectedTimedout && !inner.is_first(promise) {
            return;
        }
        let [function, group] = inner.attributes(of);
        let root = promise.tags.get(tag::ORIGIN).unwrap_or_else(|| wire::origin(&promise.id));
        let root = KeyValue::new(key::ROOT, root == promise.id);
        let attributes = [function, group, root, state(promise)];
        inner.instruments.invocation.record(duration(promise), &attributes);
    }
}

impl Inner {
    fn attributes(&self, Subject { function, group }: &Subject) -> [KeyValue; 2] {
        let known = self.functions.get();
        let is_known = |name: &&Arc<str>| known.is_none_or(|known| known.contains(&***name));
        let value =
            |name: Option<&Arc<str>>| name.map_or(Value::from(OTHER), |name| name.clone().into());
        [
            KeyValue::new(key::FUNCTION, value(function.as_ref().filter(is_known))),
            KeyValue::new(key::GROUP, value(group.as_ref())),
        ]
    }

    /// Whether the time-out of a promise is seen for the first time.
    fn is_first(&self, promise: &Promise) -> bool {
        let id = context::derived_span_id("timed out", promise);
        let mut seen = self.timed_out.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&id) {
            return false;
        }
        if seen.len() == TIME_OUTS {
            seen.pop_front();
        }
        seen.push_back(id);
        true
    }
}

fn state(promise: &Promise) -> KeyValue {
    KeyValue::new(key::PROMISE_STATE, promise.state.as_str())
}

/// From the creation of a promise to its settlement in seconds, by the server's clock.
fn duration(promise: &Promise) -> f64 {
    let end = context::time(promise.settled_at.unwrap_or(promise.created_at));
    let duration =
        |start: SystemTime| -> Duration { end.duration_since(start).unwrap_or_default() };
    duration(context::time(promise.created_at)).as_secs_f64()
}
