//! A span processor with a thread, a bounded queue and a count for every span.
//!
//! The SDK's `BatchSpanProcessor` gives up a batch when the exporter does, exports at fixed
//! intervals, does not tell what it dropped, and forgets what it holds when a shutdown times out.
//! Here a refused batch is sent again before anything else, the spans that others have as their
//! parent are exported first or soon after them, and the counts add up, whatever happens.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use opentelemetry::{Context, SpanId, trace::SpanKind};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanProcessor},
};

use super::{Answer, Counts, Sender, losses::Log};
use crate::attributes as key;

/// Time between two exports, if spans wait that others have as their parent: the first value, and more
/// for each span of the last batch. An export costs about a quarter of a millisecond of CPU, so a busy
/// process makes fewer of them.
const PARENTS: Duration = Duration::from_millis(50);
const PARENTS_PER_SPAN: Duration = Duration::from_millis(5);
const PARENTS_AT_MOST: Duration = Duration::from_millis(200);

/// How long a flush may take.
const FLUSH: Duration = Duration::from_secs(5);

/// Backoff after a refused batch: it doubles from the first to the last.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// A batch is given up once the collector has answered it with temporary errors for this long: the
/// batch itself may be the cause.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How spans are batched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Spans that wait or are on their way, at most.
    pub queue: usize,
    /// Spans in one export, at most.
    pub batch: usize,
    /// How long a span waits for its export.
    pub delay: Duration,
    /// See [`PATIENCE`].
    pub patience: Duration,
}

/// The processor. Its thread ends with it.
#[derive(Debug)]
pub(crate) struct Batches(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    counts: Arc<Counts>,
    log: Log,
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// All spans are accounted for.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<SpanData>,
    /// Parents of spans that were exported before them.
    awaited: HashSet<SpanId>,
    /// Spans of the batch that is sent, or sent again.
    in_flight: usize,
    /// When the next export is due.
    due: Option<Instant>,
    /// When the next export for the sake of parents may begin.
    parents_from: Option<Instant>,
    /// Somebody waits for all spans to be exported.
    flush: bool,
    /// The process ends, and waits for all spans.
    ending: bool,
    /// Nothing more is exported.
    ended: bool,
}

impl State {
    /// Notes the parents that a batch lacks: those of spans that code in a step made, as the step ends
    /// later. This crate's own spans call their parents remote: these were exported before.
    fn await_parents(&mut self, batch: &[SpanData], most: usize) {
        let local = |span: &&SpanData| !span.parent_span_is_remote;
        for span in batch.iter().filter(local) {
            // Parents that never come, or have come already, leave their ids behind.
            if self.awaited.len() >= most {
                self.awaited.clear();
            }
            self.awaited.insert(span.parent_span_id);
        }
        for span in batch {
            self.awaited.remove(&span.span_context.span_id());
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }
}

impl Batches {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn start(
        sender: impl Sender,
        bounds: Bounds,
        counts: Arc<Counts>,
        log: Log,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            bounds,
            counts,
            log,
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let thread = shared.clone();
        std::thread::Builder::new().name("span-export".to_owned()).spawn(move || {
            // What the HTTP client says about an export is not to be exported.
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            thread.run(sender);
        })?;
        Ok(Self(shared))
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.0.end(Duration::ZERO);
    }
}

impl SpanProcessor for Batches {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.push(span, Instant::now());
    }

