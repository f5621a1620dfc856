//! The gateway's settings: its own, with the prefix `GATEWAY_`, and those of every process.

use std::{net::SocketAddr, time::Duration};

use node::{config::Config, descriptors, memory};
use settings::SettingError;

use crate::{access, hosts::Hosts};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// What a connection takes at most while its request waits for a flow.
const BYTES_OF_A_CONNECTION: usize = 96 << 10;

/// Connections that are left for requests that do not wait for a flow, such as health checks.
const OTHER_CONNECTIONS: usize = 64;

/// Pages of flows that are open at once. Each takes a connection.
const MOST_VIEWERS: usize = 200;

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
    /// Most connections of clients at once; a further one replaces the one that has waited longest for a
    /// request. Never more than half of the files that the process may open. 16 to 1000000 [default:
    /// what fits the memory limit of the container, at most 10000]
    #[arg(
        long,
        env = "GATEWAY_MAX_CONNECTIONS",
        value_name = "NUMBER",
        value_parser = settings::integer(16, 1_000_000)
    )]
    pub max_connections: Option<usize>,
    /// Most requests that wait for a flow at once; further ones are answered with 503. Some connections
    /// are always left for other requests. 1 to 1000000 [default: 64 less than the connections, or an
    /// eighth less if they are few]
    #[arg(
        long,
        env = "GATEWAY_MAX_WAITING",
        value_name = "NUMBER",
        value_parser = settings::integer(1, 1_000_000)
    )]
    pub max_waiting: Option<usize>,
    /// File with the tokens that clients may use, one a line: a bearer token, or the password in a browser.
    /// It is read again when it changes [default: clients need none]
    #[arg(long, env = "GATEWAY_TOKENS_FILE", value_name = "PATH")]
    pub tokens_file: Option<String>,
    /// Most requests per second of one client, by its address; further ones are answered with 429.
    /// 1 to 1000000 [default: no limit]
    #[arg(long, env = "GATEWAY_RATE_LIMIT", value_name = "NUMBER", value_parser = settings::integer(1, 1_000_000))]
    pub rate_limit: Option<usize>,
    /// Requests that a client may send at once before the limit counts. 1 to 1000000
    #[arg(long, env = "GATEWAY_RATE_BURST", value_name = "NUMBER", default_value = "20", value_parser = settings::integer(1, 1_000_000))]
    pub rate_burst: usize,
    /// Proxies in front of the gateway that append their client's address to X-Forwarded-For. With 0, the
    /// header does not count for the limit, and each proxy is one client. 0 to 16
    #[arg(long, env = "GATEWAY_PROXIES", value_name = "NUMBER", default_value = "0", value_parser = settings::integer(0, 16))]
    pub proxies: usize,
    /// Host names under which clients may reach the gateway, such as a.example,b.example, or * for any.
    /// localhost and IP addresses are always allowed [default: any, or none if it listens on loopback]
    #[arg(long, env = "GATEWAY_HOSTS", value_name = "LIST", value_parser = Hosts::parse)]
    pub hosts: Option<Hosts>,
    /// Address of Jaeger's page as browsers reach it, for trace_url in answers [default: no trace_url]
    #[arg(long, env = "GATEWAY_JAEGER_URL", value_name = "URL", value_parser = settings::url)]
    pub jaeger_url: Option<String>,
    /// What to type in a terminal to kill the process that holds a call, for answers; {group},
    /// {instance}, {hostname} and {pid} are replaced [default: it is not shown]
    #[arg(long, env = "GATEWAY_KILL_COMMAND", value_name = "COMMAND")]
    pub kill_command: Option<String>,
    /// What to type to start it again after that [default: it is not shown]
    #[arg(long, env = "GATEWAY_START_COMMAND", value_name = "COMMAND")]
    pub start_command: Option<String>,
    /// What to type to start the first process of a group, or the gateway itself, for the page; {group} is
    /// replaced, by gateway for the gateway [default: it is not shown]
    #[arg(long, env = "GATEWAY_GROUP_START_COMMAND", value_name = "COMMAND")]
    pub group_start_command: Option<String>,
    /// What to type to start the Resonate Server again, for the page; name it only if the server keeps its
    /// flows on disk [default: it is not shown]
    #[arg(long, env = "GATEWAY_SERVER_START_COMMAND", value_name = "COMMAND")]
    pub server_start_command: Option<String>,
    /// TOML file with settings; its keys are the variables without GATEWAY_, in lower case
    #[arg(long, env = "GATEWAY_CONFIG_FILE", value_name = "PATH")]
    pub gateway_config_file: Option<String>,
    /// The settings of every process.
    #[command(flatten)]
    pub node: Config,
}

impl Settings {
    /// Checks settings against each other, and the files that they name.
    ///
    /// # Errors
    /// Those of [`Config::check`], or the tokens of clients cannot be used.
    pub fn check(&self) -> Result<(), SettingError> {
        self.node.check()?;
        access::open(self).map(drop)
    }

    /// Most connections at once.
    pub(crate) fn connections(&self) -> usize {
        let bound = self.max_connections.unwrap_or_else(|| memory::bound(BYTES_OF_A_CONNECTION));
        bound.min(descriptors::for_clients())
    }

    /// Most requests that wait for a flow at once.
    pub(crate) fn waiting(&self) -> usize {
        let connections = self.connections();
        let bound = connections - OTHER_CONNECTIONS.min(connections / 8);
        self.max_waiting.map_or(bound, |waiting| waiting.min(bound))
    }

    /// Most clients that watch a flow at once.
    pub(crate) fn viewers(&self) -> usize {
        self.waiting().div_ceil(2).min(MOST_VIEWERS)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn connections_fit_the_descriptors_and_some_are_left_for_other_requests() {
        let bounds = |arguments: &[&str]| {
            let command = Settings::augment_args(clap::Command::new("gateway"));
            let matches = command.get_matches_from(["gateway"].iter().chain(arguments));
            let settings = Settings::from_arg_matches(&matches).unwrap();
            (settings.connections(), settings.waiting())
        };
        assert_eq!(bounds(&["--max-connections=16"]), (16, 14));
        assert_eq!(bounds(&["--max-connections=16", "--max-waiting=3"]), (16, 3));
        assert_eq!(bounds(&["--max-connections=16", "--max-waiting=16"]), (16, 14));
        let (connections, waiting) = bounds(&["--max-connections=1000000"]);
        assert_eq!(connections, descriptors::for_clients().min(1_000_000));
        assert_eq!(connections - waiting, OTHER_CONNECTIONS.min(connections / 8));
    }
}
