//! Log lines about the life of a process. A launcher tells its user the same of all its processes at
//! once, so there they are of level debug.

use std::net::SocketAddr;

use crate::launched::is_launched;

macro_rules! log {
    ($is_news:expr, $($fields:tt)*) => {
        if $is_news { tracing::info!($($fields)*) } else { tracing::debug!($($fields)*) }
    };
}

/// The process is ready, and answers health checks at `health`.
pub fn ready(instance: &str, health: SocketAddr) {
    log!(!is_launched(), instance, %health, pid = std::process::id(), "ready");
}

/// The process was told to stop. It still has to finish `held` runs, if it is a service.
pub fn stopping(instance: &str, held: Option<usize>) {
    // Work that is left explains why it takes a while.
    log!(!is_launched() || held > Some(0), instance, held, "stopping");
}

/// The process has stopped.
pub fn stopped(instance: &str) {
    log!(!is_launched(), instance, "stopped");
}
