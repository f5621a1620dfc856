//! The programs of this system.

use std::path::Path;

use clap::ValueEnum;
use testkit::{flows, free_port};

use crate::program::Program;

/// How often metrics are exported: often enough that exports fall into each measurement.
const METRICS_INTERVAL: &str = "5000";

/// What processes export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Telemetry {
    /// Nothing
    Off,
    /// Spans
    Tracing,
    /// Spans and metrics
    Metrics,
}

impl Telemetry {
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "telemetry off",
            Self::Tracing => "tracing",
            Self::Metrics => "tracing and metrics",
        }
    }

    fn environment(self, collector: &str) -> Vec<(String, String)> {
        let signals: &[&str] = match self {
            Self::Off => &[],
            Self::Tracing => &["traces"],
            Self::Metrics => &["traces", "metrics"],
        };
        let endpoint = |signal: &&str| {
            let name = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.to_uppercase());
            (name, format!("{collector}/v1/{signal}"))
        };
        let mut environment: Vec<_> = signals.iter().map(endpoint).collect();
        environment.push(("OTEL_METRIC_EXPORT_INTERVAL".to_owned(), METRICS_INTERVAL.to_owned()));
        // As in production, where nobody reads a line for each step.
        environment.push(("NODE_LOG".to_owned(), "warn".to_owned()));
        environment.push(("NODE_LOG_FORMAT".to_owned(), "human".to_owned()));
        environment
    }
}

/// The gateway and so many processes of each service, and the URL of the gateway.
pub fn programs(
    executable: &Path,
    server: &str,
    replicas: usize,
    telemetry: Telemetry,
    collector: &str,
) -> (Vec<Program>, String) {
    let program = |group: &str, name: String, listen: &str| {
        let address = format!("127.0.0.1:{}", free_port());
        let arguments = [group, "--server", server, "--instance", &name, listen, &address];
        Program {
            executable: executable.to_owned(),
            arguments: arguments.map(str::to_owned).into(),
            environment: telemetry.environment(collector),
            health: Some(address),
            name,
        }
    };
    let mut programs = vec![program("gateway", "gateway".to_owned(), "--listen")];
    for replica in 1..=replicas {
        for group in flows::groups() {
            // The first process of a group has its name: calls with work go there.
            let name = if replica == 1 { group.to_owned() } else { format!("{group}-{replica}") };
            programs.push(program(group, name, "--health-listen"));
        }
    }
    let gateway = format!("http://{}", programs[0].health.as_ref().expect("its address"));
    (programs, gateway)
}
