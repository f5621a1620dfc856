//! The options of the load generator.

use std::time::Duration;

use settings::{duration, integer, url};

use crate::mix::{Weights, weights};

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What is started, how much of it, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Address of the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5000", value_parser = url)]
    pub gateway: String,
    /// File with a token of the gateway; of several, one a line, the first is sent
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<String>,
    /// Flows at the same time: when one has ended, the next one starts. 1 to 10000
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = integer(1, 10_000))]
    pub concurrency: usize,
    /// Flows to start per second, whether or not earlier ones have ended. 0.01 to 10000 [default:
    /// as fast as --concurrency allows]
    #[arg(long, value_name = "NUMBER", value_parser = rate, conflicts_with = "concurrency")]
    pub rate: Option<f64>,
    /// With --rate, most flows at the same time: further ones are skipped, and counted as such.
    /// 1 to 10000
    #[arg(long, value_name = "NUMBER", default_value = "1000", value_parser = integer(1, 10_000))]
    pub most: usize,
    /// How long flows are started; the last ones are waited for. 1ms to 24h
    #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = duration(MS, DAY))]
    pub duration: Duration,
    /// How long the last flows may take to end; what is left then is lost. 1ms to 24h
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration(MS, DAY))]
    pub patience: Duration,
    /// Which flows, and how often each in relation to the others, such as
    /// await-chain=3,fan-out-workflow=1 [default: all flows alike]
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true, value_parser = weights)]
    pub flows: Weights,
    /// Percent of flows that work for --work-time, in steps of 1 s
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = integer(0, 100))]
    pub work: usize,
    /// How long they work. 1ms to 10m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration(MS, 10 * MINUTE))]
    pub work_time: Duration,
    /// Percent of flows that sleep for --sleep-time, by a durable timer
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = integer(0, 100))]
    pub sleep: usize,
    /// How long they sleep. 1ms to 10m
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration(MS, 10 * MINUTE))]
    pub sleep_time: Duration,
    /// Percent of flows with a step that fails: every second one fails for good, and must
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = integer(0, 100))]
    pub fail: usize,
    /// Crash a process that holds a flow this often, if NODE_CRASH_BUTTON is set, and count takeovers.
    /// 100ms to 24h [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration(100 * MS, DAY))]
    pub crash: Option<Duration>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected a number from 0.01 to 10000".to_owned())
}
