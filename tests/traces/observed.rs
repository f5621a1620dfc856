//! A system whose processes send their spans to a collector of the test.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, Weak},
    time::SystemTime,
};

use crate::{
    collector::{Collector, Mode, Span},
    invariants::{self, Kill},
    support::{Server, System, http::Answer, server::free_port, until},
    tree::{View, render, unindent},
};

/// A system and its collector. When it is dropped, all processes are ended, which sends what they
/// had not sent yet: then nothing may have come that changes an expected tree, and the rules that
/// hold for all traces are checked.
pub struct Observed {
    system: Option<System>,
    pub collector: Collector,
    expected: Mutex<Vec<(String, View, String)>>,
    kills: Mutex<Vec<Kill>>,
    /// Whether the rules are checked at the end: not where spans were lost on purpose.
    complete: bool,
}

impl Observed {
    /// Starts a system with these settings.
    pub async fn start(server: Server, settings: &[(&str, &str)]) -> Self {
        Self::start_in(server, settings, Mode::Accept).await
    }

    /// The same, with a collector in this mode.
    pub async fn start_in(server: Server, settings: &[(&str, &str)], mode: Mode) -> Self {
        let collector = Collector::start(free_port(), mode);
        let endpoint = collector.endpoint();
        // At debug level single requests have spans too.
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("NODE_LOG", "info")];
        all.extend(settings);
        let system = System::start(server, &all).await;
        Self {
            system: Some(system),
            collector,
            expected: Mutex::default(),
            kills: Mutex::default(),
            complete: true,
        }
    }

    /// The same system, whose spans are lost on purpose.
    pub fn incomplete(mut self) -> Self {
        self.complete = false;
        self
    }

    /// The system that tests share which kill nothing: it ends with the last of them.
    pub async fn shared(server: Server) -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Vec<(Server, Weak<Observed>)>> =
            tokio::sync::Mutex::const_new(Vec::new());
        let mut shared = SHARED.lock().await;
        let there = shared.iter().find(|(kind, _)| *kind == server);
        if let Some(observed) = there.and_then(|(_, observed)| observed.upgrade()) {
            return observed;
        }
        let observed = Arc::new(Self::start(server, &[]).await);
        shared.retain(|(kind, _)| *kind != server);
        shared.push((server, Arc::downgrade(&observed)));
        observed
    }

    /// `kill -9`.
    pub fn kill(&self, instance: &str) -> SystemTime {
        let at = SystemTime::now();
        self.kills.lock().unwrap().push(Kill { instance: instance.to_owned(), at });
        self.system().kill(instance);
        at
    }

    /// Who was killed so far.
    pub fn kills(&self) -> Vec<Kill> {
        self.kills.lock().unwrap().clone()
    }

    /// Ends all processes, which sends what they had not sent yet, and checks what came: how many
    /// requests reached the collector.
    pub fn ended(mut self) -> usize {
        self.end();
        self.collector.requests()
    }

    /// The same: everything that came.
    pub fn ended_spans(mut self) -> Vec<Span> {
        self.end();
        self.collector.spans()
    }

    fn system(&self) -> &System {
        self.system.as_ref().expect("it is there until the drop")
    }

    /// Waits until `trace` looks like this, now and at the end.
    pub async fn expect(&self, trace: &str, view: View, tree: &str) -> Vec<Span> {
        let spans = self.expect_for_now(trace, view, tree).await;
        self.expected.lock().unwrap().push((trace.to_owned(), view, unindent(tree)));
        spans
    }

    /// Waits until `trace` looks like this; more may come.
    pub async fn expect_for_now(&self, trace: &str, view: View, tree: &str) -> Vec<Span> {
        let tree = unindent(tree);
        let of_trace = |spans: &[Span]| {
            spans.iter().filter(|span| span.trace == trace).cloned().collect::<Vec<_>>()
        };
        self.collector
            .until(
                "a tree",
                &self.log,
                |spans| (render(spans, trace, view) == tree).then(|| of_trace(spans)),
                |spans| {
                    let found = render(spans, trace, view);
                    format!("trace {trace}; expected:\n{tree}\nfound:\n{found}")
                },
            )
            .await
    }

    /// The trace of the flow `id`, by its promise.
    pub async fn trace_of(&self, id: &str) -> String {
        let promise = until(&self.log, "a promise", async || {
            let promise = self.resonate().promise(id).await;
            promise.is_object().then_some(promise)
        });
        let context = promise.await["param"]["headers"]["traceparent"].clone();
        let trace = context.as_str().and_then(|context| context.split('-').nth(1));
        trace.unwrap_or_else(|| panic!("{id} has no context: {context}")).to_owned()
    }

    /// Waits for a span.
    pub async fn span(&self, what: &str, mut fits: impl FnMut(&Span) -> bool) -> Span {
        let explain = |spans: &[Span]| match spans.last() {
            Some(last) => format!("the last trace:\n{}", render(spans, &last.trace, ALL)),
            None => "nothing came".to_owned(),
        };
        let look = |spans: &[Span]| spans.iter().find(|span| fits(span)).cloned();
        self.collector.until(what, &self.log, look, explain).await
    }
}

/// Everything there is to show.
pub const ALL: View = &[
    "service-a",
    "service-b",
    "service-c",
    "service-d",
    "service-e",
    "service-f",
    "service-g",
    "service-h",
    "service-i",
];

/// Nobody is told apart.
pub const PLAIN: View = &[];

/// The trace that an answer names.
pub fn trace_of(answer: &Answer) -> &str {
    answer.body["trace_id"].as_str().unwrap_or_else(|| panic!("no trace id: {}", answer.text))
}

/// The one span of this name.
pub fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        (None, _) => panic!("no span {name}"),
        _ => panic!("more than one span {name}"),
    }
}

impl Deref for Observed {
    type Target = System;

    fn deref(&self) -> &System {
        self.system()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.end();
    }
}

impl Observed {
    fn end(&mut self) {
        let Some(system) = self.system.take() else { return };
        let log = system.log.clone();
        // Ends all processes and waits for that.
        drop(system);
        if std::thread::panicking() {
            return;
        }
        let spans = self.collector.spans();
        for (trace, view, tree) in self.expected.get_mut().unwrap() {
            let found = render(&spans, trace, view);
            assert!(found == *tree, "trace {trace} changed later:\n{found}\nexpected:\n{tree}");
        }
        if self.complete {
            let broken = invariants::broken(&spans, &log, self.kills.get_mut().unwrap());
            assert!(broken.is_empty(), "{}\nthe logs:\n{log}", broken.join("\n"));
        }
    }
}
