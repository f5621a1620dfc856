//! The settings of a server process, as flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// The settings of a server process. A flag comes before its variable.
///
/// Flatten it into the arguments of an executable, and convert it into a [`Config`].
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Settings {
    /// Where to listen: an IP address and a port. Port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    #[arg(env = "EMBEDDED_SERVER_LISTEN", default_value = "127.0.0.1:8001")]
    pub listen: SocketAddr,

    /// How long a task waits for a process before its group is told again: 1ms or more
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    #[arg(env = "EMBEDDED_SERVER_RETRY_TIMEOUT", default_value = "500ms")]
    pub retry_timeout: Duration,

    /// How long a flow is kept after its last promise was settled: 1ms or more. An id that is used
    /// again after that is new: its functions run again
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    #[arg(env = "EMBEDDED_SERVER_RETENTION", default_value = "10m")]
    pub retention: Duration,

    /// How many settled flows are kept: 0 or more. Of more, the oldest are forgotten early
    #[arg(long, value_name = "COUNT", value_parser = count)]
    #[arg(env = "EMBEDDED_SERVER_MAX_SETTLED_FLOWS", default_value = "20000")]
    pub max_settled_flows: usize,

    /// How many message streams may be open at once: 1 or more. Each process of a service holds one
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    #[arg(env = "EMBEDDED_SERVER_MAX_CONNECTIONS", default_value = "1000")]
    pub max_connections: usize,

    /// Which log lines are written: error, warn, info, debug, trace, or a filter such as
    /// info,embedded_server=debug
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    #[arg(env = "EMBEDDED_SERVER_LOG", default_value = "info")]
    pub log: String,

    /// How log lines are written: human or json
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    #[arg(env = "EMBEDDED_SERVER_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
        Self {
            retry_timeout: settings.retry_timeout,
            retention: settings.retention,
            max_settled_flows: settings.max_settled_flows,
            max_connections: settings.max_connections,
            ..Self::default()
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "expected an address and a port such as 127.0.0.1:8001")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_millis(1) => Ok(duration),
        Ok(_) => Err("must be at least 1ms"),
        Err(_) => Err("expected a duration such as 500ms or 10m"),
    }
}

fn count(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "expected an integer such as 1000")
}

fn positive(text: &str) -> Result<usize, &'static str> {
    match count(text)? {
        0 => Err("must be at least 1"),
        count => Ok(count),
    }
}

fn filter(text: &str) -> Result<String, &'static str> {
    let expected = "expected a level or a filter such as info,embedded_server=debug";
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|_| expected)
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected human or json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_counts_and_addresses_have_limits() {
        for (text, milliseconds) in
            [("500ms", 500), ("2s", 2_000), ("10m", 600_000), ("24h", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for text in ["", "soon", "5", "5x", "-1s", "99999999999999999999s"] {
            assert!(duration(text).unwrap_err().contains("500ms"), "{text}");
        }
        for text in ["0s", "10us"] {
            assert_eq!(duration(text), Err("must be at least 1ms"), "{text}");
        }
        assert_eq!((count("0"), positive("0")), (Ok(0), Err("must be at least 1")));
        assert!(count("-1").is_err() && positive("many").is_err());
        assert!(address("127.0.0.1").is_err() && address("[::1]:0").is_ok());
        assert!(log_format("yaml").is_err() && filter("a=b=c").is_err());
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            settings: Settings,
        }
        let cli = <Cli as clap::Parser>::parse_from(["server"]);
        let (settings, config) = (Config::from(cli.settings), Config::default());
        assert_eq!(settings.retry_timeout, config.retry_timeout);
        assert_eq!(settings.retention, config.retention);
        assert_eq!(settings.max_settled_flows, config.max_settled_flows);
        assert_eq!(settings.max_connections, config.max_connections);
    }
}
