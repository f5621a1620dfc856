//! What a run has seen, as JSON for other programs.

use std::{collections::BTreeMap, time::Duration};

use node::error::Error;
use serde::Serialize;
use settings::without_credentials;

use crate::{
    Settings,
    tally::{Counts, FlowCounts, Latency},
};

/// The summary of a run.
#[derive(Debug, Serialize)]
pub struct Summary {
    gateway: String,
    /// How long flows were started.
    seconds: f64,
    #[serde(flatten)]
    all: Figures,
    /// With `--rate`: flows that were not started because too many were open.
    skipped: u64,
    /// With `--crash`.
    #[serde(flatten)]
    crashes: Option<Crashes>,
    by_flow: BTreeMap<&'static str, Figures>,
    /// The first wrong and lost flows.
    problems: Vec<String>,
}

/// The figures of one flow, or of all.
#[derive(Debug, Serialize)]
struct Figures {
    flows: u64,
    right: u64,
    wrong: u64,
    lost: u64,
    retried: u64,
    /// Flows that have ended right, per second.
    flows_per_second: f64,
    /// From the request to the final answer.
    latency_ms: Quantiles,
}

/// What became of the processes that were crashed.
#[derive(Debug, Serialize)]
struct Crashes {
    crashes: u64,
    takeovers: u64,
    /// From a crash to the takeover, as seen from here.
    takeover_ms: Quantiles,
}

/// Times in milliseconds.
#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl From<&Latency> for Quantiles {
    fn from(latency: &Latency) -> Self {
        let ms = |share| rounded(latency.quantile(share).as_secs_f64() * 1e3);
        Self { p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), max: ms(1.0) }
    }
}

impl Summary {
    /// The summary of a run that has started flows for this long.
    pub fn new(settings: Settings, started: Duration, counts: Counts) -> Self {
        let seconds = started.as_secs_f64();
        Self {
            gateway: without_credentials(&settings.gateway),
            seconds: rounded(seconds),
            all: Figures::new(&counts.all(), seconds),
            skipped: counts.skipped,
            crashes: settings.crash.map(|_| Crashes {
                crashes: counts.crashes,
                takeovers: counts.takeovers.count(),
                takeover_ms: (&counts.takeovers).into(),
            }),
            by_flow: counts
                .flows
                .iter()
                .map(|(name, flow)| (*name, Figures::new(flow, seconds)))
                .collect(),
            problems: counts.problems,
        }
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("its keys are texts, and its numbers finite")
    }

    /// # Errors
    /// A flow was wrong or lost.
    pub fn result(&self) -> Result<(), Error> {
        match (self.all.wrong, self.all.lost) {
            (0, 0) => Ok(()),
            (wrong, lost) => Err(Error::Other(format!(
                "of {} flows, {wrong} wrong, {lost} lost",
                self.all.flows
            ))),
        }
    }
}

impl Figures {
    fn new(counts: &FlowCounts, seconds: f64) -> Self {
        Self {
            flows: counts.started,
            right: counts.right,
            wrong: counts.wrong,
            lost: counts.lost,
            retried: counts.retried,
            flows_per_second: rounded(counts.right as f64 / seconds.max(f64::EPSILON)),
            latency_ms: (&counts.latency).into(),
        }
    }
}

/// To three decimals.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}
