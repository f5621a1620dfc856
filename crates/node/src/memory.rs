//! How much a process may hold at once, by the memory that its container gives it.

/// Bytes set aside for the process at rest and for bursts.
const RESERVE: usize = 24 << 20;

/// The bound of a process without a memory limit.
const UNLIMITED: usize = 10_000;

/// The smallest bound, however little memory there is.
const LEAST: usize = 16;

/// How many items of `bytes` each fit the memory limit of this process: 16 to 10,000.
pub fn bound(bytes: usize) -> usize {
    bound_within(limit(), bytes)
}

fn bound_within(limit: Option<usize>, bytes: usize) -> usize {
    let fits = limit.map_or(UNLIMITED, |limit| limit.saturating_sub(RESERVE) / bytes);
    fits.clamp(LEAST, UNLIMITED)
}

/// The memory limit of this process's control group, in bytes: version 2, then version 1.
fn limit() -> Option<usize> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_follows_the_limit() {
        const KIB: usize = 1 << 10;
        assert_eq!(bound_within(None, 96 * KIB), UNLIMITED);
        assert_eq!(bound_within(Some(usize::MAX), 96 * KIB), UNLIMITED);
        assert_eq!(bound_within(Some(64 << 20), 96 * KIB), 426);
        assert_eq!(bound_within(Some(8 << 20), 96 * KIB), LEAST);
    }
}
