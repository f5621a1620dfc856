//! Waiting for what must come, and ports that are free.

use std::{
    fmt::Display,
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How long a test waits. Nothing takes nearly as long on any machine: a wait that reaches this
/// deadline has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The pause between two attempts.
const POLL: Duration = Duration::from_millis(20);

/// Calls `attempt` until it returns something, and returns that.
///
/// # Panics
/// After [`DEADLINE`]. The message shows `context`: usually the log.
pub async fn until<T>(
    context: &impl Display,
    what: &str,
    attempt: impl AsyncFnMut() -> Option<T>,
) -> T {
    until_within(DEADLINE, context, what, attempt).await
}

/// [`until`] with another deadline.
///
/// # Panics
/// After `deadline`.
pub async fn until_within<T>(
    deadline: Duration,
    context: &impl Display,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < deadline, "{deadline:?} passed without {what}\n{context}");
        sleep(POLL).await;
    }
}

/// Returns a port that nobody listens on. It is below the range that the kernel gives to outgoing
/// connections: a client that keeps trying to reach a server that is down could otherwise be given
/// that server's own port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 12_000 + (std::process::id() as u16).wrapping_mul(37) % 18_000;
        let port = port + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
