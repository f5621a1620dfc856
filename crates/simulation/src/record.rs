//! What happened in a simulation: its event log, the spans that were exported, and violations.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Write,
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use opentelemetry::{SpanId, trace::SpanKind};
use opentelemetry_sdk::trace::SpanData;
use resonate_otel::attributes;

use crate::protocol::Protocol;

/// How many lines of the log are kept, unless all are.
const LINES: usize = 400;

/// Spans wait this long to be exported in batches.
const EXPORT_DELAY: Duration = Duration::from_millis(500);

/// Spans that others have as their parent wait this long at most: in a busy process.
const PARENT_DELAY: Duration = Duration::from_millis(200);

/// What happened. Clones share it.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    hasher: DefaultHasher,
    lines: VecDeque<String>,
    keep_all: bool,
    requests: u64,
    violations: Vec<String>,
    abandoned: Vec<String>,
    protocol: Protocol,
    spans: Vec<Exported>,
}

/// Whether others have the span as their parent from its first moment: flows, calls and roots.
fn is_parent(span: &SpanData) -> bool {
    span.span_kind == SpanKind::Producer
        || span.parent_span_id == SpanId::INVALID
        || span.attributes.iter().any(|attribute| attribute.key.as_str() == attributes::FLOW)
}

/// A span that a process made.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The process.
    pub instance: String,
    /// How often the process had been started before.
    pub life: u32,
    /// When it was made.
    pub made: Duration,
    /// The process was killed before it sent this span.
    pub lost: bool,
    /// The span.
    pub span: SpanData,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Keeps all lines of the log instead of the last ones.
    pub fn keep_all(&self) {
        self.lock().keep_all = true;
    }

    /// Adds a line to the event log. `more` counts for its hash only.
    pub(crate) fn event(&self, host: &str, text: &str, more: &str) {
        let now = virtual_time::now();
        let mut inner = self.lock();
        inner.hasher.write_u128(now.as_micros());
        for part in [host, text, more] {
            inner.hasher.write(part.as_bytes());
        }
        if inner.lines.len() >= LINES && !inner.keep_all {
            inner.lines.pop_front();
        }
        inner.lines.push_back(format!("{:>10.3} {host:<20} {text}", now.as_secs_f64()));
    }

    /// Something that must not happen has happened.
    pub fn violation(&self, text: String) {
        let now = virtual_time::now();
        let mut inner = self.lock();
        inner.lines.push_back(format!("{:>10.3} VIOLATION {text}", now.as_secs_f64()));
        inner.violations.push(format!("at {:.3} s: {text}", now.as_secs_f64()));
    }

    /// Checks a request that has taken effect, and its answer.
    pub(crate) fn handled(&self, host: &str, request: &str, answer: &str) {
        let mut inner = self.lock();
        inner.requests += 1;
        let (line, broken) = inner.protocol.handled(request, answer);
        drop(inner);
        self.event("server", &format!("{host}: {line}"), answer);
        broken.into_iter().for_each(|text| self.violation(format!("{host}: {text}")));
    }

    /// A process has ended as it was told to.
    pub(crate) fn ended(&self, host: &str) {
        let mut inner = self.lock();
        let held = inner.protocol.held_by(host);
        if !held.is_empty() {
            inner.abandoned.push(format!("{host} has ended and holds {held:?}"));
        }
    }

    /// Processes that ended as they were told to, and still held a task. It must not happen while
    /// the server can be reached.
    pub fn abandoned(&self) -> Vec<String> {
        self.lock().abandoned.clone()
    }

    /// The body of a step starts.
    pub(crate) fn step_started(&self, host: &str, promise: &str) {
        if self.lock().protocol.is_stored(promise) {
            self.violation(format!("{host}: step {promise} starts, and its result is stored"));
        }
    }

    pub(crate) fn exported(&self, span: Exported) {
        self.lock().spans.push(span);
    }

    /// A process is killed now: what it had not sent yet is lost.
    pub(crate) fn lose_spans(&self, instance: &str, life: u32, now: Duration) {
        let mut inner = self.lock();
        let mut of_process: Vec<_> = inner
            .spans
            .iter_mut()
            .filter(|exported| exported.life == life && exported.instance == instance)
            .collect();
        let sent = |delay| move |exported: &Exported| exported.made + delay <= now;
        // A step follows soon after what its code has made.
        let local = |exported: &&&mut Exported| !exported.span.parent_span_is_remote;
        let awaited: HashSet<SpanId> =
            of_process.iter().filter(local).map(|exported| exported.span.parent_span_id).collect();
        let is_parent =
            |span: &SpanData| is_parent(span) || awaited.contains(&span.span_context.span_id());
        // What is queued goes with a parent.
        let last = of_process.iter().rposition(|exported| {
            is_parent(&exported.span) && sent(PARENT_DELAY)(exported)
                || sent(EXPORT_DELAY)(exported)
        });
        let rest = last.map_or(0, |last| last + 1);
        of_process[rest..].iter_mut().for_each(|exported| exported.lost = true);
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Exported> {
        self.lock().spans.clone()
    }

    /// How many requests the server has handled.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// How many runs began because the lease of another one expired.
    pub fn takeovers(&self) -> u64 {
        self.lock().protocol.takeovers()
    }

    /// The violations so far.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A number that is the same for the same history.
    pub fn hash(&self) -> u64 {
        self.lock().hasher.finish()
    }

    /// The event log, or its end.
    pub fn log(&self) -> String {
        self.lock().lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
            text
        })
    }
}
