//! What must hold for the spans of a history.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use opentelemetry::{
    SpanId, TraceId,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;
use simulation::{Exported, USER_CODE};

use crate::story::Kind;

fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.as_str().into_owned()).unwrap_or_default()
}

/// The call of a flow's first function.
fn is_first_call(span: &SpanData) -> bool {
    let promise = attribute(span, "resonate.promise.id");
    span.span_kind == SpanKind::Producer && !promise.contains('.')
}

/// How many spans have no parent, and what is wrong.
pub fn check(all: &[Exported], kind: Kind) -> (usize, Vec<String>) {
    let mut broken = Vec::new();
    let mut ids: HashSet<(TraceId, SpanId)> = HashSet::new();
    let mut traces: BTreeMap<String, TraceId> = BTreeMap::new();
    let mut flows: HashMap<(TraceId, String), SpanId> = HashMap::new();
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut unanswered: BTreeSet<String> = BTreeSet::new();
    for Exported { instance, span, .. } in all {
        let context = &span.span_context;
        let about = || format!("span {} of {instance}", span.name);
        if !ids.insert((context.trace_id(), context.span_id())) {
            broken.push(format!("{} was emitted twice", about()));
        }
        if span.end_time < span.start_time {
            broken.push(format!("{} ends before it starts", about()));
        }
        let promise = attribute(span, "resonate.promise.id");
        if promise.is_empty() {
            continue;
        }
        if !attribute(span, "resonate.flow").is_empty() {
            let id = context.span_id();
            if flows.insert((context.trace_id(), promise.clone()), id).is_some() {
                broken.push(format!("{promise} has two spans of its flow"));
            }
            // Its creation was not answered: it may have started or not.
            if matches!(span.status, Status::Error { .. }) {
                continue;
            }
        }
        // Nor does a process that has ended know whether its call was taken.
        if attribute(span, "error.type") == "unanswered" {
            unanswered.insert(promise);
            continue;
        }
        let flow = promise.split('.').next().unwrap_or_default().to_owned();
        if *traces.entry(flow).or_insert(context.trace_id()) != context.trace_id() {
            broken.push(format!("{} is in another trace than its flow", about()));
        }
        if span.span_kind == SpanKind::Producer {
            *calls.entry(promise).or_default() += 1;
        } else if span.name == attribute(span, "resonate.function") {
            *ends.entry(promise).or_default() += 1;
        }
    }
    broken.extend(outside_steps(all));
    for (what, counts) in [("rpc", &calls), ("invocation", &ends)] {
        for (promise, count) in counts.iter().filter(|(_, count)| **count > 1) {
            broken.push(format!("{count} {what} spans of {promise}"));
        }
    }
    for Exported { span, .. } in all.iter().filter(|made| is_first_call(&made.span)) {
        let promise = attribute(span, "resonate.promise.id");
        let flow = flows.get(&(span.span_context.trace_id(), promise));
        if flow != Some(&span.parent_span_id) {
            broken.push(format!("{} is not below the span of its flow", span.name));
        }
    }
    let sent = || all.iter().filter(|span| !span.lost);
    let there: HashSet<_> = sent()
        .map(|Exported { span, .. }| (span.span_context.trace_id(), span.span_context.span_id()))
        .collect();
    let orphans: Vec<String> = sent()
        .filter(|Exported { span, .. }| {
            let parent = (span.span_context.trace_id(), span.parent_span_id);
            span.parent_span_id != SpanId::INVALID && !there.contains(&parent)
        })
        .map(|Exported { instance, span, .. }| format!("{} of {instance}", span.name))
        .collect();
    if kind != Kind::Wild {
        broken.extend(orphans.iter().map(|orphan| format!("the parent of {orphan} is missing")));
        let promises: BTreeSet<&String> = calls.keys().chain(ends.keys()).collect();
        for promise in promises {
            for (what, counts) in [("rpc", &calls), ("invocation", &ends)] {
                if !counts.contains_key(promise) && !unanswered.contains(promise) {
                    broken.push(format!("{promise} has no {what} span"));
                }
            }
        }
    }
    (orphans.len(), broken)
}

/// What user code in a step has made belongs below the step, in every attempt.
fn outside_steps(all: &[Exported]) -> impl Iterator<Item = String> {
    let id = |span: &SpanData| (span.span_context.trace_id(), span.span_context.span_id());
    let steps: HashSet<_> = all
        .iter()
        .filter(|Exported { span, .. }| {
            let is_function = span.name == attribute(span, "resonate.function");
            !attribute(span, "resonate.promise.state").is_empty() && !is_function
        })
        .map(|Exported { span, .. }| id(span))
        .collect();
    let known: HashSet<_> = all.iter().map(|Exported { span, .. }| id(span)).collect();
    all.iter().filter(|Exported { span, .. }| span.name == USER_CODE).filter_map(move |exported| {
        let Exported { instance, span, .. } = exported;
        let parent = (span.span_context.trace_id(), span.parent_span_id);
        let stray = known.contains(&parent) && !steps.contains(&parent);
        stray.then(|| format!("user code of {instance} is not below its step"))
    })
}
