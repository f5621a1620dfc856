//! A trace as indented text, without ids, times, and what else differs from run to run.

use std::collections::BTreeMap;

use testkit::Span;

/// The groups whose processes are told apart. In other groups it does not matter which process the
/// server chose. The lease spans of these groups are shown, once for each process: their number, and
/// whether a short run has one at all, depend on the speed of the machine.
pub type View = &'static [&'static str];

/// The attributes that are shown, with their short names.
const SHOWN: [(&str, &str); 10] = [
    ("http.route", "route"),
    ("http.response.status_code", "status"),
    ("resonate.promise.id", "promise"),
    ("resonate.group", "group"),
    ("resonate.promise.state", "state"),
    ("resonate.run.outcome", "outcome"),
    ("resonate.lease.instance", "lease"),
    ("resonate.takeover", "takeover"),
    ("resonate.reconnected", "reconnected"),
    ("exception.type", "exception"),
];

/// All spans of `trace` as a tree. `?` marks a span whose parent is missing.
pub fn render(spans: &[Span], trace: &str, view: &[&str]) -> String {
    let spans: Vec<_> = spans.iter().filter(|span| span.trace == trace).collect();
    let exists = |id: &str| spans.iter().any(|span| span.id == id);
    let mut text = String::new();
    for span in &spans {
        match &span.parent {
            None => branch(&spans, &[span], "", view, &mut text),
            Some(parent) if !exists(parent) => branch(&spans, &[span], "? ", view, &mut text),
            Some(_) => {}
        }
    }
    text
}

/// A span, or several runs that are shown as one, with everything below it.
fn branch(spans: &[&Span], these: &[&Span], before: &str, view: &[&str], text: &mut String) {
    let span = these[0];
    let indent = " ".repeat(before.len() - before.trim_start().len());
    text.push_str(&format!("{before}{}\n", line(spans, these, view)));
    for event in &span.events {
        let of = |name: &str| event.attributes.get(name).map_or("", String::as_str);
        let detail = match event.name.as_str() {
            "takeover" => format!("by {}", of("resonate.instance")),
            _ => format!("{}: {}", of("exception.type"), of("exception.message")),
        };
        text.push_str(&format!("{indent}  - {} {detail}\n", event.name));
    }
    // Sorted by rank, not by time: the clocks of the processes and of the server differ a little.
    let mut below: BTreeMap<(u8, String), Vec<&Span>> = BTreeMap::new();
    for child in spans.iter().filter(|child| child.parent.as_ref() == Some(&span.id)) {
        let rank = rank(child);
        if rank == LEASE && !view.contains(&child.service()) {
            continue;
        }
        let mut name = shown_name(child, view);
        // Runs and leases of one kind share a line. Everything else has a line for each span.
        if rank != RUN && rank != LEASE || child.takeover() {
            let again = child.get("resonate.reconnected");
            name = format!("{name} {again} {} {} {}", child.promise(), child.id, child.instance());
        }
        below.entry((rank, name)).or_default().push(child);
    }
    for mut group in below.into_values() {
        group.sort_by_key(|span| span.version());
        branch(spans, &group, &format!("{indent}  "), view, text);
    }
}

const RUN: u8 = 1;
const LEASE: u8 = 2;

/// The order of siblings.
fn rank(span: &Span) -> u8 {
    match span.name.as_str() {
        _ if span.kind == "server" => 0,
        name if name == span.get("resonate.function") || name == "invocation" => 0,
        name if name.starts_with("received ") => 0,
        name if name.starts_with("lease on ") => LEASE,
        name if name.starts_with("lease of ") || name.starts_with("lease expired") => 3,
        name if name.contains(" on service-") => RUN,
        name if name.starts_with("rpc ") => 6,
        name if name.starts_with("sleep ") => 5,
        _ => 4,
    }
}

fn shown_name(span: &Span, view: &[&str]) -> String {
    let exact = view.contains(&span.service());
    match span.name.rsplit_once(" on ") {
        Some((what, instance)) if !exact && instance == span.instance() => {
            format!("{what} on {}*", span.service())
        }
        _ => span.name.clone(),
    }
}

fn line(spans: &[&Span], these: &[&Span], view: &[&str]) -> String {
    let span = these[0];
    let exact = view.contains(&span.service());
    let who = if exact { span.instance() } else { span.service() };
    let mut line = format!("{who}: {} [{}]", shown_name(span, view), span.kind);
    for (name, short) in SHOWN {
        let Some(value) = span.attributes.get(name) else { continue };
        match (short, value.as_str()) {
            ("outcome", _) => line.push_str(&format!(" outcome={}", outcomes(these))),
            (_, "true") => line.push_str(&format!(" {short}")),
            _ => line.push_str(&format!(" {short}={value}")),
        }
    }
    for (trace, id) in &span.links {
        let known = spans.iter().find(|other| other.trace == *trace && other.id == *id);
        line.push_str(&format!(" link={}", known.map_or("another trace", |other| &other.name)));
    }
    if let Some(error) = these.iter().rev().find_map(|span| span.error.as_ref()) {
        line.push_str(&format!(" ERROR {error}"));
    }
    line.trim_end().to_owned()
}

/// How these runs ended. How often a function was suspended before its last run does not matter: the
/// server may resume it early, or answer at once that there is nothing to wait for.
fn outcomes(runs: &[&Span]) -> String {
    let (last, before) = runs.split_last().expect("at least one run");
    let outcome = |run: &Span| run.get("resonate.run.outcome").to_owned();
    let mut outcomes: Vec<_> =
        before.iter().map(|run| outcome(run)).filter(|outcome| outcome != "suspended").collect();
    outcomes.push(outcome(last));
    outcomes.join(",")
}

/// A text without the indentation of the source.
pub fn unindent(text: &str) -> String {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let common = lines().map(|line| line.len() - line.trim_start().len()).min().unwrap_or_default();
    lines().map(|line| format!("{}\n", line[common..].trim_end())).collect()
}
