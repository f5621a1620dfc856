//! A system whose processes export their spans to a collector of the test.

use std::{ops::Deref, sync::Mutex, time::SystemTime};

use testkit::{
    Answer, Collector, Mode, Pool, Server, Shared, Span, Stop, Stopped, System, flows, free_port,
    until,
};

use crate::{
    invariants::{self, Kill},
    tree::{View, render, unindent},
};

/// A system and its collector.
///
/// When it is stopped, all processes export what they still have. Then no trace may differ from its
/// snapshot, and the rules that hold for all traces are checked.
pub struct Observed {
    system: System,
    pub collector: Collector,
    expected: Mutex<Vec<Expectation>>,
    kills: Mutex<Vec<Kill>>,
    /// Whether all spans arrive. If a test loses spans on purpose, the rules do not hold.
    complete: bool,
}

/// How a trace must look.
pub struct Expectation {
    trace: String,
    view: View,
    /// Texts that differ from run to run, and what stands for them in the tree.
    redactions: Vec<(String, String)>,
    tree: String,
}

impl Expectation {
    pub fn new(trace: &str, view: View, redactions: &[(&str, &str)], tree: &str) -> Self {
        let owned = |(from, to): &(&str, &str)| ((*from).to_owned(), (*to).to_owned());
        let redactions = redactions.iter().map(owned).collect();
        Self { trace: trace.to_owned(), view, redactions, tree: unindent(tree) }
    }

    /// The tree of the trace in `spans`.
    fn found(&self, spans: &[Span]) -> String {
        let found = render(spans, &self.trace, self.view);
        self.redactions.iter().fold(found, |text, (from, to)| text.replace(from, to))
    }
}

/// Waits until a trace looks like the inline snapshot, asserts that it does, and asserts the same
/// when the system stops. Ids and times are not part of a tree. Returns the spans of the trace.
macro_rules! expect_tree {
    ($system:expr, $trace:expr, $view:expr, @$tree:literal) => {
        expect_tree!($system, $trace, $view, redact: [], @$tree)
    };
    ($system:expr, $trace:expr, $view:expr, redact: [$($redaction:expr),*], @$tree:literal) => {{
        let expected =
            crate::observed::Expectation::new($trace, $view, &[$($redaction),*], $tree);
        let (found, spans) = $system.tree(&expected).await;
        // Each server compares its trace with the same snapshot.
        insta::allow_duplicates! { insta::assert_snapshot!(found, @$tree) };
        $system.expect_at_the_end(expected);
        spans
    }};
}

/// The same, for a trace that still grows: waits until it looked like the snapshot at some moment.
macro_rules! expect_tree_for_now {
    ($system:expr, $trace:expr, $view:expr, @$tree:literal) => {{
        let expected = crate::observed::Expectation::new($trace, $view, &[], $tree);
        let (found, spans) = $system.tree_for_now(&expected).await;
        // Each server compares its trace with the same snapshot.
        insta::allow_duplicates! { insta::assert_snapshot!(found, @$tree) };
        spans
    }};
}

impl Observed {
    /// Starts a system with these settings.
    pub async fn start(server: Server, settings: &[(&str, &str)]) -> Self {
        Self::start_in(server, settings, Mode::Accept).await
    }

