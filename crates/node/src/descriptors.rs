//! File descriptors: each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What macOS allows at least, where the hard limit can be higher than what may be set.
const ALWAYS_ALLOWED: u64 = 10_240;

/// What a process needs besides its connections: its listeners, its log, its runtime.
const RESERVE: u64 = 16;

/// Takes all descriptors that this process may have. Many systems start a process with 1,024 of
/// them, for programs that cannot handle more.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raise = |to| setrlimit(Resource::Nofile, Rlimit { current: to, maximum: limit.maximum });
    // None is unlimited.
    if limit.current.is_none() || limit.current == limit.maximum {
        return;
    }
    if let Err(error) = raise(limit.maximum)
        .or_else(|_| raise(Some(ALWAYS_ALLOWED.max(limit.current.unwrap_or_default()))))
    {
        tracing::warn!(%error, ?limit, "cannot raise the limit of open files");
    }
}

/// How many connections of clients this process has descriptors for. As many are left for its own
/// connections to the Resonate Server: each request can need one.
pub fn for_clients() -> usize {
    share(getrlimit(Resource::Nofile).current)
}

fn share(limit: Option<u64>) -> usize {
    let share = limit.map_or(u64::MAX, |limit| (limit / 2).saturating_sub(RESERVE).max(1));
    usize::try_from(share).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_gets_half_of_the_descriptors() {
        assert_eq!(share(None), usize::MAX);
        assert_eq!(share(Some(1_024)), 496);
        assert_eq!(share(Some(256)), 112);
        assert_eq!(share(Some(8)), 1);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_limit() {
        let before = getrlimit(Resource::Nofile);
        let lower = Rlimit { current: Some(256), maximum: before.maximum };
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_limit();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.maximum, before.maximum);
        assert!(after.current == after.maximum || after.current >= Some(ALWAYS_ALLOWED));
    }
}
