//! The tables, in Markdown, and the JSON.

use std::{fmt::Write as _, path::Path};

use serde::Serialize;

use crate::{
    compare::{Comparison, Figures},
    drive::Load,
    machine,
    recovery::Recovery,
};

/// The lease of all measurements: the default of `NODE_LEASE`.
const LEASE: f64 = 3.0;

/// A row: its label, how many digits, and the figure.
type Row = (String, usize, Box<dyn Fn(&Figures) -> Option<f64>>);

/// The table of one server: one row per figure, one column per subject. A cell is the median of the
/// rounds. In parentheses: the median of the ratios to the first column within each round, which saw the
/// same load on the machine.
pub fn table(comparison: &Comparison) -> String {
    let Comparison { server, subjects, recovery } = comparison;
    let mut table = format!("| {server} |");
    for (name, _) in subjects {
        let _ = write!(table, " {name} |");
    }
    table += &format!("\n|{}\n", " --- |".repeat(subjects.len() + 1));
    for (label, digits, figure) in rows(&subjects[0].1[0].loads) {
        let _ = write!(table, "| {label} |");
        let first: Vec<_> = subjects[0].1.iter().map(&figure).collect();
        for (index, (_, rounds)) in subjects.iter().enumerate() {
            let values: Vec<_> = rounds.iter().map(&figure).collect();
            let ratios = values.iter().zip(&first).filter_map(|(own, first)| {
                Some((*own)? / (*first)?).filter(|ratio: &f64| ratio.is_finite())
            });
            let ratio = median(ratios.collect()).filter(|_| index > 0);
            let ratio = ratio.map_or_else(String::new, |ratio| format!(" (× {ratio:.2})"));
            match median(values.into_iter().flatten().collect()) {
                Some(value) => {
                    let _ = write!(table, " {value:.digits$}{ratio} |");
                }
                None => table += " – |",
            }
        }
        table.push('\n');
    }
    if let Some(Recovery { kill, freeze }) = recovery {
        table += &format!("\n{}\n{}\n", line("kill -9", kill), line("freeze", freeze));
    }
    table
}

fn rows(loads: &[Load]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (index, load) in loads.iter().enumerate() {
        let n = load.connections;
        let connections =
            if n == 1 { "one after the other".to_owned() } else { format!("{n} connections") };
        let mut row = |what: &str, digits, figure: fn(&Load) -> Option<f64>| {
            let label = format!("{what}, {connections}");
            rows.push((label, digits, Box::new(move |it| figure(&it.loads[index]))));
        };
        row("p50 (ms)", 1, |load| Some(load.p50_ms));
        row("p95 (ms)", 1, |load| Some(load.p95_ms));
        row("p99 (ms)", 1, |load| Some(load.p99_ms));
        row("flows per second", 0, |load| Some(load.flows_per_second));
        row("CPU per flow, gateway (ms)", 2, |load| Some(load.cpu_ms.gateway));
        row("CPU per flow, services (ms)", 2, |load| Some(load.cpu_ms.services));
        row("CPU per flow, gateway and services (ms)", 2, |load| Some(load.own_cpu_ms()));
        row("CPU per flow, server (ms)", 2, |load| load.cpu_ms.server);
        row("requests to the server per flow", 1, Load::requests);
        row("messages from the server per flow", 1, Load::messages);
        row("failed flows", 0, |load| Some(load.failed as f64));
    }
    let mut row = |what: &str, digits, figure: fn(&Figures) -> Option<f64>| {
        rows.push((what.to_owned(), digits, Box::new(figure)));
    };
    row("start of the server (s)", 2, |it| it.server_start_s);
    row("start of all processes until the first answer (s)", 2, |it| Some(it.start_s));
    row("memory at rest, gateway (MB)", 1, |it| Some(mb(it.rest.gateway)));
    row("memory at rest, largest service (MB)", 1, |it| Some(mb(it.rest.services)));
    row("memory at rest, server (MB)", 1, |it| it.rest.server.map(mb));
    row("memory after the load, gateway (MB)", 1, |it| Some(mb(it.loaded.gateway)));
    row("memory after the load, largest service (MB)", 1, |it| Some(mb(it.loaded.services)));
    row("memory after the load, server (MB)", 1, |it| it.loaded.server.map(mb));
    rows
}

fn line(fault: &str, seconds: &[f64]) -> String {
    let max = seconds.iter().copied().fold(0.0, f64::max);
    let p50 = median(seconds.to_vec()).unwrap_or_default();
    let count = seconds.len();
    format!(
        "{fault} of the process that holds the work, until another one holds it, {count} times: p50 \
         {p50:.2} s, max {max:.2} s, which is the lease of {LEASE} s {:+.2} s.",
        max - LEASE
    )
}

/// The median; none of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

pub fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Writes all figures to a file, if there is one.
///
/// # Panics
/// It cannot be written.
pub fn write_json(file: Option<&Path>, figures: &impl Serialize) {
    let Some(file) = file else { return };
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let all = serde_json::json!({
        "machine": machine::describe(),
        "arguments": arguments,
        "lease_s": LEASE,
        "figures": figures,
    });
    let text = serde_json::to_string_pretty(&all).expect("figures are JSON");
    std::fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
