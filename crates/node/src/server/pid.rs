//! The name under which a process holds tasks at the server.

/// What no name of an instance contains.
const SEPARATOR: char = '#';

/// A name that no other process has, not even one that was given the same instance name: neither
/// can then take a task of the other for its own.
pub(crate) fn unique(instance: &str) -> String {
    format!("{instance}{SEPARATOR}{:08x}", rand::random::<u32>())
}

/// The instance that holds a task, from the task's `pid`.
pub fn instance_of(pid: &str) -> &str {
    pid.split_once(SEPARATOR).map_or(pid, |(instance, _)| instance)
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
}
