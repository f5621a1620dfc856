//! What was measured while something grew, as tables and plots.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    What,
    plot::{Line, Plot},
};
use crate::{drive::Load, program::Parts, report::mb};

/// One thing, on one server.
#[derive(Serialize)]
pub struct Series {
    pub server: String,
    pub points: Vec<Point>,
}

/// What was measured at one point.
#[derive(Serialize)]
pub struct Point {
    /// How far it has grown.
    pub at: usize,
    pub load: Load,
    /// Bytes, afterwards.
    pub memory: Parts<u64>,
    /// Bytes of the store on disk, afterwards.
    pub stored: u64,
}

impl Point {
    pub fn new(at: usize, load: Load, memory: Parts<u64>, stored: u64) -> Self {
        Self { at, load, memory, stored }
    }
}

/// A figure of a point; none: it is not known.
type Figure = (&'static str, usize, fn(&Point) -> Option<f64>);

const FIGURES: &[Figure] = &[
    ("flows per second", 1, |it| Some(it.load.flows_per_second)),
    ("p50 (ms)", 1, |it| Some(it.load.p50_ms)),
    ("p95 (ms)", 1, |it| Some(it.load.p95_ms)),
    ("p99 (ms)", 1, |it| Some(it.load.p99_ms)),
    ("CPU per flow, gateway and services (ms)", 2, |it| Some(it.load.own_cpu_ms())),
    ("CPU per flow, server (ms)", 2, |it| it.load.cpu_ms.server),
    ("requests per flow", 1, |it| it.load.requests()),
    ("messages per flow", 1, |it| it.load.messages()),
    ("failed flows", 0, |it| Some(it.load.failed as f64)),
    ("memory of the gateway (MB)", 1, |it| Some(mb(it.memory.gateway)).filter(|mb| *mb > 0.0)),
    ("memory of the largest service (MB)", 1, |it| Some(mb(it.memory.services))),
    ("memory of the server (MB)", 1, |it| it.memory.server.map(mb)),
    ("store on disk (MB)", 1, |it| Some(mb(it.stored)).filter(|mb| *mb > 0.0)),
];

impl Series {
    /// One column per point. `axis`: what grows.
    pub fn table(&self, axis: &str) -> String {
        let mut table = format!("| {}, {axis} |", self.server);
        for point in &self.points {
            let _ = write!(table, " {} |", point.at);
        }
        table += &format!("\n|{}\n", " --- |".repeat(self.points.len() + 1));
        for (label, digits, figure) in FIGURES {
            let values: Vec<_> = self.points.iter().map(figure).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(table, "| {label} |");
            for value in values {
                let _ = match value {
                    Some(value) => write!(table, " {value:.digits$} |"),
                    None => write!(table, " – |"),
                };
            }
            table.push('\n');
        }
        table
    }
}

/// Draws the figures that matter where `what` grows, one plot for each, with one line per server. Returns
/// the files.
pub fn draw(all: &[Series], what: What, axis: &str, folder: &Path) -> Vec<PathBuf> {
    let drawn = match what {
        What::Gateway => &["memory of the gateway (MB)", "flows per second"],
        What::Settled => &["flows per second", "CPU per flow, server (ms)"],
        What::Steps | What::FanOut => &["p50 (ms)", "CPU per flow, server (ms)"],
        What::Replicas | What::Connections => &["flows per second", "p50 (ms)"],
    };
    let name = clap::ValueEnum::to_possible_value(&what).expect("it has a name");
    let mut files = Vec::new();
    for (number, (label, _, figure)) in
        FIGURES.iter().filter(|(label, ..)| drawn.contains(label)).enumerate()
    {
        let lines = all.iter().map(|series| Line {
            name: &series.server,
            points: series
                .points
                .iter()
                .filter_map(|point| Some((point.at as f64, figure(point)?)))
                .collect(),
        });
        let plot = Plot { x: axis, y: label, lines: lines.collect() };
        let file = folder.join(format!("{}-{}.svg", name.get_name(), number + 1));
        std::fs::write(&file, plot.svg()).expect("the folder of the plots");
        files.push(file);
    }
    files
}
