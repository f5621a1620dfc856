//! The gateway's settings: its own, with the prefix `GATEWAY_`, and those of every process.

use std::{net::SocketAddr, time::Duration};

use node::{config::Config, settings};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// The settings of a gateway process.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Address of the HTTP interface; port 0 takes a free one
    #[arg(
        long,
        env = "GATEWAY_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:5000",
        value_parser = settings::address
    )]
    pub listen: SocketAddr,
    /// How long a request waits for the result of its flow before it is answered with 202. 1ms to 1h
    #[arg(
        long = "await",
        env = "GATEWAY_AWAIT",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = settings::duration(MS, HOUR)
    )]
    pub wait: Duration,
    /// How long a flow may take before it times out. 100ms to 8760h
    #[arg(
        long,
        env = "GATEWAY_FLOW_TIMEOUT",
        value_name = "DURATION",
        default_value = "24h",
        value_parser = settings::duration(100 * MS, 8_760 * HOUR)
    )]
    pub flow_timeout: Duration,
    /// Most requests that wait for a flow at once; further ones are answered with 503. 1 to 1000000
    /// [default: what fits the memory limit of the container, at most 10000]
    #[arg(
        long,
        env = "GATEWAY_MAX_WAITING",
        value_name = "NUMBER",
        value_parser = settings::integer(1, 1_000_000)
    )]
    pub max_waiting: Option<usize>,
    /// Address of Jaeger's page as browsers reach it, for trace_url in answers [default: no trace_url]
    #[arg(long, env = "GATEWAY_JAEGER_URL", value_name = "URL", value_parser = settings::url)]
    pub jaeger_url: Option<String>,
    /// Text to print when the gateway is ready, such as a first command to try
    #[arg(long, env = "GATEWAY_GREETING", value_name = "TEXT")]
    pub greeting: Option<String>,
    /// TOML file with settings; its keys are the variables without GATEWAY_, in lower case
    #[arg(long, env = "GATEWAY_CONFIG_FILE", value_name = "PATH")]
    pub gateway_config_file: Option<String>,
    /// The settings of every process.
    #[command(flatten)]
    pub node: Config,
}
