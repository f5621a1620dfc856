//! Configuration: defaults, then an optional file, then environment variables.
//!
//! Every setting is a key such as `lease`: `lease = "3s"` in the file that `NODE_CONFIG_FILE`
//! names (TOML), `NODE_LEASE=3s` in the environment.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use crate::duration;

/// A value that cannot be used. Its text names the variable, the value and what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={value:?} cannot be used: {allowed}")]
pub struct Error {
    variable: String,
    value: String,
    allowed: String,
}

impl Error {
    /// An error about `variable`, which may also be a command line option.
    pub fn new(
        variable: impl Into<String>,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { variable: variable.into(), value: value.into(), allowed: allowed.into() }
    }
}

/// One source of settings: a prefix of environment variables, over an optional TOML file.
pub struct Settings {
    prefix: &'static str,
    values: config::Config,
}

impl Settings {
    /// Reads the file that `<prefix>_CONFIG_FILE` names, if it is set, and the environment.
    ///
    /// # Errors
    /// The file is missing, cannot be read, or is not TOML.
    pub fn load(prefix: &'static str) -> Result<Self, Error> {
        let variable = format!("{prefix}_CONFIG_FILE");
        let file = std::env::var(&variable).ok();
        let mut builder = config::Config::builder();
        if let Some(path) = &file {
            builder = builder.add_source(config::File::new(path, config::FileFormat::Toml));
        }
        let values = builder.add_source(config::Environment::with_prefix(prefix)).build().map_err(
            |error| {
                let allowed = format!("a readable TOML file is expected ({error})");
                Error::new(variable, file.unwrap_or_default(), allowed)
            },
        )?;
        Ok(Self { prefix, values })
    }

    /// The setting `key`, or `default` where it is not set.
    ///
    /// # Errors
    /// `parse` refused the value; its text is what the user reads as "what is allowed".
    pub fn get<T>(
        &self,
        key: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        let variable = || format!("{}_{}", self.prefix, key.to_uppercase());
        match self.values.get_string(key) {
            Ok(value) => parse(&value).map_err(|allowed| Error::new(variable(), value, allowed)),
            Err(config::ConfigError::NotFound(_)) => Ok(default),
            Err(error) => {
                Err(Error::new(variable(), error.to_string(), "one text value is expected"))
            }
        }
    }

    /// A duration from `least` to `most`.
    ///
    /// # Errors
    /// The value is no duration, or out of these bounds.
    pub fn duration(
        &self,
        key: &str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Result<Duration, Error> {
        self.get(key, default, |text| {
            let value = duration::parse(text)?;
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            Err(format!(
                "from {} to {} is allowed",
                duration::format(least),
                duration::format(most)
            ))
        })
    }

    /// An address to listen on, such as `127.0.0.1:8080`; port 0 takes a free one.
    ///
    /// # Errors
    /// The value is no IP address with a port.
    pub fn address(&self, key: &str, default: SocketAddr) -> Result<SocketAddr, Error> {
        self.get(key, default, |text| {
            SocketAddr::from_str(text).map_err(|_| {
                "an IP address with a port is expected, such as 127.0.0.1:8080".to_owned()
            })
        })
    }

    /// An `http://` or `https://` address, without its trailing slash.
    ///
    /// # Errors
    /// The value is no such address.
    pub fn url(&self, key: &str, default: &str) -> Result<String, Error> {
        self.get(key, default.to_owned(), url)
    }
}

/// Reads an `http://` or `https://` address, without its trailing slash.
///
/// # Errors
/// Says what is allowed.
pub fn url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("an address such as http://127.0.0.1:8001 is expected".to_owned()),
    }
}

/// Reads a name of a process or group: it becomes part of addresses and of log lines.
///
/// # Errors
/// Says what is allowed.
pub fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=100).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("1 to 100 characters of A-Z a-z 0-9 - _ are allowed".to_owned())
}

/// Reads the name of a process, in which the names of its group and its host may be left open.
fn instance(
    text: &str,
    group: &str,
    hostname: impl Fn() -> Option<String>,
) -> Result<String, String> {
    let mut text = text.replace("{group}", group);
    if text.contains("{hostname}") {
        let hostname = hostname().ok_or("this host has no name to put for {hostname}")?;
        // A dot would be no name of ours; the first part is unique where the host's short name is.
        text = text.replace("{hostname}", hostname.split('.').next().unwrap_or_default());
    }
    name(&text).map_err(|allowed| format!("{allowed}, besides {{group}} and {{hostname}}"))
}

/// The name of this host; in a container it is the container's.
fn hostname() -> Option<String> {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = file.or_else(|| std::env::var("HOSTNAME").ok())?.trim().to_owned();
    Some(name).filter(|name| !name.is_empty())
}