    /// [`Observed::start`] with a collector in this mode.
    pub async fn start_in(server: Server, settings: &[(&str, &str)], mode: Mode) -> Self {
        let collector = Collector::start(free_port(), mode);
        let endpoint = collector.endpoint();
        // At level debug, single requests have spans too.
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("NODE_LOG", "info")];
        all.extend(settings);
        let system = System::start(server, &all).await;
        let (expected, kills) = (Mutex::default(), Mutex::default());
        Self { system, collector, expected, kills, complete: true }
    }

    /// The same system, whose spans are lost on purpose.
    pub fn incomplete(mut self) -> Self {
        self.complete = false;
        self
    }

    /// The system that tests share if they kill nothing.
    pub async fn shared(server: Server) -> Shared<Self> {
        static POOL: Pool<Observed> = Pool::new();
        POOL.get(server, async || Self::start(server, &[]).await).await
    }

    /// Kills an instance as `kill -9` does. Returns the moment just before.
    pub fn kill(&self, instance: &str) -> SystemTime {
        let at = self.killed(instance);
        self.system.kill(instance);
        at
    }

    /// Notes that the test kills an instance now, which it has started itself.
    pub fn killed(&self, instance: &str) -> SystemTime {
        let at = SystemTime::now();
        self.kills.lock().unwrap().push(Kill { instance: instance.to_owned(), at });
        at
    }

    /// All kills so far.
    pub fn kills(&self) -> Vec<Kill> {
        self.kills.lock().unwrap().clone()
    }

    /// The tree of a trace, as soon as it is as expected or when the deadline has passed, and the
    /// spans of the trace.
    pub async fn tree(&self, expected: &Expectation) -> (String, Vec<Span>) {
        self.tree_when(expected, |spans| {
            (expected.found(spans) == expected.tree).then(|| spans.to_vec())
        })
        .await
    }

    /// The same at any moment so far, between the arrivals of two spans: on a busy machine, the test
    /// may look later.
    pub async fn tree_for_now(&self, expected: &Expectation) -> (String, Vec<Span>) {
        let mut seen = 0;
        self.tree_when(expected, |spans| {
            let moments = std::mem::replace(&mut seen, spans.len())..=spans.len();
            let mut moments = moments.map(|moment| &spans[..moment]);
            moments.find(|spans| expected.found(spans) == expected.tree).map(<[Span]>::to_vec)
        })
        .await
    }

    async fn tree_when(
        &self,
        expected: &Expectation,
        look: impl FnMut(&[Span]) -> Option<Vec<Span>>,
    ) -> (String, Vec<Span>) {
        let found = self.collector.try_until(look).await;
        let mut spans = found.unwrap_or_else(|| {
            eprintln!("trace {} is not as expected\n{}", expected.trace, self.log);
            self.collector.spans()
        });
        let found = expected.found(&spans);
        spans.retain(|span| span.trace == expected.trace);
        (found, spans)
    }

    /// Asserts this when the system stops.
    pub fn expect_at_the_end(&self, expected: Expectation) {
        self.expected.lock().unwrap().push(expected);
    }

    /// The trace of the flow `id`, from its promise.
    pub async fn trace_of(&self, id: &str) -> String {
        let promise = until(&self.log, &format!("promise {id}"), async || {
            let promise = self.resonate().promise(id).await;
            promise.is_object().then_some(promise)
        })
        .await;
        let context = promise["param"]["headers"]["traceparent"].clone();
        let trace = context.as_str().and_then(|context| context.split('-').nth(1));
        trace.unwrap_or_else(|| panic!("{id} has no context: {context}")).to_owned()
    }

    /// Waits for a span.
    pub async fn span(&self, what: &str, mut matches: impl FnMut(&Span) -> bool) -> Span {
        let explain = |spans: &[Span]| match spans.last() {
            Some(last) => format!("the last trace:\n{}", render(spans, &last.trace, &all())),
            None => "no span arrived".to_owned(),
        };
        let look = |spans: &[Span]| spans.iter().find(|span| matches(span)).cloned();
        self.collector.until(&self.log, what, look, explain).await
    }

    /// Stops all processes and checks what arrived.
    ///
    /// # Panics
    /// A process is left, a trace differs from its snapshot, or a rule is broken.
    pub async fn stop(self) -> Stopped {
        self.stop_and_keep().await.1
    }

    /// [`Observed::stop`] that returns the collector too.
    pub async fn stop_and_keep(self) -> (Collector, Stopped) {
        let log = self.system.log.clone();
        // A process that stops exports what it still has.
        let stopped = self.system.stop().await;
        let spans = self.collector.spans();
        for expected in self.expected.into_inner().unwrap() {
            let (trace, tree, found) = (&expected.trace, &expected.tree, expected.found(&spans));
            assert!(found == *tree, "trace {trace} has changed:\n{found}\nexpected:\n{tree}");
        }
        if self.complete {
            let broken = invariants::broken(&spans, &log, &self.kills.into_inner().unwrap());
            assert!(broken.is_empty(), "{}\n{log}", broken.join("\n"));
        }
        (self.collector, stopped)
    }
}

impl Stop for Observed {
    fn stop(self) -> impl Future<Output = Stopped> {
        Self::stop(self)
    }
}

impl Deref for Observed {
    type Target = System;

    fn deref(&self) -> &System {
        &self.system
    }
}

/// The view that tells all processes apart.
pub fn all() -> Vec<&'static str> {
    flows::groups().collect()
}

/// The view that tells no processes apart.
pub const PLAIN: View = &[];

/// The trace that an answer names.
pub fn trace_of(answer: &Answer) -> &str {
    answer.body["trace_id"].as_str().unwrap_or_else(|| panic!("no trace id: {}", answer.text))
}

/// The only span with this name.
pub fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        (None, _) => panic!("no span {name}"),
        _ => panic!("more than one span {name}"),
    }
}