    fn force_flush(&self) -> OTelSdkResult {
        let shared = &self.0;
        let mut state = shared.lock();
        state.flush = true;
        shared.work.notify_one();
        let pending = |state: &mut State| !state.ended && !state.is_idle();
        let waited = shared.idle.wait_timeout_while(state, FLUSH, pending);
        match waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            true => Err(OTelSdkError::Timeout(FLUSH)),
            false => Ok(()),
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        match self.0.end(timeout) {
            0 => Ok(()),
            _ => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

/// The time from the start of an export of `spans` to the next one for the sake of parents.
fn pause_after(spans: usize) -> Duration {
    (PARENTS + PARENTS_PER_SPAN * spans as u32).min(PARENTS_AT_MOST)
}

/// Whether others have the span as their parent from its first moment: flows, calls and roots.
fn is_parent(span: &SpanData) -> bool {
    span.span_kind == SpanKind::Producer
        || span.parent_span_id == SpanId::INVALID
        || span.attributes.iter().any(|attribute| attribute.key.as_str() == key::FLOW)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, span: SpanData, now: Instant) {
        let add = |count: &AtomicU64| count.fetch_add(1, Relaxed);
        let mut state = self.lock();
        add(&self.counts.made);
        if state.ended {
            add(&self.counts.given_up);
            return;
        }
        if state.queue.len() + state.in_flight >= self.bounds.queue {
            add(&self.counts.dropped);
            // The thread reports it: this may run inside a layer of the log.
            self.work.notify_one();
            return;
        }
        let is_parent = is_parent(&span) || state.awaited.contains(&span.span_context.span_id());
        let due = match is_parent {
            true => state.parents_from.map_or(now, |from| now.max(from)),
            false => now + self.bounds.delay,
        };
        state.queue.push_back(span);
        if state.due.is_none_or(|earlier| due < earlier) {
            state.due = Some(due);
            self.work.notify_one();
        } else if state.queue.len() == self.bounds.batch {
            self.work.notify_one();
        }
    }

    fn run(&self, mut sender: impl Sender) {
        while let Some(batch) = self.next() {
            let [mut backoff, last] = BACKOFF;
            let mut since = None;
            let mut answer = sender.send(batch);
            while let Answer::Refused { error, after, answered } = answer {
                self.log.down(&error);
                since = answered.then(|| since.unwrap_or_else(Instant::now));
                if since.is_some_and(|since| since.elapsed() >= self.bounds.patience) {
                    answer = Answer::Rejected { error };
                    break;
                }
                if !self.pause(after.unwrap_or_default().max(backoff)) {
                    return;
                }
                backoff = (2 * backoff).min(last);
                answer = sender.resend();
            }
            if !self.account(answer) {
                return;
            }
        }
    }

    /// Waits for the next batch. None: nothing more is exported.
    fn next(&self) -> Option<Vec<SpanData>> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            let now = Instant::now();
            let full = state.queue.len() >= self.bounds.batch;
            let due = state.flush || full || state.due.is_some_and(|due| due <= now);
            if due && !state.queue.is_empty() {
                let size = state.queue.len().min(self.bounds.batch);
                let batch: Vec<_> = state.queue.drain(..size).collect();
                state.await_parents(&batch, self.bounds.queue);
                state.in_flight = size;
                state.parents_from = Some(now + pause_after(size));
                if state.queue.is_empty() {
                    state.due = None;
                }
                return Some(batch);
            }
            if state.queue.is_empty() {
                (state.flush, state.due) = (false, None);
                self.idle.notify_all();
            }
            state = self.wait(state, now);
        }
    }

    /// Waits for work, or until something is due.
    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, now: Instant) -> MutexGuard<'a, State> {
        // What was lost is reported without the lock: a log may block.
        if self.log.losses_are_due(&self.counts, now) {
            drop(state);
            self.log.report_losses(&self.counts, now);
            state = self.lock();
            return state;
        }
        let until = [state.due, self.log.next_report(&self.counts)].into_iter().flatten().min();
        let Some(until) = until else {
            return self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        let time = until.saturating_duration_since(now);
        self.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits between two attempts. Returns whether there is to be another one.
    fn pause(&self, time: Duration) -> bool {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            // A process that ends cannot wait for long.
            let end = start + if state.ending { time.min(BACKOFF[0]) } else { time };
            if state.ended || now >= end {
                return !state.ended;
            }
            if self.log.losses_are_due(&self.counts, now) {
                drop(state);
                self.log.report_losses(&self.counts, now);
                state = self.lock();
                continue;
            }
            let until = self.log.next_report(&self.counts).map_or(end, |next| next.min(end));
            let left = until.saturating_duration_since(now);
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Counts the spans of the batch that was sent. Returns whether there may be another one.
    fn account(&self, answer: Answer) -> bool {
        let mut state = self.lock();
        if state.ended {
            // They have been counted as given up.
            return false;
        }
        let spans = std::mem::take(&mut state.in_flight) as u64;
        let rejected = match &answer {
            Answer::Accepted { rejected, .. } => (*rejected).min(spans),
            _ => spans,
        };
        self.counts.rejected.fetch_add(rejected, Relaxed);
        self.counts.exported.fetch_add(spans - rejected, Relaxed);
        drop(state);
        match answer {
            Answer::Accepted { message, .. } => {
                self.log.up(&self.counts);
                self.log.reason(message);
            }
            Answer::Rejected { error } | Answer::Refused { error, .. } => {
                self.log.down(&error);
                self.log.reason(error);
            }
        }
        true
    }

    /// Exports what is left, for `timeout` at most. Returns how many spans are given up.
    fn end(&self, timeout: Duration) -> usize {
        let mut state = self.lock();
        if state.ended {
            return 0;
        }
        (state.flush, state.ending) = (true, true);
        self.work.notify_one();
        let pending = |state: &mut State| !state.ended && !state.is_idle();
        let waited = self.idle.wait_timeout_while(state, timeout, pending);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.ended {
            return 0;
        }
        state.ended = true;
        let rest = state.queue.len() + state.in_flight;
        state.queue.clear();
        state.in_flight = 0;
        self.counts.given_up.fetch_add(rest as u64, Relaxed);
        drop(state);
        self.work.notify_one();
        self.idle.notify_all();
        self.log.report_rest(&self.counts);
        rest
    }
}

#[cfg(test)]
mod tests;
