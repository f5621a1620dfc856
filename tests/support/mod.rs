//! What the tests of the whole system share: real processes, their output, HTTP.

pub mod http;
pub mod log;
pub mod process;
pub mod resonate;
pub mod server;
pub mod system;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::{
    http::Http,
    log::{Line, Log},
    process::Process,
    resonate::Resonate,
    server::Server,
    system::System,
};

/// Nothing that is awaited takes nearly as long, on whichever machine: who waits longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What is asked for by polling is asked for this often.
const POLL: Duration = Duration::from_millis(20);

/// Asks `attempt` until it gives something.
pub async fn until<T>(log: &Log, what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}; the logs:\n{log}");
        sleep(POLL).await;
    }
}

/// Makes each of these functions, which take a [`Server`], a test on the embedded server and one
/// on the official one.
#[macro_export]
macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test] async fn $name() { super::$name($crate::support::Server::Embedded).await; })*
        }
        mod official {
            $(#[tokio::test] async fn $name() {
                if $crate::support::Server::official_is_here(stringify!($name)) {
                    super::$name($crate::support::Server::Official).await;
                }
            })*
        }
    };
}
