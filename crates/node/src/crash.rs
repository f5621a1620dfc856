//! The function that kills the process that runs it, for demonstrations. A process has it only if
//! `NODE_CRASH_BUTTON` is set.
//!
//! It is called by a promise that is sent to one instance and no other, and that times out before
//! the lease of its task would expire. So it is delivered to one process once: a process that is
//! started again under the same name does not get it, and a process that was frozen finds that the
//! promise has timed out.

use rustix::process::{Signal, getpid, kill_process};

/// The name of the function. It has a dot, which no function of an application has.
pub const FUNCTION: &str = "node.crash";

/// The exit code of a process that was killed: 128 and the number of SIGKILL.
const KILLED: i32 = 137;

/// Kills this process.
#[resonate_sdk::function(name = "node.crash")]
pub(crate) async fn crash() -> resonate_sdk::error::Result<()> {
    tracing::warn!("killed by the crash button");
    die()
}

/// Nothing of this process runs after that: no drain, no release, no last spans.
#[expect(clippy::disallowed_methods, reason = "this is the point")]
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // PID 1 of a container gets here: the kernel does not let it kill itself with a signal.
    std::process::exit(KILLED)
}
