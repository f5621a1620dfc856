//! The settings of a server process, as flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use settings::{LogFormat, address, duration, filter, integer};
use tracing_subscriber::filter::Targets;

use crate::{
    auth::{Auth, PublicKey},
    config::Config,
};

const MS: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_secs(8_760 * 3_600);
const MOST: usize = 1_000_000_000;

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

    /// How long a task waits for a process before its group is told again: 1ms to 8760h
    #[arg(long, value_name = "DURATION", value_parser = duration(MS, YEAR))]
    #[arg(env = "EMBEDDED_SERVER_RETRY_TIMEOUT", default_value = "500ms")]
    pub retry_timeout: Duration,

    /// How long a flow is kept after its last promise was settled: 1ms to 8760h. An id that is used
    /// again after that is new: its functions run again
    #[arg(long, value_name = "DURATION", value_parser = duration(MS, YEAR))]
    #[arg(env = "EMBEDDED_SERVER_RETENTION", default_value = "10m")]
    pub retention: Duration,

    /// How many settled flows are kept: 0 to 1000000000. Of more, the oldest are forgotten early
    #[arg(long, value_name = "COUNT", value_parser = integer(0, MOST))]
    #[arg(env = "EMBEDDED_SERVER_MAX_SETTLED_FLOWS", default_value = "20000")]
    pub max_settled_flows: usize,

    /// How many message streams may be open at once: 1 to 1000000000. Each process of a service holds one
    #[arg(long, value_name = "COUNT", value_parser = integer(1, MOST))]
    #[arg(env = "EMBEDDED_SERVER_MAX_CONNECTIONS", default_value = "1000")]
    pub max_connections: usize,

    /// PEM file with the public key that verifies tokens: RSA, EC or Ed25519. Without it, no token is
    /// asked for
    #[arg(long, value_name = "PATH", value_parser = PublicKey::read)]
    #[arg(env = "EMBEDDED_SERVER_AUTH_PUBLICKEY")]
    pub auth_publickey: Option<PublicKey>,

    /// The issuer that tokens must name, with --auth-publickey
    #[arg(long, value_name = "TEXT", requires = "auth_publickey")]
    #[arg(env = "EMBEDDED_SERVER_AUTH_ISS")]
    pub auth_iss: Option<String>,

    /// The audience that tokens must name, with --auth-publickey
    #[arg(long, value_name = "TEXT", requires = "auth_publickey")]
    #[arg(env = "EMBEDDED_SERVER_AUTH_AUD")]
    pub auth_aud: Option<String>,

    /// Which log lines are written: error, warn, info, debug, trace, or a filter such as
    /// info,hyper=debug
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    #[arg(env = "EMBEDDED_SERVER_LOG", default_value = "info")]
    pub log: Targets,

    /// How log lines are written: human or json
    #[arg(long, value_name = "FORMAT")]
    #[arg(env = "EMBEDDED_SERVER_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,
}

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
        Self {
            retry_timeout: settings.retry_timeout,
            retention: settings.retention,
            max_settled_flows: settings.max_settled_flows,
            max_connections: settings.max_connections,
            auth: settings.auth_publickey.map(|key| Auth {
                key,
                iss: settings.auth_iss,
                aud: settings.auth_aud,
            }),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(settings.auth.is_none() && config.auth.is_none());
    }
}
