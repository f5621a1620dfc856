//! The settings that every process has, with the prefix `NODE_`.

use std::{net::SocketAddr, time::Duration};

use settings::{Secret, SettingError, duration};

use crate::{logging::LogSettings, server};

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// The default of `NODE_REQUEST_TIMEOUT`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings that every process has.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Settings of every process")]
pub struct Config {
    /// TOML file with settings; its keys are the variables without NODE_, in lower case
    #[arg(long, env = "NODE_CONFIG_FILE", value_name = "PATH")]
    pub config_file: Option<String>,
    /// Address of the Resonate Server
    #[arg(long = "server", env = "NODE_SERVER_URL", value_name = "URL", default_value = "http://127.0.0.1:8001", value_parser = settings::url)]
    pub server_url: String,
    /// The token that the server's `auth` section asks for, a JWT. Other users of this machine can read a
    /// command line: prefer the file
    #[arg(long, env = "NODE_SERVER_TOKEN", value_name = "TOKEN", hide_default_value = true, value_parser = settings::secret)]
    pub server_token: Option<Secret>,
    /// File with that token in one line. It is read again when it changes
    #[arg(long, env = "NODE_SERVER_TOKEN_FILE", value_name = "PATH")]
    pub server_token_file: Option<String>,
    /// PEM file with the CA certificates to trust for an https:// server, in place of those of this
    /// system
    #[arg(long, env = "NODE_SERVER_CA_FILE", value_name = "PATH")]
    pub server_ca_file: Option<String>,
    /// Unique name of this process: 1 to 100 characters of A-Z a-z 0-9 - _, in which {group} and
    /// {hostname} are replaced [default: the name of the group]
    #[arg(long, env = "NODE_INSTANCE", value_name = "NAME", value_parser = template)]
    pub instance: Option<String>,
    /// How long a task stays with a process that has gone silent: the time until a takeover.
    /// Heartbeats are sent twice in it. 500ms to 1h
    #[arg(long, env = "NODE_LEASE", value_name = "DURATION", default_value = "3s", value_parser = settings::duration(500 * MS, HOUR))]
    pub lease: Duration,
    /// How long a process that was told to stop may finish its running steps. 0s to 1h
    #[arg(long, env = "NODE_DRAIN", value_name = "DURATION", default_value = "8s", value_parser = settings::duration(Duration::ZERO, HOUR))]
    pub drain: Duration,
    /// Time-out of a connection to the Resonate Server. 10ms to 1m
    #[arg(long, env = "NODE_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = settings::duration(10 * MS, MINUTE))]
    pub connect_timeout: Duration,
    /// Time-out of one attempt of a request to the Resonate Server, at most the lease. 10ms to 1m
    #[arg(long, env = "NODE_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "2s", value_parser = settings::duration(10 * MS, MINUTE))]
    pub request_timeout: Duration,
    /// Attempts of a step, the first one included. 1 to 100
    #[arg(long, env = "NODE_ATTEMPTS", value_name = "NUMBER", default_value = "5", value_parser = settings::integer(1, 100))]
    pub attempts: usize,
    /// Delay after the first failed attempt of a step; it doubles, with jitter. 1ms to 1m
    #[arg(long, env = "NODE_RETRY_DELAY", value_name = "DURATION", default_value = "100ms", value_parser = settings::duration(MS, MINUTE))]
    pub retry_delay: Duration,
    /// Longest delay between attempts of a step. 1ms to 1h
    #[arg(long, env = "NODE_RETRY_MAX_DELAY", value_name = "DURATION", default_value = "2s", value_parser = settings::duration(MS, HOUR))]
    pub retry_max_delay: Duration,
    /// Whether a message can kill this process, for demonstrations: the gateway then has the route
    /// POST /instances/{group}/{instance}/crash, and a service has the function behind it
    #[arg(long, env = "NODE_CRASH_BUTTON", value_name = "BOOLEAN", default_value = "false", action = clap::ArgAction::Set, value_parser = settings::boolean)]
    pub crash_button: bool,
    /// Text to print once this process is ready, such as what to open
    #[arg(long, env = "NODE_GREETING", value_name = "TEXT")]
    pub greeting: Option<String>,
    /// Threads that run functions and requests. 1 to 64
    #[arg(long, env = "NODE_WORKER_THREADS", value_name = "NUMBER", default_value = "1", value_parser = settings::integer(1, 64))]
    pub worker_threads: usize,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogSettings,
}

