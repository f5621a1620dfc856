use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender as Channel, channel};

use opentelemetry::{
    TraceFlags,
    trace::{SpanContext, TraceState},
};

use super::*;
use crate::export::tests::span;

const LONG: Duration = Duration::from_secs(60);

/// The test's side of a collector: it sees each attempt, and answers it.
struct Collector {
    attempts: Receiver<Vec<String>>,
    answers: Channel<Answer>,
}

struct Wire {
    attempts: Channel<Vec<String>>,
    answers: Receiver<Answer>,
    last: Vec<String>,
}

impl Sender for Wire {
    fn send(&mut self, batch: Vec<SpanData>) -> Answer {
        self.last = batch.iter().map(|span| span.name.to_string()).collect();
        self.resend()
    }

    fn resend(&mut self) -> Answer {
        // A test that has ended reads nothing.
        let _ = self.attempts.send(self.last.clone());
        self.answers.recv().unwrap_or(Answer::Rejected { error: String::new() })
    }
}

impl Collector {
    #[track_caller]
    fn attempt(&self, spans: &[&str]) {
        let attempt = self.attempts.recv_timeout(Duration::from_secs(20));
        assert_eq!(attempt.expect("an export"), spans);
    }

    fn answer(&self, answer: Answer) {
        self.answers.send(answer).unwrap();
    }
}

fn accepted(rejected: u64) -> Answer {
    Answer::Accepted { rejected, message: String::new() }
}

fn refused(after: Option<Duration>) -> Answer {
    Answer::Refused { error: "down".to_owned(), after, answered: true }
}

fn start(queue: usize, batch: usize, delay: Duration) -> (Batches, Arc<Counts>, Collector) {
    start_with(Bounds { queue, batch, delay, patience: PATIENCE })
}

fn start_with(bounds: Bounds) -> (Batches, Arc<Counts>, Collector) {
    let (attempts, seen) = channel();
    let (answers, given) = channel();
    let counts = Arc::new(Counts::default());
    let wire = Wire { attempts, answers: given, last: Vec::new() };
    let log = Log::new("collector".to_owned(), "instance".to_owned());
    let batches = Batches::start(wire, bounds, counts.clone(), log).unwrap();
    (batches, counts, Collector { attempts: seen, answers })
}

fn child(name: &'static str) -> SpanData {
    SpanData { name: name.into(), ..span(TraceFlags::SAMPLED) }
}

fn call(name: &'static str) -> SpanData {
    SpanData { span_kind: SpanKind::Producer, ..child(name) }
}

/// Exported, rejected, dropped, given up; their sum is what was made.
#[track_caller]
fn assert_counts(counts: &Counts, expected: [u64; 4]) {
    let found = [counts.exported(), counts.rejected(), counts.dropped(), counts.given_up()];
    assert_eq!(found, expected);
    assert_eq!(counts.made(), found.iter().sum::<u64>());
}

#[test]
fn every_span_is_exported_rejected_dropped_or_given_up() {
    let (batches, counts, collector) = start(8, 2, LONG);
    for name in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"] {
        batches.on_end(child(name));
    }
    collector.attempt(&["1", "2"]);
    collector.answer(accepted(1));
    collector.attempt(&["3", "4"]);
    collector.answer(Answer::Rejected { error: "400".to_owned() });
    // The collector hangs from here on.
    collector.attempt(&["5", "6"]);
    let start = Instant::now();
    let ended = batches.shutdown_with_timeout(Duration::from_millis(50));
    assert!(ended.is_err() && start.elapsed() < Duration::from_secs(5));
    batches.on_end(child("late"));
    assert_counts(&counts, [1, 3, 2, 5]);
    // An answer that comes later changes nothing.
    collector.answer(accepted(0));
    assert_eq!(collector.attempts.recv(), Err(std::sync::mpsc::RecvError));
    assert_counts(&counts, [1, 3, 2, 5]);
}

#[test]
fn what_is_refused_is_sent_again_before_anything_else() {
    let (batches, counts, collector) = start(8, 2, LONG);
    batches.on_end(child("1"));
    batches.on_end(child("2"));
    for _ in 0..3 {
        collector.attempt(&["1", "2"]);
        batches.on_end(child("later"));
        collector.answer(refused(None));
    }
    collector.attempt(&["1", "2"]);
    collector.answer(accepted(0));
    collector.attempt(&["later", "later"]);
    collector.answer(accepted(0));
    // The third one waits for its batch, or for the end.
    std::thread::scope(|scope| {
        let end = scope.spawn(|| batches.shutdown_with_timeout(LONG));
        collector.attempt(&["later"]);
        collector.answer(accepted(0));
        end.join().unwrap().unwrap();
    });
    assert_counts(&counts, [5, 0, 0, 0]);
}

/// The time without a collector does not count.
#[test]
fn a_batch_is_given_up_once_it_was_answered_with_errors_for_long_enough() {
    let patience = Duration::from_millis(300);
    let (batches, counts, collector) =
        start_with(Bounds { queue: 8, batch: 1, delay: LONG, patience });
    batches.on_end(child("1"));
    let start = Instant::now();
    while start.elapsed() <= 2 * patience {
        collector.attempt(&["1"]);
        let error = "nobody listens".to_owned();
        collector.answer(Answer::Refused { error, after: None, answered: false });
    }
    let start = Instant::now();
    collector.attempt(&["1"]);
    collector.answer(refused(None));
    batches.on_end(child("2"));
    loop {
        let attempt = collector.attempts.recv_timeout(LONG).unwrap();
        if attempt == ["2"] {
            break;
        }
        collector.answer(refused(None));
    }
    assert!(start.elapsed() >= patience, "{:?}", start.elapsed());
    collector.answer(accepted(0));
    batches.force_flush().unwrap();
    assert_counts(&counts, [1, 1, 0, 0]);
}