/// What every process of the system can be told, with the prefix `NODE_`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `NODE_SERVER_URL`: the Resonate Server.
    pub server_url: String,
    /// `NODE_INSTANCE`: unique name of this process; the first process of a group bears the group's name.
    /// `{group}` and `{hostname}` in it are replaced: where containers are copies of each other,
    /// the host's name is what tells them apart.
    pub instance: String,
    /// `NODE_LEASE`: how long a task stays with a process that no longer heartbeats.
    /// The time until a takeover; heartbeats go out twice in it.
    pub lease: Duration,
    /// `NODE_DRAIN`: how long a process that was told to stop may finish its running steps.
    pub drain: Duration,
    /// `NODE_CONNECT_TIMEOUT`: for one connection to the Resonate Server.
    pub connect_timeout: Duration,
    /// `NODE_REQUEST_TIMEOUT`: for one attempt of a request to the Resonate Server.
    pub request_timeout: Duration,
    /// `NODE_ATTEMPTS`: attempts of a step before its error counts, the first one included.
    pub attempts: usize,
    /// `NODE_RETRY_DELAY`: pause after the first failed attempt; it doubles, with jitter.
    pub retry_delay: Duration,
    /// `NODE_RETRY_MAX_DELAY`: the pause does not grow beyond this.
    pub retry_max_delay: Duration,
    /// `NODE_HEALTH_LISTEN`: where `/healthz` and `/readyz` of a service are answered.
    pub health_listen: SocketAddr,
    /// `NODE_WORKER_THREADS`: threads that run functions and requests.
    pub worker_threads: usize,
}

impl Config {
    /// Reads the configuration of a process of `group`.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn load(group: &str) -> Result<Self, Error> {
        const MS: Duration = Duration::from_millis(1);
        const S: Duration = Duration::from_secs(1);
        let from = Settings::load("NODE")?;
        Ok(Self {
            server_url: from.url("server_url", "http://127.0.0.1:8001")?,
            instance: from
                .get("instance", group.to_owned(), |text| instance(text, group, hostname))?,
            lease: from.duration("lease", 3 * S, 500 * MS, 3_600 * S)?,
            drain: from.duration("drain", 8 * S, Duration::ZERO, 3_600 * S)?,
            connect_timeout: from.duration("connect_timeout", S, 10 * MS, 60 * S)?,
            request_timeout: from.duration("request_timeout", 2 * S, 10 * MS, 60 * S)?,
            attempts: from.get("attempts", 5, |text| between(text, 1, 100))?,
            retry_delay: from.duration("retry_delay", 100 * MS, MS, 60 * S)?,
            retry_max_delay: from.duration("retry_max_delay", 2 * S, MS, 3_600 * S)?,
            health_listen: from
                .address("health_listen", SocketAddr::from(([127, 0, 0, 1], 8080)))?,
            worker_threads: from.get("worker_threads", 1, |text| between(text, 1, 64))?,
        })
    }
}

fn between(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("an integer from {least} to {most} is allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        let file = config::File::from_str(toml, config::FileFormat::Toml);
        Settings {
            prefix: "NODE",
            values: config::Config::builder().add_source(file).build().unwrap(),
        }
    }

    #[test]
    fn a_bad_value_names_variable_value_and_what_is_allowed() {
        let bounds = (Duration::from_secs(1), Duration::from_secs(9));
        let read = |toml| settings(toml).duration("lease", bounds.0, bounds.0, bounds.1);
        assert_eq!(read("lease = \"3s\"").unwrap(), Duration::from_secs(3));
        assert_eq!(read("").unwrap(), Duration::from_secs(1));
        assert_eq!(
            read("lease = \"10s\"").unwrap_err().to_string(),
            "NODE_LEASE=\"10s\" cannot be used: from 1s to 9s is allowed"
        );
        let error = read("lease = \"soon\"").unwrap_err().to_string();
        assert!(error.starts_with("NODE_LEASE=\"soon\" cannot be used: "), "{error}");
    }

    #[test]
    fn an_instance_can_be_named_after_its_group_and_its_host() {
        let read = |text| instance(text, "service-b", || Some("4f1c2d3e.example".to_owned()));
        assert_eq!(read("{group}-replica-{hostname}").unwrap(), "service-b-replica-4f1c2d3e");
        assert_eq!(read("service-b-replica").unwrap(), "service-b-replica");
        for bad in ["{host}", "a b", ""] {
            assert!(read(bad).unwrap_err().contains("{hostname}"), "{bad}");
        }
        assert!(instance("{hostname}", "service-b", || None).is_err());
        assert_eq!(instance("{group}", "service-b", || None).unwrap(), "service-b");
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(url("http://resonate:8001/").unwrap(), "http://resonate:8001");
        for bad in ["resonate:8001", "ftp://x", "http://", ""] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