/// The settings of a service.
#[derive(Debug, Clone, clap::Args)]
pub struct ServiceSettings {
    #[command(flatten)]
    /// Those that every process has.
    pub node: Config,
    /// Where /healthz and /readyz are answered; port 0 takes a free one
    #[arg(long, env = "NODE_HEALTH_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = settings::address)]
    pub health_listen: SocketAddr,
    /// Most runs that this process holds at once; what is beyond stays for other processes, or for
    /// later. 1 to 1000000 [default: what fits the memory limit of the container, at most 10000]
    #[arg(long, env = "NODE_MAX_RUNS", value_name = "NUMBER", value_parser = settings::integer(1, 1_000_000))]
    pub max_runs: Option<usize>,
    /// How long a run that waits for calls stays open before its task is suspended: an answer within
    /// this time saves four requests. With 0s, it is suspended at once. 0s to 1s
    #[arg(long, env = "NODE_SUSPEND_AFTER", value_name = "DURATION", default_value = "500ms", value_parser = settings::duration(Duration::ZERO, Duration::from_secs(1)))]
    pub suspend_after: Duration,
}

impl Config {
    /// Checks settings against each other, and the files that they name.
    ///
    /// # Errors
    /// A request may take longer than a lease lasts; or the server's token or CA certificates cannot be
    /// used.
    pub fn check(&self) -> Result<(), SettingError> {
        server::check(self)?;
        // The default is cut to a shorter lease in silence.
        if self.request_timeout <= self.lease.max(REQUEST_TIMEOUT) {
            return Ok(());
        }
        let expected = format!("must not exceed the lease ({})", duration::format(self.lease));
        let timeout = duration::format(self.request_timeout);
        Err(SettingError::new("NODE_REQUEST_TIMEOUT", &timeout, expected))
    }

    /// The time-out of one attempt of a request.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.request_timeout.min(self.lease)
    }

    /// The name of this process: a process of `group`.
    ///
    /// # Errors
    /// It has other characters than a name may have, or this host has no name.
    pub fn instance(&self, group: &str) -> Result<String, SettingError> {
        let template = self.instance.as_deref().unwrap_or("{group}");
        instance(template, group, hostname)
            .map_err(|expected| SettingError::new("NODE_INSTANCE", template, expected))
    }
}

/// Reads the name of a process with the group and the host left open.
fn template(text: &str) -> Result<String, String> {
    instance(text, "group", || Some("host".to_owned())).map(|_| text.to_owned())
}

/// Replaces the names of the group and the host in the name of a process.
fn instance(
    template: &str,
    group: &str,
    hostname: impl Fn() -> Option<String>,
) -> Result<String, String> {
    let mut name = template.replace("{group}", group);
    if name.contains("{hostname}") {
        let hostname = hostname().ok_or("this host has no name for {hostname}")?;
        // Names have no dots. The first part is unique wherever the host's short name is.
        name = name.replace("{hostname}", hostname.split('.').next().unwrap_or_default());
    }
    settings::name(&name).map_err(|expected| format!("{expected}, or {{group}} and {{hostname}}"))
}

/// The name of this host; in a container it is the container's id.
pub fn hostname() -> Option<String> {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = file.or_else(|| std::env::var("HOSTNAME").ok())?.trim().to_owned();
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn a_request_may_not_take_longer_than_the_lease() {
        let check = |arguments: &[&str]| {
            let command = Config::augment_args(clap::Command::new("node"));
            let matches = command.get_matches_from(["node"].iter().chain(arguments));
            let config = Config::from_arg_matches(&matches).unwrap();
            config.check().map(|()| config.attempt_timeout())
        };
        assert_eq!(check(&[]).unwrap(), REQUEST_TIMEOUT);
        assert_eq!(check(&["--lease=500ms"]).unwrap(), Duration::from_millis(500));
        let error = check(&["--lease=5s", "--request-timeout=1m"]).unwrap_err();
        let expected = "invalid NODE_REQUEST_TIMEOUT \"1m\": must not exceed the lease (5s)";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_instance_can_be_named_after_its_group_and_its_host() {
        let read = |text| instance(text, "service-b", || Some("4f1c2d3e.example".to_owned()));
        assert_eq!(read("{group}-replica-{hostname}").unwrap(), "service-b-replica-4f1c2d3e");
        assert_eq!(read("service-b-replica").unwrap(), "service-b-replica");
        for bad in ["{host}", "a b", ""] {
            assert!(read(bad).unwrap_err().contains("{hostname}"), "{bad}");
            assert!(template(bad).is_err(), "{bad}");
        }
        assert!(template("{group}-replica-{hostname}").is_ok());
        assert!(instance("{hostname}", "service-b", || None).is_err());
        assert_eq!(instance("{group}", "service-b", || None).unwrap(), "service-b");
    }
}
