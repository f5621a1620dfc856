//! What is measured: the names, units and descriptions of all metrics.

use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

/// Bounds of the buckets for promises, runs and steps, in seconds: a step takes milliseconds, a flow
/// that waits for a person takes days.
const DURATIONS: [f64; 18] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    3_600.0, 21_600.0, 86_400.0,
];

/// Those for HTTP requests, as the semantic conventions ask for.
const HTTP_DURATIONS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The instruments that are written to while flows run. Those that are read at each export are in
/// [`super::export`] and [`super::Metrics::message_stream`].
#[derive(Debug)]
pub(super) struct Instruments {
    pub invocation: Histogram<f64>,
    pub queue: Histogram<f64>,
    pub run: Histogram<f64>,
    pub step: Histogram<f64>,
    pub active_runs: UpDownCounter<i64>,
    pub takeovers: Counter<u64>,
    pub lost_leases: Counter<u64>,
    pub fenced_runs: Counter<u64>,
    pub step_retries: Counter<u64>,
    pub rejected_poison: Counter<u64>,
    pub client_requests: Histogram<f64>,
    pub server_requests: Histogram<f64>,
}

impl Instruments {
    pub fn new(meter: &Meter) -> Self {
        let durations = |name, description, boundaries: &[f64]| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(boundaries.to_vec()).build()
        };
        let counter = |name, unit, description| {
            meter.u64_counter(name).with_unit(unit).with_description(description).build()
        };
        Self {
            invocation: durations(
                "resonate.invocation.duration",
                "Time from the creation of a durable promise to its settlement.",
                &DURATIONS,
            ),
            queue: durations(
                "resonate.queue.duration",
                "Time from the creation of a durable promise to the first acquisition of its task.",
                &DURATIONS,
            ),
            run: durations(
                "resonate.run.duration",
                "Time from the acquisition of a task to the end of the run.",
                &DURATIONS,
            ),
            step: durations(
                "resonate.step.duration",
                "Time from the creation of a step's promise to its settlement.",
                &DURATIONS,
            ),
            active_runs: meter
                .i64_up_down_counter("resonate.run.active")
                .with_unit("{run}")
                .with_description("Runs that have not ended.")
                .build(),
            takeovers: counter(
                "resonate.run.takeovers",
                "{run}",
                "Runs that took over from a run whose lease had expired.",
            ),
            lost_leases: counter(
                "resonate.lease.lost",
                "{lease}",
                "Leases that expired, as counted by the process that took over.",
            ),
            fenced_runs: counter(
                "resonate.run.fenced",
                "{run}",
                "Runs whose writes were refused, because another run holds the task or has settled it.",
            ),
            step_retries: counter(
                "resonate.step.retries",
                "{retry}",
                "Attempts of a step after a failed one.",
            ),
            rejected_poison: counter(
                "resonate.poison.rejected",
                "{promise}",
                "Promises that were rejected because no process can run them.",
            ),
            client_requests: durations(
                "http.client.request.duration",
                "Duration of HTTP client requests.",
                &HTTP_DURATIONS,
            ),
            server_requests: durations(
                "http.server.request.duration",
                "Duration of HTTP server requests.",
                &HTTP_DURATIONS,
            ),
        }
    }
}
