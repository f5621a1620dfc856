//! The name under which a process holds tasks at the server.

use crate::config::hostname;

/// What no name of an instance contains.
const SEPARATOR: char = '#';

/// A name that no other process has, not even one that was given the same instance name: neither
/// can then take a task of the other for its own. It says where the process runs, for a person who
/// looks for it: `service-b#7347-1a2b3c4d@464eac2246c8`.
pub(crate) fn unique(instance: &str) -> String {
    let (pid, random) = (std::process::id(), rand::random::<u32>());
    let host = hostname().unwrap_or_default();
    format!("{instance}{SEPARATOR}{pid}-{random:08x}@{host}")
}

/// The instance that holds a task, from the task's `pid`.
pub fn instance_of(pid: &str) -> &str {
    pid.split_once(SEPARATOR).map_or(pid, |(instance, _)| instance)
}

/// The process that holds a task, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The instance.
    pub instance: String,
    /// The number that the operating system has given to the process. None: another SDK holds the
    /// task.
    pub pid: Option<u32>,
    /// The name of its host; in a container it is the container's id.
    pub host: Option<String>,
}

impl Holder {
    /// Reads the `pid` of a task. It may be of another SDK.
    pub fn of(pid: &str) -> Self {
        let place = pid.split_once(SEPARATOR).map(|(_, place)| place).unwrap_or_default();
        let (process, host) = place.split_once('@').unwrap_or((place, ""));
        let number = process.split_once('-').and_then(|(number, _)| number.parse().ok());
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = !host.is_empty() && host.chars().all(fits);
        Self {
            instance: instance_of(pid).to_owned(),
            pid: number,
            host: is_name.then(|| host.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_unique_and_names_its_instance() {
        let (one, other) = (unique("service-b"), unique("service-b"));
        assert_ne!(one, other);
        assert_eq!(instance_of(&one), "service-b");
        assert_eq!(instance_of("of another SDK"), "of another SDK");
    }

    #[test]
    fn a_pid_says_where_its_process_runs() {
        let own = Holder::of(&unique("service-b"));
        let expected = Holder {
            instance: "service-b".to_owned(),
            pid: Some(std::process::id()),
            host: hostname(),
        };
        assert_eq!(own, expected);
        let place = |pid| {
            let Holder { instance, pid, host } = Holder::of(pid);
            (instance, pid, host)
        };
        assert_eq!(
            place("service-b-replica-464eac2246c8#1-1a2b3c4d@464eac2246c8"),
            ("service-b-replica-464eac2246c8".into(), Some(1), Some("464eac2246c8".into()))
        );
        // Of another SDK, or made up: nothing that a shell would act on.
        assert_eq!(place("3f0a"), ("3f0a".into(), None, None));
        assert_eq!(place("a#1a2b"), ("a".into(), None, None));
        assert_eq!(place("a#1;reboot-1@h;reboot"), ("a".into(), None, None));
    }
}
