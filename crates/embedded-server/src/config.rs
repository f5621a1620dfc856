//! What a server can be told.

use std::time::Duration;

use crate::{auth::Auth, clock::Clock};

/// The configuration of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a task waits for a process to acquire it before its group is told again. Default:
    /// 500 ms.
    pub retry_timeout: Duration,
    /// How long a flow (all promises whose ids share the part before the first dot) is kept after the
    /// last of its promises was settled. An id that is used again after that is new: its functions
    /// run again. Default: 10 minutes.
    pub retention: Duration,
    /// How many settled flows are kept; of more, the oldest are forgotten before their retention
    /// is over. Default: 20,000.
    pub max_settled_flows: usize,
    /// How many message streams may be open at once; more are refused with 503. Default: 1,000.
    pub max_connections: usize,
    /// How many messages are kept for a client that does not read its stream; more go to another
    /// connection of the group, or wait for the retry time-out. Default: 16,384.
    pub queue: usize,
    /// The largest request body in bytes; larger ones are refused with 413. Default: 2 MiB.
    pub max_body: usize,
    /// The URL of this server, as messages name it. Default: the address that it listens on.
    pub url: Option<String>,
    /// The time. Default: the system's.
    pub clock: Clock,
    /// Which tokens are accepted. Default: none is asked for.
    pub auth: Option<Auth>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retry_timeout: Duration::from_millis(500),
            retention: Duration::from_secs(600),
            max_settled_flows: 20_000,
            max_connections: 1_000,
            queue: 16_384,
            max_body: 2 * 1024 * 1024,
            url: None,
            clock: Clock::system(),
            auth: None,
        }
    }
}