/// A collector that asks for no pause gets the usual one.
#[test]
fn no_collector_is_asked_again_at_once() {
    let (batches, _, collector) = start(8, 1, LONG);
    batches.on_end(child("1"));
    collector.attempt(&["1"]);
    for backoff in [BACKOFF[0], 2 * BACKOFF[0]] {
        let start = Instant::now();
        collector.answer(refused(Some(Duration::ZERO)));
        collector.attempt(&["1"]);
        assert!(start.elapsed() >= backoff, "{:?}", start.elapsed());
    }
    collector.answer(accepted(0));
}

#[test]
fn a_collector_says_how_long_to_wait_and_the_end_of_a_process_does_not() {
    let (batches, counts, collector) = start(8, 1, LONG);
    batches.on_end(child("1"));
    collector.attempt(&["1"]);
    let start = Instant::now();
    collector.answer(refused(Some(Duration::from_millis(400))));
    collector.attempt(&["1"]);
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    collector.answer(refused(Some(LONG)));
    let soon = collector.attempts.recv_timeout(Duration::from_millis(300));
    assert_eq!(soon, Err(RecvTimeoutError::Timeout));
    std::thread::scope(|scope| {
        let end = scope.spawn(|| batches.shutdown_with_timeout(LONG));
        collector.attempt(&["1"]);
        collector.answer(accepted(0));
        end.join().unwrap().unwrap();
    });
    assert_counts(&counts, [1, 0, 0, 0]);
}

#[test]
fn parents_are_exported_at_once_and_others_with_them() {
    let (batches, counts, collector) = start(8, 8, LONG);
    batches.on_end(child("waits"));
    let start = Instant::now();
    batches.on_end(call("first"));
    collector.attempt(&["waits", "first"]);
    // While an export is under way, and for a pause after its start, spans gather.
    batches.on_end(call("second"));
    batches.on_end(child("with it"));
    batches.on_end(SpanData { parent_span_id: SpanId::INVALID, ..child("a root") });
    collector.answer(accepted(0));
    collector.attempt(&["second", "with it", "a root"]);
    assert!(start.elapsed() >= pause_after(2));
    collector.answer(accepted(0));
    batches.on_end(child("alone"));
    let soon = collector.attempts.recv_timeout(PARENTS_AT_MOST);
    assert_eq!(soon, Err(RecvTimeoutError::Timeout), "it is no parent");
    // A flow that continues a trace is no root.
    let attributes = vec![opentelemetry::KeyValue::new(key::FLOW, "order")];
    batches.on_end(SpanData { attributes, ..child("a flow") });
    collector.attempt(&["alone", "a flow"]);
    collector.answer(accepted(0));
    batches.force_flush().unwrap();
    assert_counts(&counts, [7, 0, 0, 0]);
}

#[test]
fn a_busy_process_exports_less_often() {
    let pauses = [0, 1, 10, 30, 512].map(|spans| pause_after(spans).as_millis());
    assert_eq!(pauses, [50, 55, 100, 200, 200]);
}

#[test]
fn a_step_is_exported_soon_if_what_its_code_made_was_exported_before() {
    let (batches, counts, collector) = start(8, 8, LONG);
    // What is not a step has 2 as its parent.
    let step = |id: u64| {
        let context = child("").span_context;
        let (trace, flags) = (context.trace_id(), context.trace_flags());
        let own = SpanContext::new(trace, id.into(), flags, false, TraceState::default());
        SpanData { span_context: own, parent_span_is_remote: true, ..child("step") }
    };
    batches.on_end(child("its code"));
    batches.on_end(call("call"));
    collector.attempt(&["its code", "call"]);
    collector.answer(accepted(0));
    batches.on_end(step(2));
    collector.attempt(&["step"]);
    collector.answer(accepted(0));
    // The same once more: nothing waits for it any longer.
    batches.on_end(step(2));
    batches.on_end(step(3));
    let soon = collector.attempts.recv_timeout(PARENTS_AT_MOST);
    assert_eq!(soon, Err(RecvTimeoutError::Timeout));
    collector.answer(accepted(0));
    batches.force_flush().unwrap();
    assert_counts(&counts, [5, 0, 0, 0]);
}

#[test]
fn a_span_waits_for_the_delay_at_most_and_a_flush_waits_for_none() {
    let (batches, _, collector) = start(8, 8, Duration::from_millis(200));
    let start = Instant::now();
    batches.on_end(child("1"));
    collector.attempt(&["1"]);
    assert!(start.elapsed() >= Duration::from_millis(200));
    collector.answer(accepted(0));
    let (batches, counts, collector) = self::start(8, 8, LONG);
    batches.on_end(child("2"));
    collector.answer(accepted(0));
    batches.force_flush().unwrap();
    assert_counts(&counts, [1, 0, 0, 0]);
}
